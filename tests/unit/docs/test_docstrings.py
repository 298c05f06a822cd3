"""A docstring begins with a sentence: subject, verb, object."""

from __future__ import annotations

import ast
import re

from tests.unit.docs.sources import definitions, modules

AT_MOST = 28
"""Docstrings that begin with a clause. The number only ever falls."""
CLAUSE = re.compile(r"(What|Whether|Where|How|Which|Who|Whoever)\b")


def test_fewer_docstrings_begin_with_a_clause() -> None:
    nodes = [*definitions(), *modules()]
    begun = [(path, node) for path, node in nodes if CLAUSE.match(ast.get_docstring(node) or "")]
    where = [f"{path}:{getattr(node, 'lineno', 1)}" for path, node in begun]
    assert len(where) <= AT_MOST, "\n".join(where)
