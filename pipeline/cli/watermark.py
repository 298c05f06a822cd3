"""``sluice watermark``: trace a text to the tenant that it was delivered to."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.chat.tokenizer import ChatTokenizer
from inference.registry.release import SHIPPED
from inference.types import InvalidRequest
from inference.watermark.detect import ALARM, Detection, Score, detect_any
from inference.watermark.keys import EPOCH_MS, MarkKey, epoch_of
from inference.watermark.layout import readings
from inference.watermark.secrets import Secrets, index_key, of_master, read_master
from inference.watermark.winnow import MAX_TEXT, FingerprintIndex
from pipeline import terminal, wiring
from pipeline.cli.arguments import Act, add_command, add_group, whole
from pipeline.clickhouse.outcomes import sealed_outcomes
from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.errors import ConfigError

DESCRIPTION = """\
Two channels trace a text to the tenant it was delivered to. The watermark sits in the choice of words: it survives cuts
and light edits, needs some 100 to 400 tokens (more where the model had little choice), and is lost in a paraphrase or a
translation. Fingerprints are exact: any copied run of 50 letters and digits is found, in any case and
with any spaces and punctuation. Neither says who leaked it.
"""
EXAMPLES = """\
examples:
  sluice watermark detect leak.txt                       under the keys of all tenants in control, last 12 epochs
  sluice watermark detect leak.txt --tenant acme --epochs 3
  sluice watermark index answers.db answer.txt --tenant acme --name g1-0-77
  sluice watermark gather answers.db                     of every answer in the sealed log of the last 30 days
  sluice watermark find answers.db leak.txt
an epoch is 30 days; watermark.key in keys.home is the master secret that all tenants' keys derive from
"""
_DAY_MS, _MAX_DAYS = 86_400_000, 3660


def add(commands: Any) -> None:
    """Add ``watermark``."""
    group = add_group(commands, "watermark", "trace a text to the tenant it was delivered to", DESCRIPTION, EXAMPLES)
    detect = add_command(group, "detect", "score a text under every key", _checked(_detect), "Exit 1 where one fits.")
    detect.add_argument("file", type=Path, help="file of the text, in UTF-8")
    detect.add_argument("--tenant", action="append", default=[], help="tenant to try; once for each (default: all)")
    detect.add_argument(
        "--epochs", type=whole(1, 1000), metavar="N", default=12, help="epochs to try, back from this one (default 12)"
    )
    detect.add_argument("--model", type=Path, default=SHIPPED, help="folder with the tokenizer of the model")
    index = add_command(group, "index", "keep the fingerprints of a delivered text", _checked(_index))
    gather = add_command(
        group, "gather", "keep the fingerprints on sealed records", _checked(_gather), "Safe to repeat."
    )
    find = add_command(
        group,
        "find",
        "find delivered texts that a text copies from",
        _checked(_find),
        "Exit 1 where there are any.",
    )
    for parser in (index, gather, find):
        parser.add_argument("index", type=Path, help="file of the index; index and gather make it")
    for parser in (index, find):
        parser.add_argument("file", type=Path, help="file of the text, in UTF-8")
    index.add_argument("--tenant", required=True, help="tenant that the text was delivered to")
    index.add_argument("--name", required=True, help="name of the text, such as the request id; once each")
    gather.add_argument(
        "--days", type=whole(1, _MAX_DAYS), metavar="N", default=30, help="days back from now (default 30)"
    )


def _checked(act: Act) -> Act:
    """The act, with files that cannot be used as wrong usage."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        try:
            return act(arguments, settings)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except sqlite3.Error as error:
            raise ConfigError(
                f"{arguments.index}: expected an index of fingerprints in a folder that can be written, got: {error}; "
                "make one with: sluice watermark index"
            ) from error

    return run


def _detect(arguments: argparse.Namespace, settings: Settings) -> int:
    text = _text(arguments.file)
    secrets = of_master(read_master(settings.keys.watermark_key))
    tenants = arguments.tenant or asyncio.run(_tenants(settings))
    try:
        tokenizer = ChatTokenizer.load(arguments.model / "tokenizer.json")
        tokens = [tokenizer.encode_text(reading) for reading in readings(text)]
    except InvalidRequest as error:
        raise ConfigError(f"{arguments.file}: {error}") from error
    detection = detect_any(tokens, _keys(secrets, tenants, arguments.epochs))
    _print(detection, len(tokens[0]), arguments)
    return 1 if detection.attributed else 0


def _print(detection: Detection, tokens: int, arguments: argparse.Namespace) -> None:
    best = detection.best
    if arguments.json:
        document = asdict(detection) | {"attributed": detection.attributed, "tokens": tokens}
        # the best of keys that do not fit says nothing about its tenant
        terminal.document(document if detection.attributed else document | {"best": None})
        return
    if best is None:
        print("nothing to score: expected more than four tokens and at least one key")
        return
    keys = f"{detection.tried} keys and {detection.readings} readings of the layout"
    figures = {
        "false-alarm probability": f"{detection.false_alarm:.2g} under {keys}; alarm below {ALARM:g}",
        "z": f"{best.z:.2f} over {best.scored} distinct tokens of {tokens}",
    }
    figures |= {f"also marked for {_owner(other)}": f"z {other.z:.2f}" for other in detection.others}
    terminal.fields(f"marked for {_owner(best)}" if detection.attributed else "not attributed", figures)


def _owner(score: Score) -> str:
    began = time.strftime("%Y-%m-%d", time.gmtime(score.epoch * EPOCH_MS / 1000))
    return f"tenant {score.tenant}, epoch {score.epoch} (30 days from {began})"


def _keys(secrets: Secrets, tenants: list[str], epochs: int) -> Iterator[MarkKey]:
    now = epoch_of(now_ms())
    for tenant in tenants:
        secret = secrets.mark(tenant)
        for epoch in range(max(0, now - epochs + 1), now + 1):
            yield MarkKey(secret, tenant, epoch)


async def _tenants(settings: Settings) -> list[str]:
    async with wiring.registry(settings) as registry:
        return sorted(registry.control.tenants)


def _index(arguments: argparse.Namespace, settings: Settings) -> int:
    index = _open_index(arguments, settings)
    try:
        kept = index.add(arguments.tenant, arguments.name, _text(arguments.file))
    finally:
        index.close()
    terminal.table("", ("name", "fingerprints"), [(arguments.name, kept)], as_json=arguments.json)
    return 0


def _gather(arguments: argparse.Namespace, settings: Settings) -> int:
    answers = 0
    kept = 0
    index = _open_index(arguments, settings)
    try:
        with wiring.store(settings, patience_s=5) as store:
            for outcome in sealed_outcomes(store, now_ms() - arguments.days * _DAY_MS):
                if outcome.fingerprints:
                    added = index.add_packed(outcome.tenant, outcome.request, outcome.fingerprints)
                    answers += added > 0
                    kept += added
    finally:
        index.close()
    terminal.table("", ("answers", "fingerprints"), [(answers, kept)], as_json=arguments.json)
    return 0


def _find(arguments: argparse.Namespace, settings: Settings) -> int:
    if not arguments.index.exists():
        raise ConfigError(
            f"{arguments.index}: expected an index of fingerprints, got no file; make it with: sluice watermark index"
        )
    index = _open_index(arguments, settings)
    try:
        passages = index.find(_text(arguments.file))
    finally:
        index.close()
    columns = ("tenant", "name", "start", "end", "shared", "share")
    rows = [(p.tenant, p.name, p.start, p.end, p.shared, round(p.share, 3)) for p in passages]
    terminal.table("copied from", columns, rows, as_json=arguments.json)
    return 1 if passages else 0


def _open_index(arguments: argparse.Namespace, settings: Settings) -> FingerprintIndex:
    key = index_key(read_master(settings.keys.watermark_key))
    return FingerprintIndex(arguments.index, key)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        raise ConfigError(f"{path}: expected at most {MAX_TEXT} bytes, got more; cut it")
    return raw.decode("utf-8", "replace")
