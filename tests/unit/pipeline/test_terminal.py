"""Tables say all that is in them, and no cell steers the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import re

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
