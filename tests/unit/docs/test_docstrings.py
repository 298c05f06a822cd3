"""A docstring begins with a sentence: subject, verb, object."""

from __future__ import annotations

import ast
import re

from tests.unit.docs.sources import definitions, modules

CLAUSE = re.compile(r"(What|Whether|Where|How|Which|Who|Whoever)\b")


def test_no_docstring_begins_with_a_clause() -> None:
    nodes = [*definitions(), *modules()]
    begun = [(path, node) for path, node in nodes if CLAUSE.match(ast.get_docstring(node) or "")]
    assert [f"{path}:{getattr(node, 'lineno', 1)}" for path, node in begun] == []
