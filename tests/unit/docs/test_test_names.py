"""Modules of tests are imported by their bare names, so no two may share one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2]


def test_no_two_modules_of_tests_share_a_name() -> None:
    found = Counter(path.name for path in TESTS.rglob("*.py") if path.name not in ("__init__.py", "conftest.py"))
    packaged = {path.name for path in (TESTS / "bench").glob("*.py")}
    assert [name for name, count in found.items() if count > 1 and name not in packaged] == []
