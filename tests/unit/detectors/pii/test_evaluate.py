"""The bars on labelled rows: their counting always, the developer pack where DATA names the folder that holds it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from detectors.personal import CONTEXTUAL, STRUCTURED
from detectors.pii import evaluate
from detectors.pii.evaluate import ItemTally, MarkedText, clean, cost, leaks, main, tallies

PACK = Path(os.environ.get("DATA", "")) / "detection" / "pii" / "validation.jsonl"
CARD = "4111 1111 1111 1111"


def row(text: str, *spans: tuple[int, int, str]) -> MarkedText:
    fields = [{"start": start, "end": end, "type": kind} for start, end, kind in spans]
    return msgspec.convert({"text": text, "spans": fields}, MarkedText)


def test_structured_items_count_strictly_and_contextual_ones_where_they_overlap() -> None:
    rows = [
        row(CARD, (0, 19, "CREDIT_CARD")),
        row(CARD, (0, 18, "CREDIT_CARD")),
        row("Dear Dr. Watson,", (5, 15, "PERSON")),
        row("nobody", (0, 6, "PERSON")),
    ]
    found = tallies(rows)
    assert found["CREDIT_CARD"] == ItemTally(1, 1, 1, 1)
    assert found["PERSON"] == ItemTally(1, 1, 1, 0)
    assert (found["PERSON"].precision, found["PERSON"].recall, found["PERSON"].f1) == (1.0, 0.5, 2 / 3)


def test_items_of_each_type_are_counted_alone() -> None:
    rows = [
        row("mail a@b.example", (5, 16, "EMAIL"), (0, 4, "PERSON")),
        row("486-96-1492"),
        row("none", (0, 4, "IBAN")),
    ]
    found = tallies(rows)
    assert found["EMAIL"] == ItemTally(1, 0, 1, 0)
    assert found["US_SSN"] == ItemTally(0, 0, 0, 1)
    assert found["IBAN"] == ItemTally(0, 1, 0, 0)


def test_clean_rows_leaks_and_cost_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("hello"), row("a@b.example"), row(CARD, (0, 19, "CREDIT_CARD"))]
    assert clean(rows) == (1, 2)
    assert leaks(rows) == (0, 20)
    monkeypatch.setattr(evaluate, "redact", lambda text: ("", ()))
    assert leaks(rows) == (20, 20)
    times = iter((1.0, 3.0))
    assert cost([row("x" * 500)], len, lambda: next(times)) == 4_000


def test_a_folder_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = msgspec.json.encode(row(CARD, (0, 19, "CREDIT_CARD")))
    (tmp_path / "train.jsonl").write_bytes(line + b"\n")
    assert main([str(tmp_path)]) == 0
    assert "1.0000   1.0000   1.0000  structured" in capsys.readouterr().out
    (tmp_path / "train.jsonl").write_bytes(b"{}")
    assert main([str(tmp_path)]) == main([]) == 2


@pytest.mark.skipif(not PACK.is_file(), reason="set DATA to the folder that holds detection/pii")
def test_the_pack_is_within_the_bars() -> None:
    rows = msgspec.json.Decoder(MarkedText).decode_lines(PACK.read_bytes())
    found = tallies(rows)
    structured = sum((found[kind] for kind in STRUCTURED), ItemTally())
    assert structured.found > 1_000
    assert min(structured.precision, structured.recall) >= 0.99
    assert sum((found[kind] for kind in CONTEXTUAL), ItemTally()).f1 >= 0.80
    flagged, empty = clean(rows)
    assert flagged <= 0.003 * empty
    assert leaks(rows[::10])[0] == 0
