"""Pages say what is so: commands parse, targets and modules exist, links and paths lead somewhere."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex

import pytest

from pipeline.cli import build_parser
from pipeline.wiring import STAGES
from tests.bench.__main__ import FIGURES
from tests.unit.docs.pages import blocks, commands, pages, prose, spans, text
from tests.unit.docs.sources import PACKAGES, ROOT

MOST_LINES = 150
TOPS = (*PACKAGES, "tests", ".ci", ".github")
_BRACES = re.compile(r"(.*)\{([^}]*)\}(.*)")
_PLACEHOLDERS = {"STAGE": "admit", "N": "1"}


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def names_a_group(words: list[str]) -> bool:
    """True for ``audit``, ``model roll`` and the like: a command that is named, not given."""
    parser = build_parser()
    for word in words:
        known = subcommands(parser)
        if word not in known:
            return False
        parser = known[word]
    return True


def parses(words: list[str]) -> bool:
    try:
        build_parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0
    return True


def expanded(path: str) -> list[str]:
    braces = _BRACES.fullmatch(path)
    return [f"{braces[1]}{part}{braces[3]}" for part in braces[2].split(",")] if braces else [path]


def heading_anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_front_page_is_short() -> None:
    assert len(text("README.md").splitlines()) <= MOST_LINES


@pytest.mark.parametrize(("page", "command"), [(page, command) for page in pages() for command in commands(page)])
def test_every_command_parses(page: str, command: str) -> None:
    words = [_PLACEHOLDERS.get(word, word) for word in shlex.split(re.sub(r" [<>] .*", "", command))[1:]]
    assert names_a_group(words) or parses(words)


@pytest.mark.parametrize("page", pages())
def test_every_make_target_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shell = "\n".join(blocks(page, "sh"))
    named = set(re.findall(r"^make ([a-z-]+)", shell, re.MULTILINE)) | set(re.findall(r"`make\s([a-z-]+)", text(page)))
    assert named <= targets
    assert set(re.findall(r"\bFIGURE=([a-z_]+)", text(page))) <= set(FIGURES)


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (ROOT / page).parent / file if file else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in heading_anchors(str(there.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", pages())
def test_every_path_exists(page: str) -> None:
    """A quoted path that begins with a folder of the tree, from the root or from where the page lies."""
    for span in spans(page):
        if re.fullmatch(r"[\w.*{},/-]+", span) and span.split("/")[0] in TOPS:
            for path in expanded(span):
                assert list(ROOT.glob(path)) or list((ROOT / page).parent.glob(path)), path


@pytest.mark.parametrize("page", pages())
def test_every_file_of_code_that_is_named_exists(page: str) -> None:
    base = ROOT / page.split("/")[0] if "/" in page else ROOT
    for span in spans(page):
        if re.fullmatch(r"[\w*/]+\.(py|sql|toml)", span) and span.split("/")[0] not in TOPS:
            assert list(base.glob(f"**/{span}")), span


@pytest.mark.parametrize("page", pages())
def test_every_module_that_is_run_exists(page: str) -> None:
    for module in re.findall(r"python -m ([a-z_.]+\.[a-z_.]*[a-z_])", text(page)):
        assert importlib.util.find_spec(module), module


def test_python_compiles() -> None:
    told = [(page, block) for page in pages() for block in blocks(page, "python")]
    assert {"README.md", "pipeline/producer/README.md"} <= {page for page, _ in told}
    for page, block in told:
        compile(block, page, "exec")


def test_the_demo_shows_what_the_front_page_says() -> None:
    """The words of the excerpt are those of the summary; its numbers are of one run."""
    [shown] = blocks("README.md", "text")
    summary = (ROOT / "pipeline" / "demo" / "overview.py").read_text("utf-8")
    for words in (
        "The demo ended as it should.",
        "equations between Kafka's log and ClickHouse hold",
        "signed batches",
    ):
        assert words in shown
        assert words in summary


def test_every_stage_is_named_where_it_is_started() -> None:
    assert set(STAGES) <= set(
        re.findall(r"\w+", prose("pipeline/README.md") + "".join(blocks("pipeline/README.md", "sh")))
    )


def test_every_page_can_be_found_from_the_front_page() -> None:
    """A page is linked from README, or from a page that is."""
    reached, waiting = set[str](), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#]+\.md)", text(page)):
            there = ((ROOT / page).parent / target).resolve()
            if there.is_relative_to(ROOT) and str(there.relative_to(ROOT)) not in reached:
                waiting.append(str(there.relative_to(ROOT)))
    assert set(pages()) - reached == set()
