"""The macro expander, against what the plugin was seen to send, and its refusals."""

from __future__ import annotations

import re

import pytest

from dashboards.render import QueryScope, names, raw, render

VIEW = QueryScope(1415792726, 1447328726, 20, {"tenant": "acme", "none": ""})


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT $__fromTime, $__toTime", "SELECT toDateTime(1415792726), toDateTime(1447328726)"),
        ("WHERE $__timeFilter(c)", "WHERE c >= toDateTime(1415792726) AND c <= toDateTime(1447328726)"),
        ("$__timeInterval(c)", "toStartOfInterval(toDateTime(c), INTERVAL 20 second)"),
        ("x / $__interval_s", "x / 20"),
        ("$__timeInterval($__fromTime)", "toStartOfInterval(toDateTime(toDateTime(1415792726)), INTERVAL 20 second)"),
        ("$__timeFilter(max(a, b))", "max(a, b) >= toDateTime(1415792726) AND max(a, b) <= toDateTime(1447328726)"),
        ("$__timeFilter( f('),(') )", "f('),(') >= toDateTime(1415792726) AND f('),(') <= toDateTime(1447328726)"),
        ("$__conditionalAll(t = f('${tenant:percentencode}'), $tenant)", "t = f('acme')"),
        ("$__conditionalAll(t = f('${none:percentencode}'), $none)", "1=1"),
        ("$__conditionalAll(a, $none) AND $__conditionalAll(b, $tenant)", "1=1 AND b"),
        ("SELECT 1 -- $__fromTime and $__nonsense(\n", "SELECT 1"),
        ("SELECT '--kept' -- gone", "SELECT '--kept'"),
    ],
)
def test_macros_expand_as_the_plugin_does(sql: str, expected: str) -> None:
    assert render(sql, VIEW) == expected


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("$__unknown", "a macro that queries"),
        ("$__timeFilter (c)", "0 arguments"),
        ("$__timeFilter(a, b)", "2 arguments"),
        ("$__fromTime()", "1 arguments"),
        ("$__timeFilter(c", "argument list to end"),
        ("${tenant}", "percentencode"),
        ("${tenant:singlequote}", "percentencode"),
        ("${other:percentencode}", "for the variable"),
        ("$__conditionalAll(a, b, $tenant)", "plain"),
        ("$__conditionalAll(a, '${tenant}')", "plain"),
    ],
)
def test_what_the_plugin_would_send_broken_is_refused(sql: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        render(sql, VIEW)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("tenant", ["", "acme", "\\' OR 1=1 -- ", "a'b\"c`d;e(f)g,h%i$j"])
def test_queries_hold_no_character_of_a_hostile_value(name: str, tenant: str) -> None:
    sql = render(raw(name), QueryScope(0, 3600, 60, {"tenant": tenant}))
    assert "$" not in sql
    for literal in re.findall(r"decodeURLComponent\((.*?)\)", sql):
        assert re.fullmatch(r"'[A-Za-z0-9%._~-]*'", literal)
    assert sql.count("decodeURLComponent(") == (raw(name).count("${tenant") if tenant else 0)


def test_there_are_queries() -> None:
    assert len(names()) >= 8
