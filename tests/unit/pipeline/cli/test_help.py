"""Every command and every option says what it does: a command in the imperative, an option in words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from pipeline.cli import build_parser

VERBS = {
    *("add", "bind", "check", "clear", "compare", "confirm", "count", "create", "drop", "find", "give", "issue"),
    *(
        "judge",
        "keep",
        "label",
        "list",
        "make",
        "manage",
        "measure",
        "open",
        "put",
        "read",
        "refuse",
        "replace",
        "restore",
    ),
    *("revoke", "run", "score"),
    *("send", "serve", "show", "sign", "start", "trace", "verify", "write"),
}
"""Verbs that a help text may begin with."""
Named = tuple[str, str, argparse.ArgumentParser]


def walk(parser: argparse.ArgumentParser, name: str = "sluice", summary: str = "") -> Iterator[Named]:
    """Name, summary in its parent's list, and parser of each command."""
    yield name, summary, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for verb, child in action.choices.items():
                yield from walk(child, f"{name} {verb}", summaries.get(verb, ""))


EVERY = list(walk(build_parser()))
COMMANDS = EVERY[1:]


@pytest.mark.parametrize(("name", "summary", "parser"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_a_command_is_told_in_the_imperative(name: str, summary: str, parser: argparse.ArgumentParser) -> None:
    assert summary.split(" ")[0].strip(",") in VERBS
    assert summary[-1] != "."
    first = (parser.description or "").split(" ")[0].strip(",")
    assert first.lower() in VERBS
    assert first[0].isupper()


@pytest.mark.parametrize(
    ("name", "parser"), [(name, parser) for name, _, parser in EVERY], ids=[n for n, _, _ in EVERY]
)
def test_every_argument_is_told(name: str, parser: argparse.ArgumentParser) -> None:
    told = {
        action.dest: action.help for action in parser._actions if not isinstance(action, argparse._SubParsersAction)
    }
    assert [dest for dest, text in told.items() if not text] == []
    assert [text for text in told.values() if text and text.endswith(".")] == []


@pytest.mark.parametrize(
    ("name", "parser"), [(name, parser) for name, _, parser in EVERY], ids=[n for n, _, _ in EVERY]
)
def test_the_help_is_drawn(name: str, parser: argparse.ArgumentParser) -> None:
    assert parser.format_help().startswith(f"usage: {name} ")


def test_exit_codes_are_documented_once() -> None:
    texts = [f"{parser.description}{parser.epilog}" for _, _, parser in EVERY]
    assert [text.lower().count("exit codes:") for text in texts if "exit codes:" in text.lower()] == [1]
    top = EVERY[0][2].format_help()
    assert all(f"{code} " in top for code in (0, 1, 2, 3, 4, 130))
