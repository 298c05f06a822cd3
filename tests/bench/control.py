"""The start of a process on a deployment with many keys: ``control`` read, checked and folded.

Without a broker: what its records cost once they are here. The first start checks every signature; the next ones check
that the bytes below a mark of their own are still those.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from pipeline.control.checked_prefix import CheckedPrefix
from pipeline.events.control import Key, Organisation, Principal, Tenant
from pipeline.events.signed_control import ControlFold
from pipeline.keys.vault import FileKeyring
from tests.bench.rows import Measurement
from tests.signatures import SignedLog

KEYS = 100_000
_LOAD = f"{KEYS:,} keys of one tenant"


def measure() -> list[Measurement]:
    """CPU seconds of a first start and of one with a mark."""
    log = _log()
    items = list(enumerate(log.records))
    with tempfile.TemporaryDirectory() as folder:
        kms = FileKeyring.create(Path(folder) / "keyring.json")
        first = _start(CheckedPrefix(Path(folder), log.pin, kms), log.pin, items)
        again = _start(CheckedPrefix(Path(folder), log.pin, kms), log.pin, items)
    return [
        Measurement("control", "first start: every signature is checked", _LOAD, first, "CPU s"),
        Measurement("control", "start with a checked prefix", _LOAD, again, "CPU s", 5, "<="),
    ]


def _start(prefix: CheckedPrefix, pin: str, items: list[tuple[int, bytes]]) -> float:
    began = time.process_time()
    fold = ControlFold(pin)
    mark = prefix.checked(items)
    for offset, value in items:
        fold.read(offset, value, checked=mark.covers(offset))
    prefix.store(fold)
    assert len(fold.control.keys) == KEYS
    return time.process_time() - began


def _log() -> SignedLog:
    log = SignedLog()
    log.write(Organisation(id="acme"))
    log.write(
        Tenant(id="acme", organisation="acme", plan="p", data_key="k:AA==", hpke_public="AA==", hpke_private="k:AA==")
    )
    log.write(Principal(id="app", tenant="acme"))
    for number in range(KEYS):
        # of the length of a wrapped secret
        log.write(Key(id=f"k{number:012x}", principal="app", secret="k1:" + "A" * 80))
    return log
