"""The measurement of ordinary use: halves that never mix, stock prompts that are found, and shares that are right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.honest import __main__, frameworks, judge, machine, pastes, sentences


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for number in range(24):
        folder = tmp_path / f"package{number}"
        folder.mkdir()
        for kind in ("py", "js", "md"):
            (folder / f"one.{kind}").write_text("import os\n\n\ndef run(value):\n    return os.fspath(value)\n" * 20)
        (folder / "two.bin").write_bytes(bytes(1000))
        (folder / "short.py").write_text("x = 1\n")
    return tmp_path


def test_each_package_is_in_one_half_and_a_digest_names_the_list(packages: Path) -> None:
    halves = [machine.files([packages], half) for half in ("open", "closed")]
    names = [{file.package for each in half.values() for file in each} for half in halves]
    assert names[0]
    assert names[1]
    assert names[0] & names[1] == set()
    assert names[0] | names[1] == {f"package{number}" for number in range(24)}
    assert machine.digest(halves[0]) != machine.digest(halves[1])
    assert machine.digest(halves[1]) == machine.digest(machine.files([packages], "closed"))


def test_a_file_is_pasted_whole_and_in_three_cuts_in_both_roles(packages: Path) -> None:
    found = machine.files([packages], "closed")
    rows = list(pastes.pastes(found, per_type=1))
    assert {row.group for row in rows} == {"py", "js", "md"}
    assert len(rows) == 3 * 4 * 2
    assert {row.role for row in rows} == {"user", "document"}
    assert all(any(question in row.text for question in pastes.QUESTIONS) for row in rows if row.role == "user")
    assert rows == list(pastes.pastes(found, per_type=1))


def test_stock_prompts_are_read_from_sources_with_their_slots_filled(tmp_path: Path) -> None:
    folder = tmp_path / "langchain"
    folder.mkdir()
    (folder / "qa.py").write_text(
        'prompt_template = """Use the pieces below to answer the question at the end of this text.\n\n{context}"""\n'
        'TITLE = "this is no prompt, although it is a long sentence that somebody wrote here"\n'
        'make(template="Given the notes below, please write " + "a short summary of all that they say. {text}")\n'
    )
    texts = [row.text for row in frameworks.prompts([tmp_path])]
    assert len(texts) == 2
    assert not any("{" in text for text in texts)
    assert texts[1].startswith("Given the notes below, please write a short summary")


def test_shares_are_of_the_kind_and_the_worst_group_is_named() -> None:
    texts = [pastes.OrdinaryText("pasted, whole", group, "user", "") for group in ("py", "py", "js", "js")]
    answers = [judge.Judged(text, at == 3, at > 1, ()) for at, text in enumerate(texts)]
    (line,) = judge.tallies(answers)
    assert (line.texts, line.refused, line.flagged, line.worst, line.met) == (4, 0.25, 0.5, ("js", 0.5), False)


def test_own_texts_are_many_and_differ() -> None:
    texts = [
        row.text for row in sentences.own() if row.kind == "sentences between people" and row.group in ("en", "zh")
    ]
    assert len(texts) == len(set(texts)) >= 150


def test_texts_of_the_closed_half_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["honest", "--show", "5"])
    with pytest.raises(SystemExit):
        __main__.main()
