"""What Presidio's patterns find of the types that both know, ours find too."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from detectors.pii import PiiItem, find
from detectors.pii.evaluate import MarkedText

if TYPE_CHECKING:
    from detectors.pii.presidio import Presidio

adapter = pytest.importorskip("detectors.pii.presidio", reason="needs the extra presidio", exc_type=ImportError)
PACK = Path(os.environ.get("DATA", "")) / "detection" / "pii" / "validation.jsonl"
KNOWN = [
    ("CREDIT_CARD", "Card ", "4111 1111 1111 1111"),
    ("CREDIT_CARD", "Card ", "5403-9843-0778-5441"),
    ("EMAIL", "write to ", "jennifer.smith+news@mail.example.org"),
    ("IBAN", "IBAN ", "GB82 WEST 1234 5698 7654 32"),
    ("IP", "from ", "183.227.20.19"),
    ("IP", "from ", "2a02:8109:9ec0::8a2e:370:7334"),
    ("MAC", "device ", "00-1A-2B-3C-4D-5E"),
    ("US_SSN", "her SSN is ", "486-96-1492"),
    ("PHONE", "call ", "+44 20 7946 0958"),
]


@pytest.fixture(scope="module")
def presidio() -> Presidio:
    made: Presidio = adapter.Presidio()
    return made


def overlapped(found: tuple[PiiItem, ...], start: int, end: int) -> bool:
    return any(item.start < end and start < item.end for item in found)


@pytest.mark.parametrize(("kind", "cue", "value"), KNOWN)
def test_both_find_the_same_item(presidio: Presidio, kind: str, cue: str, value: str) -> None:
    theirs = presidio.find(f"{cue}{value} today")
    assert [item[:3] for item in theirs] == [(kind, len(cue), len(cue) + len(value))]
    assert [item[:3] for item in find(f"{cue}{value} today")] == [item[:3] for item in theirs]


def test_matches_do_not_overlap_and_the_surest_stays(presidio: Presidio) -> None:
    found = presidio.find("4111 1111 1111 1111 and a@b.example.org, 4111 1111 1111 1112")
    assert [(item.type, item.score) for item in found][:2] == [("CREDIT_CARD", 100), ("EMAIL", 100)]
    assert all(one.end <= other.start for one, other in pairwise(found))


@pytest.mark.skipif(not PACK.is_file(), reason="set DATA to the folder that holds detection/pii")
def test_whatever_presidio_finds_of_the_marked_items_is_found(presidio: Presidio) -> None:
    seen, missed = 0, []
    for row in msgspec.json.Decoder(MarkedText).decode_lines(PACK.read_bytes()):
        marked = [span for span in row.spans if span.type in adapter.TYPES.values()]
        if not marked:
            continue
        theirs, ours = presidio.find(row.text), find(row.text)
        for span in marked:
            if overlapped(theirs, span.start, span.end):
                seen += 1
                missed += [] if (span.type, span.start, span.end) in [item[:3] for item in ours] else [span.type]
    assert seen > 400
    assert missed == []
