"""The front page says what is so: settings, commands, targets, links."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from pipeline import config
from pipeline.cli import build_parser
from pipeline.events.control import Plan
from pipeline.wiring import STAGES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "README.md").read_text("utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [line.split("#")[0].strip() for line in SHELL.splitlines() if line.startswith("sluice ")]
COMMANDS += re.findall(r"`(sluice (?:ask|audit|policy|label|run|topics|config|key|tenant)[^`]*)`", TEXT)


def test_every_setting_is_told_with_its_default_and_meaning() -> None:
    told = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (?:`(.*?)`)? ?\| (.*) \|$", TEXT, re.MULTILINE)
    assert told == [(f"{section}.{field}", default, meaning) for section, field, default, meaning in config.table()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command.replace("STAGE", "admit"))[1:]
    if words != ["audit"]:
        build_parser().parse_args(words)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", SHELL)) | set(re.findall(r"`make ([a-z-]+)", TEXT))
    assert named
    assert named <= targets


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_policy_of_findings_is_told_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([a-z_]+)` \| `(.*?)` \| .* \|$", TEXT, re.MULTILINE))
    fields = {name: field.default for name, field in Plan.model_fields.items() if name in told}
    assert len(told) == len(fields) == 15
    assert told == {name: json.dumps(default).strip('"') for name, default in fields.items()}


def test_every_stage_is_named() -> None:
    for stage in STAGES:
        assert f"`{stage}`" in TEXT


def test_python_in_it_compiles() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
