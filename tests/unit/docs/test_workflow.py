"""The workflow runs what a clean checkout must pass, with actions pinned to a commit."""

from __future__ import annotations

import os
import re

import yaml

from tests.unit.docs.sources import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_runs_the_gate() -> None:
    runs = [step["run"] for step in STEPS if "run" in step]
    assert runs == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_actions_are_pinned() -> None:
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)


def test_it_may_read_and_nothing_else() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_its_python_is_the_oldest_that_is_supported() -> None:
    [version] = [step["with"]["python-version"] for step in STEPS if "python-version" in step.get("with", {})]
    assert f'requires-python = ">={version}"' in (ROOT / "pyproject.toml").read_text("utf-8")
