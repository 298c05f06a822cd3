"""The compose file's commands are commands of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.cli import build_parser

TEXT = (Path(__file__).parents[4] / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
TOLD = re.findall(r"^#   docker compose run --rm topics (.*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_every_command_parses(name: str) -> None:
    build_parser().parse_args(SERVICES[name]["command"])


@pytest.mark.parametrize("command", TOLD)
def test_what_the_file_tells_to_type_parses_and_names_files_that_exist(command: str) -> None:
    given = build_parser().parse_args(command.split())
    assert not hasattr(given, "file") or (Path(__file__).parents[4] / given.file).exists()


def test_the_file_tells_how_to_begin() -> None:
    assert [command.split()[0] for command in TOLD] == ["policy", "tenant", "key", "key"]


@pytest.mark.parametrize("command", [["run", "nothing"], ["topics", "nothing"], ["nothing"]])
def test_other_commands_do_not_parse(command: list[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(command)
