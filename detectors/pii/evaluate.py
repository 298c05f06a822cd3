"""The bars for personal data on labelled rows: `python -m detectors.pii.evaluate FOLDER`.

FOLDER holds `pii/train.jsonl` or `pii/validation.jsonl`, or the files themselves (fields text, template, spans of
start, end, type). Structured items count where type and offsets agree; contextual ones where one of their type is
overlapped. A row without spans counts as flagged where anything at all is found. Split: every row with a structured
item goes through the stream cut once at each place of each item, and must come out as the whole text does.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from detectors.personal import CONTEXTUAL, STRUCTURED
from detectors.pii.actions import redact
from detectors.pii.contextual import find
from detectors.pii.stream import StreamRedactor

FILES = ("train.jsonl", "validation.jsonl")
_WARM_UP = 200


class _Marked(msgspec.Struct, frozen=True):
    start: int
    end: int
    type: str


class MarkedText(msgspec.Struct, frozen=True):
    """A labelled text."""

    text: str
    spans: tuple[_Marked, ...]


class ItemTally(NamedTuple):
    """Items of one type: marked ones that were found, missed ones; found ones that are marked, wrong ones."""

    found: int = 0
    missed: int = 0
    right: int = 0
    wrong: int = 0

    def __add__(self, other: object) -> ItemTally:
        assert isinstance(other, ItemTally)
        return ItemTally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def tallies(rows: Sequence[MarkedText]) -> dict[str, ItemTally]:
    """Per type of STRUCTURED and CONTEXTUAL, by the rule of each."""
    out = {kind: ItemTally() for kind in sorted(STRUCTURED | CONTEXTUAL)}
    for row in rows:
        items = find(row.text)
        for kind in {span.type for span in row.spans} | {item.type for item in items}:
            marked = [(span.start, span.end) for span in row.spans if span.type == kind]
            found = [(item.start, item.end) for item in items if item.type == kind]
            same = _equal if kind in STRUCTURED else _overlap
            hits = sum(any(same(span, other) for other in found) for span in marked)
            right = sum(any(same(span, other) for other in marked) for span in found)
            if kind in out:
                out[kind] += ItemTally(hits, len(marked) - hits, right, len(found) - right)
    return out


def clean(rows: Sequence[MarkedText]) -> tuple[int, int]:
    """Rows without spans in which something was found, and all rows without spans."""
    empty = [row for row in rows if not row.spans]
    return sum(bool(find(row.text)) for row in empty), len(empty)


def leaks(rows: Sequence[MarkedText]) -> tuple[int, int]:
    """Cuts after which the stream shows something else than the whole text does, and all cuts."""
    wrong = cuts = 0
    for row in rows:
        redacted, _ = redact(row.text)
        places = {cut for span in row.spans if span.type in STRUCTURED for cut in range(span.start, span.end + 1)}
        for place in places:
            stream = StreamRedactor()
            shown = stream.push(row.text[:place]) + stream.push(row.text[place:]) + stream.flush()
            wrong += shown != redacted
        cuts += len(places)
    return wrong, cuts


def processor_time() -> float:
    """Seconds of processor time that this process has had."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cost(
    rows: Sequence[MarkedText], job: Callable[[str], object], clock: Callable[[], float] = processor_time
) -> float:
    """Milliseconds of `job` per 1,000 characters by `clock`, which counts seconds; after a warm-up."""
    for row in rows[:_WARM_UP]:
        job(row.text)
    start = clock()
    for row in rows:
        job(row.text)
    return (clock() - start) * 1e6 / max(1, sum(len(row.text) for row in rows))


def _equal(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one == other


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _files(folder: Path) -> Iterator[Path]:
    for home in (folder / "pii", folder):
        yield from (home / name for name in FILES if (home / name).is_file())
        if any((home / name).is_file() for name in FILES):
            return


def _print(name: str, rows: Sequence[MarkedText]) -> None:
    found = tallies(rows)
    print(f"\n{name}: {len(rows)} rows\n{'items':>8} {'precision':>9} {'recall':>8} {'F1':>8}")
    for kind, tally in found.items():
        if any(tally):
            _print_tally(kind, tally)
    structured = sum((found[kind] for kind in STRUCTURED), ItemTally())
    _print_tally("structured, strict (bar: both >= 0.990)", structured)
    _print_tally("contextual, relaxed (bar: F1 >= 0.850)", sum((found[kind] for kind in CONTEXTUAL), ItemTally()))
    flagged, empty = clean(rows)
    print(f"clean rows flagged: {flagged} of {empty} (bar: <= 0.3 %)")
    wrong, cuts = leaks(rows)
    print(f"streams that show another text: {wrong} of {cuts} cuts (bar: 0)")
    structured_ms, ms = cost(rows, redact), cost(rows, find)
    print(f"ms of processor time per 1,000 characters: {structured_ms:.3f} structured, {ms:.3f} with context")


def _print_tally(name: str, tally: ItemTally) -> None:
    items = tally.found + tally.missed
    print(f"{items:8} {tally.precision:9.4f} {tally.recall:8.4f} {tally.f1:8.4f}  {name}")


def main(arguments: Sequence[str]) -> int:
    """Print a table for each file; 2 where there is none or it is malformed."""
    files = list(_files(Path(arguments[0]))) if len(arguments) == 1 else []
    if not files:
        print(f"usage: python -m detectors.pii.evaluate FOLDER (with pii/{' or pii/'.join(FILES)})", file=sys.stderr)
        return 2
    decoder = msgspec.json.Decoder(MarkedText)
    for file in files:
        try:
            rows = decoder.decode_lines(file.read_bytes())
        except msgspec.DecodeError as error:
            print(f"{file}: expected rows of text and spans: {error}", file=sys.stderr)
            return 2
        _print(file.name, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
