"""``sluice detect pii``: personal data and secrets in rows of JSON, one answer a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.pii import ACTIONS, Actions, find, rewritten
from pipeline.cli import lines, rows
from pipeline.config import Settings
from pipeline.errors import ConfigError


class _Span(msgspec.Struct):
    start: int
    end: int
    type: str
    score: float


class _PiiLine(msgspec.Struct):
    id: msgspec.Raw
    spans: list[_Span]
    redacted: str | msgspec.Raw


def add(subcommands: Any) -> None:
    pii = subcommands.add_parser(
        "pii",
        help="find personal data and secrets, with places and a redacted text",
        description="Find personal data and secrets. "
        "Reads {id, text} a line and writes {id, spans: [{start, end, type, score}], redacted} for each, "
        "in order and at once. Places count code points; score is the share of sureness. A line that is no such row is "
        "answered with an error and does not end the run.",
    )
    pii.add_argument("--action", choices=ACTIONS, default="redact", help="what becomes of an item (default: redact)")
    pii.add_argument("--key-file", type=Path, help="key of hash and token: a file of 16 bytes or more")
    pii.add_argument("--structured", action="store_true", help="formats only, without names and addresses")
    pii.set_defaults(act=_pii)


def _pii(arguments: argparse.Namespace, settings: Settings) -> int:
    actions = _actions(arguments)

    def reply(batch: Sequence[lines.Line]) -> list[bytes]:
        return [answered(line, actions, contextual=not arguments.structured) for line in batch]

    lines.answer(sys.stdin.fileno(), sys.stdout.buffer, reply)
    return 0


def _actions(arguments: argparse.Namespace) -> Actions:
    try:
        key = arguments.key_file.read_bytes() if arguments.key_file else b""
        return Actions(arguments.action, key=key).check()
    except OSError as error:
        raise ConfigError(
            f"--key-file {arguments.key_file}: expected a file of 16 bytes or more, got: {error.strerror}; give another"
        ) from None
    except ValueError as error:
        raise ConfigError(f"--key-file: {error}") from None


def answered(line: lines.Line, actions: Actions, *, contextual: bool = True) -> bytes:
    """The answer to one line. Errors say what was expected, never what the line held."""
    row = rows.read(line, rows.InputRow)
    if isinstance(row, rows.LineFault):
        return rows.faulted(row)
    found = find(row.text, contextual=contextual)
    spans = [_Span(i.start, i.end, i.type, i.score / 100) for i in found]
    redacted = rewritten(row.text, found, actions)
    try:
        return msgspec.json.encode(_PiiLine(row.id, spans, redacted))
    except UnicodeEncodeError:
        # half of a surrogate pair has no UTF-8, only an escape
        return msgspec.json.encode(_PiiLine(row.id, spans, msgspec.Raw(json.dumps(redacted).encode())))
