"""``python -m tests.honest``: what the shipped plan refuses and flags of ordinary use, held against what is promised.

The rows come from this machine: files of installed packages, the standard library and the system's documentation,
stock prompts of the frameworks that are installed, and benign texts written for it. Only the closed half of the
packages counts; whoever changes rules looks at ``--half open``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectors.accounts.applications import sessions
from detectors.prompts.training.decide import HARD
from detectors.prompts.training.rows import read
from pipeline import terminal
from tests.honest import applications, frameworks, judge, machine, pastes, sentences
from tests.honest.pastes import OrdinaryText

HEAD = ("kind", "texts", "refused", "bar", "flagged", "bar", "most refused", "met")


def _public(folder: Path) -> Iterator[OrdinaryText]:
    """Benign rows of the pack's validation file, those that resemble attacks apart."""
    for row in read(folder / "validation.jsonl"):
        if row.label == "benign" and row.role == "user" and row.subset not in HARD:
            yield OrdinaryText("public benign rows", f"{row.source} {row.lang}", "user", row.text)
        elif row.label == "benign" and row.role == "document":
            yield OrdinaryText("document, public clean ones", f"{row.source} {row.lang}", "document", row.text)


def _cells(tally: judge.OrdinaryTally) -> tuple[str, ...]:
    bar = judge.bar_of(tally.kind)
    most = f"{tally.worst[0]} {tally.worst[1]:.2%}" if tally.refused else "-"
    flagged = "-" if bar.flagged == 1 else f"{bar.flagged:.1%}"
    shares = f"{tally.refused:.2%}", f"{bar.refused:.1%}", f"{tally.flagged:.2%}", flagged
    return tally.kind, f"{tally.texts:,}", *shares, most, "yes" if tally.met else "no"


def _accounts(half: str, found: dict[str, list[machine.MachineFile]]) -> bool:
    """Print the shapes of ordinary applications of which any account is alarmed; True where the bar is met."""
    drawn = sessions.sessions(half, applications.pieces(found))
    shapes = applications.tallies(applications.judged(drawn))
    alarmed, accounts = sum(one.alarmed.total() for one in shapes), sum(one.accounts for one in shapes)
    within = applications.met(shapes)
    acting = ", ".join(applications.enforcing()) or "none"
    print(
        f"ordinary applications: {half} half, {len(shapes)} shapes {sessions.digest(half)}, {accounts} accounts, "
        f"{alarmed} alarmed ({alarmed / accounts:.1%}, bar {applications.ALARMED:.0%}, of a shape "
        f"{applications.ALARMED_OF_A_SHAPE:.0%}), plans that act on them: {acting}; met: {'yes' if within else 'no'}"
    )
    rows = [
        (one.shape, one.accounts, f"{one.share:.0%}", ", ".join(kind for kind, _ in one.alarmed.most_common(3)))
        for one in shapes
        if one.alarmed
    ]
    if rows:
        terminal.table("", ("shape", "accounts", "alarmed", "as"), rows)
    return within


def _show(found: Sequence[judge.Judged], most: int) -> None:
    for each in [each for each in found if each.flagged][:most]:
        mark = "refused" if each.refused else "flagged"
        print(f"--- {mark} | {each.text.kind} | {each.text.group} | {', '.join(each.rules)}\n{each.text.text[:600]}")


def main() -> int:
    """Measure and print; with ``--strict``, exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.honest", description=__doc__)
    parser.add_argument("--packages", type=Path, action="append", default=[], help="read this folder too")
    parser.add_argument("--only", action="store_true", help="read the folders of --packages alone")
    parser.add_argument("--data", type=Path, help="the pack, for its public benign rows")
    parser.add_argument("--half", choices=("open", "closed"), default="closed", help="of packages (default: closed)")
    parser.add_argument("--per-type", type=int, default=pastes.PER_TYPE, help="read so many files of each type")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N flagged texts of the open half")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a bar is missed")
    parser.add_argument("--accounts", action="store_true", help="measure ordinary applications as accounts alone")
    asked = parser.parse_args()
    if asked.show and asked.half != "open":
        parser.error("expected --half open beside --show: what counts is not looked at; got --half closed")
    folders = [*asked.packages, *([] if asked.only else machine.roots())]
    found = machine.files(folders, asked.half)
    if asked.accounts:
        return int(not _accounts(asked.half, found) and asked.strict)
    texts = [*pastes.pastes(found, asked.per_type), *pastes.derived(found, asked.per_type), *sentences.own()]
    texts += frameworks.prompts(folders)
    if asked.data:
        texts += _public(asked.data)
    answers = judge.judged(texts)
    answers += judge.technical(pastes.answers(found))
    lines = judge.tallies(answers)
    types = sum(1 for each in found.values() if each)
    title = f"ordinary use: {asked.half} half, {types} types of file, packages {machine.digest(found)}"
    print(title, flush=True)
    terminal.table("", HEAD, [_cells(line) for line in lines])
    _show(answers, asked.show)
    within = _accounts(asked.half, found)
    return int(asked.strict and not (within and all(line.met for line in lines)))


if __name__ == "__main__":
    sys.exit(main())
