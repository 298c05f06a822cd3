"""The share of labelled prompts on which the detectors fire: `python -m detectors.evaluate FOLDER`.

FOLDER holds `train.jsonl` or `validation.jsonl` (fields text, label, source, lang, role); personal data and accounts
have an `evaluate` of their own beside their detectors. A row counts as blocked where a finding reaches BLOCK, the
severity that the default policy refuses. The rules are literal, so nothing here is fitted; a set kept for acceptance
stays one only as long as no rule is written after looking at its rows.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from detectors.base import HIGH, Part, Role
from detectors.catalogue import screen
from detectors.jsonl import read_rows
from detectors.prompts import evaluate as evaluate_prompts
from detectors.prompts.training.rows import read

BLOCK = HIGH
BATCH = 512
FILES = ("train.jsonl", "validation.jsonl")
Key = tuple[str, ...]
"""Label, language and source."""


class _Prompt(msgspec.Struct):
    text: str
    label: str
    source: str
    lang: str
    role: Role = "user"


class FindingTally(NamedTuple):
    """Of `rows`, so many bore a finding at all and so many one that reaches BLOCK."""

    rows: int = 0
    flagged: int = 0
    blocked: int = 0

    def __add__(self, other: object) -> FindingTally:
        assert isinstance(other, FindingTally)
        return FindingTally(self.rows + other.rows, self.flagged + other.flagged, self.blocked + other.blocked)


def prompts(file: Path) -> dict[Key, FindingTally]:
    """Per label, language and source. System rows are the operator's own words, which detectors do not screen."""
    tallies: dict[Key, FindingTally] = defaultdict(FindingTally)
    rows = (row for row in read_rows(file, _Prompt, "a labelled prompt") if row.role != "system")
    while batch := list(islice(rows, BATCH)):
        for row, findings in zip(batch, screen([(Part(row.role, row.text),) for row in batch]), strict=True):
            worst = max((f.severity for f in findings if not f.rule.startswith("pii.")), default=0)
            key = row.label, row.lang if row.lang in ("en", "zh") else "other", row.source
            tallies[key] += FindingTally(1, int(worst > 0), int(worst >= BLOCK))
    return dict(tallies)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:6.1f} %" if whole else "       -"


def _print_tallies(title: str, tallies: Mapping[Key, FindingTally]) -> None:
    print(f"\n{title}\n{'rows':>8} {'flagged':>8} {'blocked':>8}")
    sums: dict[Key, FindingTally] = defaultdict(FindingTally)
    for key, tally in sorted(tallies.items()):
        _print_tally(tally, " | ".join(key))
        sums[key[:-1]] += tally
    for key, tally in sorted(sums.items()):
        _print_tally(tally, f"all: {' | '.join(key)}")


def _print_tally(tally: FindingTally, name: str) -> None:
    print(f"{tally.rows:8} {_share(tally.flagged, tally.rows)} {_share(tally.blocked, tally.rows)}  {name}")


def main(arguments: Sequence[str]) -> int:
    """Print a table for every file the folder has; 2 where it has none."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m detectors.evaluate FOLDER (with train.jsonl or validation.jsonl)", file=sys.stderr)
        return 2
    files = [file for name in FILES if (file := Path(arguments[0]) / name).is_file()]
    for file in files:
        if file.name == "validation.jsonl":
            print(f"{file.name}: the bars of prompt detection")
            print("\n".join(evaluate_prompts.report(read(file))))
        _print_tallies(f"{file.name}: prompts by label, language, source", prompts(file))
    if not files:
        print(f"expected {' or '.join(FILES)} in the folder, got neither; name another folder", file=sys.stderr)
    return 0 if files else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
