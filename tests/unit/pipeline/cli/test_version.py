"""``sluice --version`` prints the version of the package that is installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipeline.cli import main

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("argv", [["--version"], ["--version", "ask"], ["--home", "nowhere", "--version"]])
def test_the_version_is_that_of_the_package(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sluice {PROJECT['version']}\n"
