"""The page of the architecture is true: processes, topics, imports, where things are."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from pipeline.audit.rows import SEALED
from pipeline.topics import BY_NAME, TOPICS
from pipeline.wiring import STAGES
from tests.unit.docs.pages import blocks, code, spans, table, text
from tests.unit.docs.sources import ROOT, modules

PAGE = "ARCHITECTURE.md"
PROCESSES = {code(name): (reads, writes) for name, reads, writes, _, _ in table(PAGE, "process")}
FOR_PEOPLE = {"dead_letters"}
"""Topics that no process reads."""
BY_OPERATORS = {"control"}
"""Topics that no process writes: the ``sluice`` command does."""


def topics(cell: str) -> set[str]:
    return {name for name in re.findall(r"`([a-z_]+)`", cell) if name in BY_NAME}


def used(process: str) -> set[str]:
    """The topics that the code of a process names."""
    trees = [tree for path, tree in modules() if path.parts[:2] == ("pipeline", process)]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {node.value for node in nodes if isinstance(node.value, str) and node.value in BY_NAME}


def test_every_process_has_its_row_and_its_folder() -> None:
    assert list(PROCESSES) == list(STAGES)
    assert all((ROOT / "pipeline" / name / "service.py").exists() for name in STAGES)


@pytest.mark.parametrize("process", STAGES)
def test_a_row_names_every_topic_of_its_process(process: str) -> None:
    reads, writes = PROCESSES[process]
    assert "control" in topics(reads)
    assert used(process) <= topics(reads) | topics(writes)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_row_names_what_the_process_reads_and_writes(name: str) -> None:
    reads, writes = PROCESSES[name]
    assert topics(reads) == {topic.name for topic in TOPICS if name in topic.readers}
    assert topics(writes) == {topic.name for topic in TOPICS if name in topic.writers}


def test_every_topic_is_read_and_written_by_somebody() -> None:
    reads = set().union(*(topics(reads) for reads, _ in PROCESSES.values()))
    writes = set().union(*(topics(writes) for _, writes in PROCESSES.values()))
    assert reads == set(BY_NAME) - FOR_PEOPLE
    assert writes == set(BY_NAME) - BY_OPERATORS


def test_what_is_sealed_is_what_seal_reads() -> None:
    assert topics(PROCESSES["seal"][0]) == {*SEALED, "audit"}


def test_front_page_and_architecture_draw_one_picture() -> None:
    assert blocks(PAGE, "")[0] == blocks("README.md", "")[0]


def test_the_layers_are_those_of_the_import_contract() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    [layers] = [contract["layers"] for contract in tools["importlinter"]["contracts"] if contract["type"] == "layers"]
    assert blocks(PAGE, "")[1].splitlines() == layers


def test_what_is_called_pure_is_in_the_contract() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    pure = {module for contract in tools["importlinter"]["contracts"] for module in contract.get("source_modules", ())}
    said = re.search(r"^- What decides is pure\.(.*?)^- ", text(PAGE), re.DOTALL | re.MULTILINE)
    assert said
    named = re.findall(r"`([a-z_/]+)(?:\.py)?`", said[1])
    assert named
    assert {name.replace("/", ".") for name in named} <= pure


def test_every_table_that_is_named_for_additions_exists() -> None:
    """``CATALOGUE`` in ``detectors/catalogue.py``: the file defines the name."""
    said = re.findall(r"`([A-Z_]+|[A-Z][a-z]+)` (?:in|of) `([\w/]+\.py)`", text(PAGE))
    assert len(said) >= 8
    for name, path in said:
        assert re.search(rf"^(class )?{name}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE), (name, path)


def test_every_folder_of_the_pipeline_is_named_somewhere() -> None:
    folders = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()}
    named = {part for span in spans(PAGE) for part in re.split(r"[/.]", span)}
    layers = set(re.findall(r"pipeline\.(\w+)", text(PAGE)))
    assert folders - named - layers == set()
