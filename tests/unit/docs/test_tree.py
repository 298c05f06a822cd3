"""The tests of units lie where what they test lies."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("pipeline", "detectors", "inference", "dashboards")


def test_unit_tests_mirror_the_packages() -> None:
    units = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(units) for path in units.rglob("*.py")} - {Path("docs")}
    assert folders
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder).is_dir()] == []


def test_no_other_folder_of_code_lies_at_the_top() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("[!.]*/**/*.py")}
    assert found == {*PACKAGES, "tests"}
