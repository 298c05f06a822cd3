"""``sluice detect``: the detectors on their own, over JSON lines, and what made them decide."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from pipeline import terminal
from pipeline.cli import detect_accounts, detect_pii, lines
from pipeline.config import Settings


class _Row(msgspec.Struct):
    text: str
    id: str | int | None = None
    role: Literal["user", "document", "system"] = "user"
    context: str | None = None


class _Answer(msgspec.Struct):
    id: str | int | None
    score: float
    zone: str
    flagged: bool
    language: str
    rules: list[str]
    view: str


class _Fault(msgspec.Struct):
    id: str | int | None
    error: str


_DECODER = msgspec.json.Decoder(_Row)
_ENCODER = msgspec.json.Encoder()


def add(commands: Any) -> None:
    detect = commands.add_parser("detect", help="run the detectors over lines of JSON")
    subcommands = detect.add_subparsers(metavar="WHAT", required=True)
    prompts = subcommands.add_parser(
        "prompts",
        help="score prompts and documents for injection and jailbreak",
        description='Reads lines {"id", "text", "role"?: user|document|system, "context"?} and answers each, in order, '
        'with {"id", "score", "zone", "flagged", "language", "rules", "view"}. A score of 0.5 is the flag threshold of '
        'the row\'s role and language. A line that cannot be read is answered with {"id", "error"}.',
    )
    prompts.set_defaults(act=_prompts)
    explain = subcommands.add_parser("explain", help="what fired on one text, on which reading, and the n-grams behind")
    explain.add_argument("text", metavar="TEXT")
    explain.add_argument("--role", choices=("user", "document", "system"), default="user")
    explain.add_argument("--json", action="store_true", help="for programs")
    explain.set_defaults(act=_explain)
    detect_accounts.add(subcommands)
    detect_pii.add(subcommands)


def _prompts(arguments: argparse.Namespace, settings: Settings) -> int:
    lines.answer(sys.stdin.fileno(), sys.stdout.buffer, reply)
    return 0


def reply(batch: Sequence[lines.Line]) -> list[bytes]:
    """One encoded answer per line of ``sluice detect prompts``; never raises, whatever a line holds."""
    from detectors.base import Part
    from detectors.catalogue import assess

    rows = [_row(line) for line in batch]
    texts = [(Part(row.role, row.text),) for row in rows if isinstance(row, _Row)]
    verdicts = iter(assess(texts))
    answers: list[_Answer | _Fault] = []
    for row in rows:
        if isinstance(row, _Fault):
            answers.append(row)
            continue
        v = next(verdicts)
        answers.append(_Answer(row.id, v.score, v.zone, v.flagged, v.language, list(v.rules), v.view))
    return [_ENCODER.encode(answer) for answer in answers]


def _row(line: lines.Line) -> _Row | _Fault:
    if line is None:
        return _Fault(None, f"the line is longer than {lines.MAX_LINE} bytes")
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as error:
        return _lenient(line, str(error))


def _lenient(line: bytes, error: str) -> _Row | _Fault:
    """Rows with lone surrogates, which JSON's grammar allows and UTF-8 does not; else the fault, with the id if any."""
    try:
        row = msgspec.convert(json.loads(line), _Row)
        _ENCODER.encode(row.id)
    except (ValueError, RecursionError):
        return _Fault(None, error)
    return row


def _explain(arguments: argparse.Namespace, settings: Settings) -> int:
    from detectors.explain import explain

    found = explain(arguments.text, arguments.role)
    if arguments.json:
        rules, grams = ([each._asdict() for each in column] for column in (found.rules, found.grams))
        terminal.document(found._asdict() | {"rules": rules, "grams": grams})
        return 0
    say = terminal.console()
    colour = {"block": "red", "uncertain": "yellow", "pass": "green"}[found.zone]
    head = f"{found.score:.3f}, {'flagged' if found.flagged else 'not flagged'}, {found.language}, read {found.view}"
    say.print(f"[bold {colour}]{found.zone}[/] {head}, model {found.version}")
    for rule in found.rules:
        say.print(f"  [bold]{rule.rule}[/] severity {rule.severity}, {rule.confidence} %, {rule.view}", end="")
        say.print(f" {rule.start}..{rule.end}: ", end="")
        say.print(repr(rule.text), markup=False, style="cyan")
    for gram in found.grams:
        mark = "red" if gram.weight > 0 else "green"
        say.print(f"  [{mark}]{gram.weight:+8.3f}[/] {gram.kind} ", end="")
        say.print(repr(gram.text), markup=False, style="cyan")
    return 0
