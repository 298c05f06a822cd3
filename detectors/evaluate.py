"""How often the detectors fire on labelled rows: `python -m detectors.evaluate FOLDER`.

FOLDER holds `train.jsonl` or `validation.jsonl` (fields text, label, source, lang, role) and may hold `pii/` of the
same kind; accounts are measured by `detectors.accounts.evaluate`. A row counts as caught where a finding reaches BLOCK,
the severity that the default policy refuses. The rules are literal, so nothing here is fitted; a set kept for
acceptance stays one only as long as no rule is written after looking at its rows.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from detectors.base import HIGH, Part, Role
from detectors.catalogue import screen
from detectors.pii import redact
from detectors.prompts import evaluate as evaluate_prompts

BLOCK = HIGH
BATCH = 512
FILES = ("train.jsonl", "validation.jsonl")
# fmt: off
STRUCTURED = frozenset((
    "EMAIL", "CN_MOBILE", "CN_LANDLINE", "CN_ID", "US_SSN", "IP", "MAC", "PHONE", "IBAN", "CN_BANK_CARD",
    "CREDIT_CARD", "CN_PLATE", "CN_USCC", "SECRET", "UK_NINO", "CN_PASSPORT", "US_PASSPORT", "HK_ID", "TW_ID",
    "CN_HKMO_PERMIT", "QQ",
))
# fmt: on
Row = TypeVar("Row")


class _Prompt(msgspec.Struct):
    text: str
    label: str
    source: str
    lang: str
    role: Role = "user"


class _PackSpan(msgspec.Struct):
    start: int
    end: int
    type: str


class _Personal(msgspec.Struct):
    text: str
    spans: list[_PackSpan]


class FindingTally(NamedTuple):
    """Of `rows`, so many bore a finding at all and so many one that reaches BLOCK."""

    rows: int
    flagged: int
    blocked: int


def prompts(file: Path) -> dict[tuple[str, ...], FindingTally]:
    """Per label, language and source. System rows are the operator's own words, which detectors do not screen."""
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    rows = (row for row in _rows(file, _Prompt) if row.role != "system")
    while batch := list(islice(rows, BATCH)):
        for row, found in zip(batch, screen([(Part(row.role, row.text),) for row in batch]), strict=True):
            worst = max((f.severity for f in found if not f.rule.startswith("pii.")), default=0)
            count = counts[row.label, row.lang if row.lang in ("en", "zh") else "other", row.source]
            for place, holds in enumerate((True, worst > 0, worst >= BLOCK)):
                count[place] += holds
    return {key: FindingTally(*count) for key, count in counts.items()}


def personal(file: Path) -> dict[str, tuple[int, int, int]]:
    """Per structured type: items found with exact type and offsets, items missed, items that are none."""
    hits, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for row in _rows(file, _Personal):
        found = {(item.type, item.start, item.end) for item in redact(row.text)[1]}
        marked = {(span.type, span.start, span.end) for span in row.spans if span.type in STRUCTURED}
        hits.update(kind for kind, _, _ in found & marked)
        missed.update(kind for kind, _, _ in marked - found)
        wrong.update(kind for kind, _, _ in found - marked)
    return {kind: (hits[kind], missed[kind], wrong[kind]) for kind in sorted(STRUCTURED)}


def _rows(file: Path, kind: type[Row]) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(kind)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise SystemExit(f"{file}:{number}: expected a row of {kind.__name__[1:]}: {error}") from error


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:6.1f} %" if whole else "       -"


def _print_tallies(title: str, tallies: Mapping[tuple[str, ...], FindingTally]) -> None:
    print(f"\n{title}\n{'rows':>8} {'flagged':>8} {'blocked':>8}")
    sums: dict[tuple[str, ...], FindingTally] = {}
    for key, tally in sorted(tallies.items()):
        _print_tally(tally, " | ".join(key))
        known = sums.get(key[:-1], FindingTally(0, 0, 0))
        sums[key[:-1]] = FindingTally(*(a + b for a, b in zip(known, tally, strict=True)))
    for key, tally in sorted(sums.items()):
        _print_tally(tally, f"all: {' | '.join(key)}")


def _print_tally(tally: FindingTally, name: str) -> None:
    print(f"{tally.rows:8} {_share(tally.flagged, tally.rows)} {_share(tally.blocked, tally.rows)}  {name}")


def _print_personal(title: str, counts: dict[str, tuple[int, int, int]]) -> None:
    print(f"\n{title}\n{'items':>8} {'recall':>8} {'precision':>8}")
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    for kind, (hits, missed, wrong) in [*counts.items(), ("all", (total[0], total[1], total[2]))]:
        print(f"{hits + missed:8} {_share(hits, hits + missed)} {_share(hits, hits + wrong)}  {kind}")


def main(arguments: Sequence[str]) -> int:
    """Print a table for every file the folder has; 2 where it has none."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m detectors.evaluate FOLDER (with train.jsonl or validation.jsonl)", file=sys.stderr)
        return 2
    folder, read = Path(arguments[0]), 0
    for name in FILES:
        if (file := folder / name).is_file():
            if name == "validation.jsonl":
                print(f"{name}: the bars of prompt detection")
                print("\n".join(evaluate_prompts.report(evaluate_prompts.rows_of(file))))
            _print_tallies(f"{name}: prompts by label, language, source", prompts(file))
            read += 1
        if (file := folder / "pii" / name).is_file():
            _print_personal(f"pii/{name}: structured items by type, strict offsets", personal(file))
            read += 1
    if not read:
        print(f"expected {' or '.join(FILES)} in the folder, found neither", file=sys.stderr)
    return 0 if read else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
