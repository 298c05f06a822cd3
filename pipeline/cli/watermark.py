"""``sluice watermark``: whose text is this?"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.chat.tokenizer import ChatTokenizer
from inference.registry.release import SHIPPED
from inference.types import InvalidRequest
from inference.watermark.detect import ALARM, Detection, Score, detect
from inference.watermark.keys import EPOCH_MS, MarkKey, epoch_of
from inference.watermark.secrets import Secrets, index_key, of_master, read_master
from inference.watermark.winnow import MAX_TEXT, FingerprintIndex
from pipeline import terminal, wiring
from pipeline.cli.arguments import whole
from pipeline.clickhouse.outcomes import sealed_outcomes
from pipeline.config import Settings
from pipeline.errors import ConfigError

DESCRIPTION = """\
Two channels trace a text to the tenant it was delivered to. The watermark sits in the choice of words: it survives cuts
and light edits, needs some 100 to 400 tokens (more where the model had little choice), and is lost in a paraphrase or a
translation. Fingerprints are exact: any copied run of 50 letters and digits is found, whatever became of case, spaces
and punctuation. Neither says who leaked it.
"""
EXAMPLES = """\
examples:
  sluice watermark detect leak.txt                       under the keys of all tenants in control, last 12 epochs
  sluice watermark detect leak.txt --tenant acme --epochs 3
  sluice watermark index answers.db answer.txt --tenant acme --name g1-0-77
  sluice watermark gather answers.db                     of every answer in the sealed log of the last 30 days
  sluice watermark find answers.db leak.txt
an epoch is 30 days; watermark.key in keys.home is the master secret that all tenants' keys derive from
exit codes: 0 nothing found   1 attributed, or a passage found   2 wrong usage or settings
"""
_DAY_MS, _MAX_DAYS = 86_400_000, 3660


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "watermark",
        help="trace a text to the tenant it was delivered to",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_subparsers(metavar="ACT", required=True)
    detecting = _command(group, "detect", "score a text under every key; exit 1 where one fits", _detect)
    detecting.add_argument("file", type=Path)
    detecting.add_argument("--tenant", action="append", default=[], help="once for each; else all tenants in control")
    detecting.add_argument(
        "--epochs", type=whole(1, 1000), default=12, help="how many back from now, this one included"
    )
    detecting.add_argument("--model", type=Path, default=SHIPPED, help="folder with the tokenizer of the model")
    indexing = _command(group, "index", "keep the fingerprints of a delivered text", _index)
    indexing.add_argument("index", type=Path)
    indexing.add_argument("file", type=Path)
    indexing.add_argument("--tenant", required=True)
    indexing.add_argument("--name", required=True, help="such as the request id; once each")
    gathering = _command(group, "gather", "keep the fingerprints on sealed records; safe to repeat", _gather)
    gathering.add_argument("index", type=Path)
    gathering.add_argument("--days", type=whole(1, 36_500), default=30, help="back from now")
    finding = _command(group, "find", "delivered texts that a text copies from; exit 1 where there are any", _find)
    finding.add_argument("index", type=Path)
    finding.add_argument("file", type=Path)


def _command(
    group: Any, name: str, meaning: str, act: Callable[[argparse.Namespace, Settings], int]
) -> argparse.ArgumentParser:
    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        try:
            return act(arguments, settings)
        except OSError as error:
            raise ConfigError(f"{error.filename or name}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except sqlite3.Error as error:
            told = f"{arguments.index}: expected an index of fingerprints in a folder that can be written: {error}"
            raise ConfigError(told) from error

    parser: argparse.ArgumentParser = group.add_parser(name, help=meaning, description=f"{meaning}.")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(act=run)
    return parser


def _detect(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.epochs < 1:
        raise ConfigError(f"--epochs: expected at least 1, got {arguments.epochs}")
    text = _text(arguments.file)
    secrets = of_master(read_master(settings.keys.watermark_key))
    tenants = arguments.tenant or asyncio.run(_tenants(settings))
    try:
        tokens = ChatTokenizer.load(arguments.model / "tokenizer.json").encode_text(text)
    except InvalidRequest as error:
        raise ConfigError(f"{arguments.file}: {error}") from error
    found = detect(tokens, _keys(secrets, tenants, arguments.epochs))
    _report(found, len(tokens), arguments)
    return 1 if found.attributed else 0


def _report(found: Detection, tokens: int, arguments: argparse.Namespace) -> None:
    document = asdict(found) | {"attributed": found.attributed, "tokens": tokens}
    if arguments.json:
        terminal.document(document)
        return
    best = found.best
    if best is None:
        print("nothing to score: expected more than four tokens and at least one key")
        return
    verdict = "marked for" if found.attributed else "not attributed; nearest is"
    print(f"{verdict} {_who(best)}")
    print(f"false-alarm probability {found.false_alarm:.2g}, corrected for {found.tried} keys (alarm below {ALARM:g})")
    print(f"z {best.z:.2f} over {best.scored} distinct tokens of {tokens}")
    for other in found.others:
        print(f"also marked for {_who(other)}: z {other.z:.2f}")


def _who(score: Score) -> str:
    began = time.strftime("%Y-%m-%d", time.gmtime(score.epoch * EPOCH_MS / 1000))
    return f"tenant {score.tenant}, epoch {score.epoch} (30 days from {began})"


def _keys(secrets: Secrets, tenants: list[str], epochs: int) -> Iterator[MarkKey]:
    now = epoch_of(time.time_ns() // 1_000_000)
    for tenant in tenants:
        secret = secrets.mark(tenant)
        for epoch in range(max(0, now - epochs + 1), now + 1):
            yield MarkKey(secret, tenant, epoch)


async def _tenants(settings: Settings) -> list[str]:
    async with wiring.registry(settings) as registry:
        return sorted(registry.control.tenants)


def _index(arguments: argparse.Namespace, settings: Settings) -> int:
    index = _opened(arguments, settings)
    try:
        kept = index.add(arguments.tenant, arguments.name, _text(arguments.file))
    finally:
        index.close()
    terminal.table("", ("name", "fingerprints"), [(arguments.name, kept)], as_json=arguments.json)
    return 0


def _gather(arguments: argparse.Namespace, settings: Settings) -> int:
    if not 1 <= arguments.days <= _MAX_DAYS:
        raise ConfigError(f"--days: expected 1 to {_MAX_DAYS}, got {arguments.days}")
    answers = kept = 0
    index = _opened(arguments, settings)
    try:
        with wiring.store(settings, patience_s=5) as store:
            for outcome in sealed_outcomes(store, time.time_ns() // 1_000_000 - arguments.days * _DAY_MS):
                if outcome.fingerprints:
                    added = index.add_packed(outcome.tenant, outcome.request, outcome.fingerprints)
                    answers, kept = answers + (added > 0), kept + added
    finally:
        index.close()
    terminal.table("", ("answers", "fingerprints"), [(answers, kept)], as_json=arguments.json)
    return 0


def _find(arguments: argparse.Namespace, settings: Settings) -> int:
    if not arguments.index.exists():
        raise ConfigError(f"{arguments.index}: expected an index; make it with: sluice watermark index")
    index = _opened(arguments, settings)
    try:
        found = index.find(_text(arguments.file))
    finally:
        index.close()
    columns = ("tenant", "name", "start", "end", "shared", "share")
    rows = [(p.tenant, p.name, p.start, p.end, p.shared, round(p.share, 3)) for p in found]
    terminal.table("copied from", columns, rows, as_json=arguments.json)
    return 1 if found else 0


def _opened(arguments: argparse.Namespace, settings: Settings) -> FingerprintIndex:
    key = index_key(read_master(settings.keys.watermark_key))
    try:
        return FingerprintIndex(arguments.index, key)
    except sqlite3.Error as error:
        raise ConfigError(
            f"{arguments.index}: expected an index as sluice watermark gather and index make it ({error})"
        ) from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        raise ConfigError(f"{path}: expected at most {MAX_TEXT} bytes; cut it")
    return raw.decode("utf-8", "replace")
