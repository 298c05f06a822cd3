"""A wheel holds what the code opens: every file of the packages, as setuptools itself lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

setuptools = pytest.importorskip("setuptools", reason="setuptools builds the wheel")
ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pipeline", "detectors", "inference", "dashboards")
LEFT_OUT = {".py", ".pyc"}


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command of setuptools that gathers a wheel's files from this tree; nothing is built."""
    monkeypatch.chdir(ROOT)
    built = setuptools.Distribution({"script_name": "setup.py"})
    built.parse_config_files(ignore_option_errors=False)
    # what a manifest adds would need files written into the tree
    built.include_package_data = False
    command = built.get_command_obj("build_py")
    command.ensure_finalized()
    return command


def below(suffix: str) -> set[Path]:
    return {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob(f"*{suffix}")}


def test_every_file_that_is_not_a_module_is_in_the_wheel(builder: Any) -> None:
    there = {path for path in below("") if (ROOT / path).is_file() and path.suffix not in LEFT_OUT}
    assert Path("detectors/prompts/weights/prompts.npz") in there
    assert there - {Path(folder) / name for _, folder, _, names in builder.data_files for name in names} == set()


def test_every_module_is_in_the_wheel(builder: Any) -> None:
    listed = [builder.find_package_modules(package, package.replace(".", "/")) for package in builder.packages]
    assert below(".py") - {Path(file) for modules in listed for _, _, file in modules} == set()
