"""The pages of the project and what stands in them: tables, commands, paths."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.unit.docs.sources import PACKAGES, ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_SLUICE = re.compile(r"(?:^|[\s(])(sluice [a-z][^|)\n]*)")


def pages() -> list[str]:
    """Every page, as its path below the root."""
    folders = (*PACKAGES, "tests")
    found = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    return sorted(str(page.relative_to(ROOT)) for page in found)


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", text(page))


def blocks(page: str, language: str) -> list[str]:
    return [code for name, code in _FENCE.findall(text(page)) if name == language]


def spans(page: str) -> list[str]:
    """What stands between backticks in running text and tables."""
    return _SPAN.findall(prose(page))


def commands(page: str) -> Iterator[str]:
    """Yield each ``sluice`` command line of shell blocks, and each that is quoted in the text."""
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            yield from (found.strip() for found in _SLUICE.findall(re.sub(r"(^|\s)#.*", "", line)))
    yield from (span for span in spans(page) if span.startswith("sluice "))


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the one table whose head begins with ``first``, a list of cells each."""
    lines = text(page).splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(f"| {first} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def code(cell: str) -> str:
    """The cell without its backticks."""
    return cell.strip("`")
