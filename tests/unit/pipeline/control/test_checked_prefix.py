"""Folded live, from the first record, or with a mark of a start before: one state, whoever wrote what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.control.checked_prefix import NOTHING, CheckedMark, CheckedPrefix
from pipeline.errors import ConfigError
from pipeline.events.codec import decode, encode
from pipeline.events.control import Organisation, Plan
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import SignedDocument
from tests.signatures import STRANGER, SignedLog

PLAN = Plan(id="team")


class Derived:
    """A keyring of one key."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self._key = key

    def wrap(self, secret: bytes, context: str) -> str:
        raise NotImplementedError

    def unwrap(self, wrapped: str, context: str) -> bytes:
        raise NotImplementedError

    def derive(self, context: str) -> tuple[bytes, ...]:
        return (self._key,)


class NoKeys(Derived):
    def derive(self, context: str) -> tuple[bytes, ...]:
        raise ConfigError("a worker of one tenant derives no secrets")


def state(fold: ControlFold) -> str:
    control = fold.control
    documents = (control.deployment, control.plans, control.organisations, control.version)
    return repr((documents, fold.terms, fold.forged, fold.prefix))


def folded(log: SignedLog, mark: CheckedMark = NOTHING) -> ControlFold:
    fold = ControlFold(log.pin)
    for offset, value in enumerate(log.records):
        fold.read(offset, value, offset + 1, checked=mark.covers(offset))
    return fold


def forged(value: bytes, **changes: Any) -> bytes:
    """The record with a signature that is not its key's."""
    record = decode(SignedDocument, value)
    bad = msgspec.structs.replace(record.signatures[0], signature=b"\1" * 64)
    return encode(msgspec.structs.replace(record, signatures=(bad,), **changes))


@pytest.fixture
def log() -> SignedLog:
    made = SignedLog()
    made.write(PLAN)
    assert made.add(forged(made.signed(PLAN.model_copy(update={"max_tokens": 9})))) == "bad_signature"
    made.write(Organisation(id="acme"))
    return made


def items(log: SignedLog) -> list[tuple[int, bytes]]:
    return list(enumerate(log.records))


def test_a_mark_saves_signatures_and_puts_no_forged_record_in_force(log: SignedLog, tmp_path: Path) -> None:
    prefix = CheckedPrefix(tmp_path, log.pin, Derived())
    assert prefix.checked(items(log)) == NOTHING
    prefix.store(folded(log))
    mark = prefix.checked(items(log))
    assert (mark.offset, mark.forged) == (4, frozenset({2}))
    assert state(folded(log, mark)) == state(folded(log)) == state(log.fold)
    log.write(PLAN.model_copy(update={"max_tokens": 3}))
    assert state(folded(log, prefix.checked(items(log)))) == state(log.fold)


def test_a_mark_holds_for_its_bytes_its_keyring_and_its_deployment(log: SignedLog, tmp_path: Path) -> None:
    prefix = CheckedPrefix(tmp_path, log.pin, Derived())
    prefix.store(folded(log))
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert CheckedPrefix(tmp_path, log.pin, Derived(b"o" * 32)).checked(items(log)) == NOTHING
    assert CheckedPrefix(tmp_path, "0" * 64, Derived()).checked(items(log)) == NOTHING
    assert CheckedPrefix(tmp_path, log.pin, NoKeys()).checked(items(log)) == NOTHING
    changed = [(offset, value + b" " if offset == 1 else value) for offset, value in items(log)]
    assert prefix.checked(changed) == NOTHING
    assert prefix.checked(items(log)[:3]) == NOTHING
    mark = decode(CheckedMark, file.read_bytes())
    for other in (
        msgspec.structs.replace(mark, forged=frozenset()),
        msgspec.structs.replace(mark, offset=3),
        msgspec.structs.replace(mark, digest="0" * 64),
    ):
        file.write_bytes(encode(other))
        assert prefix.checked(items(log)) == NOTHING
    file.write_bytes(b"{")
    assert prefix.checked(items(log)) == NOTHING


def test_nothing_is_kept_before_the_deployment_is_in_force(tmp_path: Path) -> None:
    prefix = CheckedPrefix(tmp_path / "cache", "0" * 64, Derived())
    prefix.store(ControlFold("0" * 64))
    assert not (tmp_path / "cache").exists()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_live_from_the_first_record_and_with_a_mark_are_one_state(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = SignedLog()
    prefix = CheckedPrefix(tmp_path_factory.mktemp("cache"), log.pin, Derived())
    for number in range(data.draw(st.integers(1, 12))):
        change = PLAN.model_copy(update={"max_tokens": number + 1})
        match data.draw(st.sampled_from(("write", "forge", "stranger", "replay", "unsigned", "junk", "start"))):
            case "write":
                log.write(change)
            case "forge":
                log.add(forged(log.signed(change)))
            case "stranger":
                log.add(log.signed(change, STRANGER))
            case "replay":
                log.add(data.draw(st.sampled_from(log.records)))
            case "unsigned":
                log.add(change.model_dump_json().encode())
            case "junk":
                log.add(data.draw(st.binary(max_size=20)))
            case "start":
                prefix.store(folded(log, prefix.checked(items(log))))
        assert state(folded(log, prefix.checked(items(log)))) == state(folded(log)) == state(log.fold)
