"""Tables say all that is in them, and no cell steers the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import re
from datetime import UTC, datetime

import pytest

from pipeline import terminal

LONG = "sk-sluice-k0123456789ab." + "Ab1_" * 10 + "xyz"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")


def drawn(title: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    with contextlib.redirect_stdout(Screen()) as screen:
        terminal.table(title, columns, rows)
    return screen.getvalue()


def test_a_table_without_rows_says_so_to_a_person() -> None:
    assert drawn("", ("difference",), []) == "difference: none\n"
    assert drawn("in force now", ("changed",), []) == "in force now: none\n"


def test_what_is_shown_once_stands_on_a_line_of_its_own() -> None:
    assert drawn("shown once; keep it now", ("key",), [(LONG,)]) == f"shown once; keep it now:\n{LONG}\n"


def test_a_narrow_screen_folds_and_cuts_nothing() -> None:
    found = drawn("", ("tenant", "secret"), [("acme", LONG), ("x", "short")])
    assert "…" not in found
    parts = [line.split("│")[2].strip() for line in found.splitlines() if line.startswith("│")]
    assert "".join(parts).startswith(LONG)


@pytest.mark.parametrize("cell", ["[/x] [bold]b[/bold]", "a\x1b[31mred", "bell\a", "left\u202eright", "c1\x9b2J"])
def test_no_cell_steers_the_screen(cell: str) -> None:
    found = drawn("", ("text", "n"), [(cell, 1)])
    assert all(c.isprintable() or c == "\n" for c in found)
    assert re.split(r"[\x00-\x1f\x80-\x9f\u202e]", cell)[0] in found


def test_in_a_pipe_a_row_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table("title", ("a", "b"), [("one\ntwo\tthree", "\x1b[2J"), (1, None)])
    assert capsys.readouterr().out == "a\tb\none two\\tthree\t\\x1b[2J\n1\tNone\n"
    terminal.table("title", ("a",), [("one\ntwo",)], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": "one\ntwo"}]


def test_times_are_read_by_people_and_stay_numbers_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    row = (
        terminal.UnixMs(1_796_121_068_730),
        terminal.UnixSeconds(1_796_121_068),
        datetime(2026, 12, 1, 9, tzinfo=UTC),
    )
    terminal.table("", ("made", "issued", "seen"), [row])
    assert capsys.readouterr().out.splitlines()[1] == "\t".join(
        ["2026-12-01 10:31:08Z", "2026-12-01 10:31:08Z", "2026-12-01 09:00:00Z"]
    )
    assert "2026-12-01 10:31:08Z" in drawn("", ("made", "n"), [(row[0], 1)]).replace("│", "")
    terminal.table("", ("time",), [(terminal.StoredTime("2026-12-01 10:31:08.730"),), (terminal.StoredTime(""),)])
    assert capsys.readouterr().out.splitlines() == ["time", "2026-12-01 10:31:08Z", ""]
    terminal.fields("", {"made": row[0]})
    assert capsys.readouterr().out == "made  2026-12-01 10:31:08Z\n"
    terminal.table("", ("made", "issued"), [row[:2]], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"made": 1_796_121_068_730, "issued": 1_796_121_068}]


def test_rows_too_wide_for_the_screen_are_drawn_as_blocks() -> None:
    columns = ("key", "principal", "tenant", "expires")
    rows: list[tuple[object, ...]] = [(LONG, LONG, "acme", "never"), ("k2", "", "acme", terminal.UnixMs(0))]
    found = drawn("keys", columns, rows).splitlines()
    assert found[:2] == ["keys 1 of 2", f"  key        {LONG}"]
    assert found[-1] == "  expires  1970-01-01 00:00:00Z"
    assert len(found) == 9, "an empty cell has no line"


def test_a_colour_is_drawn_and_never_piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cell = terminal.Colored(3, "3 high", "red")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31m3 high" in drawn("", ("severity", "n"), [(cell, 1)])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in drawn("", ("severity", "n"), [(cell, 1)])
    terminal.table("", ("severity",), [(cell,)])
    assert capsys.readouterr().out == "severity\n3 high\n"
    terminal.table("", ("severity",), [(cell,)], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"severity": 3}]


def test_a_status_line_is_for_a_person_alone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.StatusLine(enabled=False).show("half of it")
    assert capsys.readouterr().err == ""
    line = terminal.StatusLine(enabled=True)
    line.show("half of it")
    line.clear()
    assert capsys.readouterr().err == "\r\x1b[Khalf of it\r\x1b[K"
