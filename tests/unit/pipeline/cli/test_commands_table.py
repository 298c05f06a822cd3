"""A command imports its own module alone, and is found wherever it stands among the options."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

import pytest

from pipeline import wiring
from pipeline.cli import COMMANDS, _needed, build_parser


def test_the_table_of_commands_is_what_the_modules_add() -> None:
    for module, names in COMMANDS.items():
        commands = argparse.ArgumentParser().add_subparsers()
        importlib.import_module(f"pipeline.cli.{module}").add(commands)
        assert tuple(commands.choices) == names


@pytest.mark.parametrize(
    ("argv", "modules"),
    [
        (["run", "admit", "--assign", "0"], ["stage"]),
        (["--home", "run", "tenant", "list"], ["operate"]),
        (["--config=x", "audit", "verify", "--json"], ["audit"]),
        (["--help"], list(COMMANDS)),
        ([], list(COMMANDS)),
        (["nonsense"], list(COMMANDS)),
        (["run", "--config"], list(COMMANDS)),
    ],
)
def test_a_command_needs_its_own_module(argv: list[str], modules: list[str]) -> None:
    assert list(_needed(argv)) == modules


def test_a_stage_starts_without_what_other_commands_import() -> None:
    look = "import sys; from pipeline.cli import build_parser; build_parser(['stage']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    others = {"pipeline.cli.detect", "pipeline.cli.watermark", "pipeline.wiring.operate", "inference.registry"}
    assert not (others | {"torch", "numpy", "clickhouse_connect", "rich"}) & set(loaded)


def test_every_name_of_the_wiring_is_found() -> None:
    assert [name for name in wiring.__all__ if not hasattr(wiring, name)] == []
    with pytest.raises(AttributeError, match="nothing"):
        wiring.nothing  # noqa: B018


def test_the_whole_help_names_every_command() -> None:
    told = build_parser().format_help()
    assert all(name in told for names in COMMANDS.values() for name in names)
