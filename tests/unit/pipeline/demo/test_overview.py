"""The demo's summary fits one screen, begins with the verdict, and says what it leaves out."""

from __future__ import annotations

import json

import pytest

from pipeline import terminal
from pipeline.demo.overview import MAX_LINES, overview, print_overview
from tests.unit.pipeline.demo.demo_site import make_summary


def lines(width: int = 80, **more: int) -> list[str]:
    return [line.plain for line in overview(make_summary(**more), width)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("more", [{}, {"failures": 2}, {"failures": 400}, {"rules": 30, "alerts": 40}])
def test_it_fits_a_screen(width: int, more: dict[str, int]) -> None:
    text = lines(width, **more)
    assert len(text) <= MAX_LINES
    assert max(map(len, text)) <= width


def test_the_verdict_comes_first_and_values_have_their_units() -> None:
    text = "\n".join(lines())
    assert text.startswith("✔ The demo ended as it should.\n  ✔ counts    7 of 7 equations")
    for part in ("Newest record 6 s", "Decided 106", "Refused 31 %", "Alerts 3", "3 high", "✔ delivered"):
        assert part in text
    assert "  10:31:08Z  3 high" in text
    assert "rate_limited 24, injection 5" in text
    assert "3 delivered, 0 failed, 0 given up" in text
    assert "0.50 s" in text
    assert "not shown" not in text


def test_every_failure_is_told_or_counted() -> None:
    text = "\n".join(lines(failures=12))
    assert text.startswith("✖ The demo did not end as it should.\n  ✖ counts    7 of 19 equations")
    assert "failed 0 = 1: 0 and 1" in text
    assert text.count("and 9 more: --full") == 3
    assert "not shown: " in text


def test_what_is_cut_says_so() -> None:
    text = lines(rules=30, alerts=40)
    assert any(line.endswith(" more") and "injection.score 5" not in line for line in text)
    assert any("and 38 more: --full" in line for line in text)
    dog = next(line for line in text if "What is a dog?" in line)
    assert (len(dog), dog[-1]) == (80, "…")


def test_no_answer_steers_the_screen() -> None:
    assert all(line.isprintable() for line in lines())


def test_a_pipe_gets_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_overview(make_summary())
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.startswith("✔ The demo")


def test_the_whole_summary_is_there_in_tables_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    summary = make_summary(failures=25)
    summary.print_tables()
    text = capsys.readouterr().out
    assert "failed 24 = 25\t24\t25\tNO" in text
    assert "and 5 more faults" in text
    assert "got fault number 24" in text
    assert "31 %" in text
    terminal.document(summary.document())
    document = json.loads(capsys.readouterr().out)
    assert document["dashboard"]["Refused"] == [{"refused": 0.3113207547169811}]
    assert document["ok"] is False
