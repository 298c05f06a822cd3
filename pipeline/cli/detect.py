"""``sluice detect``: the detectors on their own, over JSON lines, and what made them decide."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import terminal
from pipeline.cli import detect_accounts, detect_pii, lines, rows
from pipeline.cli.arguments import add_command, add_group
from pipeline.config import Settings


class _PromptLine(msgspec.Struct):
    id: msgspec.Raw
    score: float
    zone: str
    flagged: bool
    language: str
    rules: list[str]
    view: str


_ENCODER = msgspec.json.Encoder()


def add(commands: Any) -> None:
    subcommands = add_group(commands, "detect", "run the detectors on their own, over lines of JSON")
    prompts = subcommands.add_parser(
        "prompts",
        help="score prompts and documents for injection and jailbreak",
        description="Score prompts and documents for injection and jailbreak. "
        'Reads lines {"id", "text", "role"?: user|document|system, "context"?} and answers each, in order, '
        'with {"id", "score", "zone", "flagged", "language", "rules", "view"}. A score of 0.5 is the flag threshold of '
        'the row\'s role and language. A line that cannot be read is answered with {"id", "error"}.',
    )
    prompts.set_defaults(act=_prompts)
    explain = add_command(
        subcommands, "explain", "show what fired on one text, on which reading, and the n-grams behind", _explain
    )
    explain.add_argument("text", metavar="TEXT", help="the text to look at")
    explain.add_argument(
        "--role", choices=("user", "document", "system"), default="user", help="speaker of the text (default user)"
    )
    detect_accounts.add(subcommands)
    detect_pii.add(subcommands)


def _prompts(arguments: argparse.Namespace, settings: Settings) -> int:
    lines.answer(sys.stdin.fileno(), sys.stdout.buffer, reply)
    return 0


def reply(batch: Sequence[lines.Line]) -> list[bytes]:
    """One encoded answer per line of ``sluice detect prompts``; never raises, for any line."""
    from detectors.base import Part
    from detectors.prompts.assess import assess

    found = [rows.read(line, rows.Prompt) for line in batch]
    texts = [(Part(row.role or "user", row.text),) for row in found if isinstance(row, rows.Prompt)]
    verdicts = iter(assess(texts))
    answers: list[bytes] = []
    for row in found:
        if isinstance(row, rows.LineFault):
            answers.append(rows.faulted(row))
            continue
        v = next(verdicts)
        answers.append(
            _ENCODER.encode(_PromptLine(row.id, v.score, v.zone, v.flagged, v.language, list(v.rules), v.view))
        )
    return answers


def _explain(arguments: argparse.Namespace, settings: Settings) -> int:
    from detectors.prompts.explain import explain

    found = explain(arguments.text, arguments.role)
    if arguments.json:
        shown = found._asdict() | {"passes": found.passes and found.passes._asdict()}
        shown["rules"], shown["words"] = [r._asdict() for r in found.rules], [w._asdict() for w in found.words]
        terminal.document(shown | {"grams": [gram._asdict() for gram in found.grams]})
        return 0
    say = terminal.console()
    colour = {"block": "red", "uncertain": "yellow", "pass": "green"}[found.zone]
    head = f"{found.score:.3f}, {'flagged' if found.flagged else 'not flagged'}, {found.language}, read {found.view}"
    say.print(f"[bold {colour}]{found.zone}[/] {head}, model {found.version}")
    for rule in found.rules:
        say.print(f"  [bold]{rule.rule}[/] severity {rule.severity}, {rule.confidence} %, {rule.view}", end="")
        say.print(f" {rule.start}..{rule.end}: ", end="")
        say.print(repr(rule.text), markup=False, style="cyan")
    if found.words:
        say.print("  words that weigh: ", end="")
        say.print(", ".join(f"{word.text} {word.weight:+.2f}" for word in found.words), markup=False, style="cyan")
    if found.passes:
        say.print(f"  would pass ({found.passes.score:.3f}) without: ", end="")
        say.print(" | ".join(found.passes.without), markup=False, style="cyan")
    for gram in found.grams:
        mark = "red" if gram.weight > 0 else "green"
        say.print(f"  [{mark}]{gram.weight:+8.3f}[/] {gram.kind} ", end="")
        say.print(repr(gram.text), markup=False, style="cyan")
    return 0
