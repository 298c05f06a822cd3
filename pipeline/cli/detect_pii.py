"""``sluice detect pii``: personal data and secrets in rows of JSON, one answer a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectors.pii import ACTIONS, Actions, find, rewritten
from pipeline.cli import lines
from pipeline.config import Settings
from pipeline.errors import ConfigError


def add(subcommands: Any) -> None:
    pii = subcommands.add_parser(
        "pii",
        help="personal data and secrets, with places and a redacted text",
        description="Reads {id, text} a line and writes {id, spans: [{start, end, type, score}], redacted} for each, "
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
        raise ConfigError(f"--key-file: {error.strerror}: {arguments.key_file}") from None
    except ValueError as error:
        raise ConfigError(f"--key-file: {error}") from None


def answered(line: bytes | None, actions: Actions, *, contextual: bool = True) -> bytes:
    """The answer to one line. Errors say what was expected, never what the line held."""
    if line is None:
        return _encoded({"id": None, "error": f"expected a line of at most {lines.MAX_LINE} bytes"})
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return _encoded({"id": None, "error": "expected a JSON object in UTF-8"})
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        known = row.get("id") if isinstance(row, dict) else None
        return _encoded({"id": known, "error": "expected an object with the field text, a string"})
    text = row["text"]
    found = find(text, contextual=contextual)
    spans = [{"start": i.start, "end": i.end, "type": i.type, "score": i.score / 100} for i in found]
    return _encoded({"id": row.get("id"), "spans": spans, "redacted": rewritten(text, found, actions)})


def _encoded(answer: dict[str, Any]) -> bytes:
    try:
        return json.dumps(answer, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # half of a surrogate pair has no UTF-8, only an escape
        return json.dumps(answer).encode()
