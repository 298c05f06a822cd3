"""Programs of ours import nothing from the folder in which they are started, whatever lies there."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.interpreter import ROOT, module_command, module_environment
from tests.hostile_folder import hostile_folder, imported
from tests.patience import STUCK_S
from tests.unit.docs.sources import modules

SCREEN = """
import asyncio, sys
from detectors.base import Part
from pipeline.admit.screener import Screener

async def main():
    async with Screener() as screener:
        print(len(await screener.screen([(Part("user", "What is a dog?"),)])))

asyncio.run(main())
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a hostile folder; gives the list of what was imported from it."""
    found = hostile_folder(tmp_path / "hostile")
    monkeypatch.chdir(tmp_path / "hostile")
    return found


def run(argv: list[str], environment: dict[str, str]) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=STUCK_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_folder_would_be_noticed(record: Path) -> None:
    subprocess.run([sys.executable, "-c", "import bisect"], timeout=STUCK_S, check=False)
    assert "bisect" in imported(record)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.embedded.store_server"])
def test_a_child_imports_nothing_from_the_current_folder(record: Path, module: str) -> None:
    assert "usage:" in run(module_command(module, "--help"), module_environment())
    assert imported(record) == []


def test_an_empty_entry_of_the_callers_path_changes_nothing(record: Path) -> None:
    assert "usage:" in run(module_command("pipeline", "--help"), {"PYTHONPATH": "", **module_environment()})
    assert imported(record) == []


def test_the_process_that_reads_texts_imports_nothing_from_the_current_folder(record: Path) -> None:
    assert run([sys.executable, "-P", "-c", SCREEN], {"PYTHONPATH": str(ROOT)}) == "1\n"
    assert imported(record) == []


def test_run_as_a_module_the_command_leaves_the_current_folder_alone(tmp_path: Path) -> None:
    """Python itself looks there before the first line of ours runs; nothing is imported from there after it."""
    folder = tmp_path / "hostile"
    record = hostile_folder(folder, ["argparse", "bisect", "detectors", "logging", "msgspec", "pathlib", "random"])
    argv = [sys.executable, "-m", "pipeline", "--help"]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=STUCK_S, check=False)
    assert "usage:" in done.stdout, done.stderr
    assert imported(record) == []


def test_every_child_that_is_python_is_started_this_way() -> None:
    started = {
        str(path)
        for path, tree in modules()
        if any(isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable" for node in ast.walk(tree))
    }
    # the supervisor's launcher imports nothing but the standard library, in isolated mode
    assert started == {"pipeline/interpreter.py", "pipeline/embedded/supervisor.py"}
