"""The product's modules as syntax trees, and every name that they use."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("pipeline", "detectors", "inference", "dashboards")
_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


@cache
def modules() -> tuple[tuple[Path, ast.Module], ...]:
    """Path below the root and syntax tree of each module of the product."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple((path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))) for path in paths)


@cache
def identifiers() -> frozenset[tuple[str, str]]:
    """Module and name of every identifier in the product, keywords included."""
    found = set()
    for path, _ in modules():
        with (ROOT / path).open("rb") as file:
            tokens = tokenize.tokenize(file.readline)
            found |= {(str(path), token.string) for token in tokens if token.type == tokenize.NAME}
    return frozenset(found)


def parts(name: str) -> list[str]:
    """``_LateBell`` and ``late_bell`` as late, bell."""
    return [part.lower() for part in _PART.findall(name)]


def definitions() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every class and function of the product, nested ones too."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node
