"""A query file to the SQL that ClickHouse gets: the macros of grafana-clickhouse-datasource 4.20.0 that we use.

So the files under ``queries`` run in tests and in a terminal as they do in Grafana:

    python -m dashboards.render decisions_per_minute --hours 1 --tenant acme

Rules taken from the plugin (its ``pkg/macros`` and ``src/data/CHDatasource``): comments never reach the server; an
argument list touches the macro's name; times are whole seconds, both ends inclusive. Stricter than the plugin: an
unknown macro or variable is an error here, there it is left in place.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

QUERIES = Path(__file__).parent / "queries"
_COMMENT = re.compile(r"('(?:[^'\\]|\\.)*')|--[^\n]*", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
_MACRO = re.compile(r"\$__(\w+)(\()?")


@dataclass(frozen=True, slots=True)
class QueryScope:
    """A dashboard's additions to a query: time range (Unix seconds), bucket (seconds), variables ('' is All)."""

    start: int
    end: int
    interval: int = 60
    variables: dict[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """Every query, sorted."""
    return sorted(path.stem for path in QUERIES.glob("*.sql"))


def raw(name: str) -> str:
    """The query as Grafana gets it, without its last line break."""
    return (QUERIES / f"{name}.sql").read_text("utf-8").rstrip("\n")


def render(sql: str, scope: QueryScope) -> str:
    """The query as ClickHouse gets it. Raises ValueError, saying which macro or variable is wrong."""
    plain = _COMMENT.sub(lambda match: match.group(1) or "", sql)
    return _macros(_variables(_conditions(plain, scope), scope), scope).strip()


def _conditions(sql: str, scope: QueryScope) -> str:
    """``$__conditionalAll(condition, $v)``: the condition, or ``1=1`` where ``v`` is All. Last occurrence first."""
    name = "$__conditionalAll("
    while (start := sql.rfind(name)) >= 0:
        arguments, end = _arguments(sql, start + len(name))
        if len(arguments) != 2 or not re.fullmatch(r"\$\w+", arguments[1]):
            raise ValueError(
                f"$__conditionalAll: expected a condition and a plain $variable, got {len(arguments)} arguments"
            )
        sql = sql[:start] + (arguments[0] if _value(arguments[1][1:], scope) else "1=1") + sql[end:]
    return sql


def _variables(sql: str, scope: QueryScope) -> str:
    def one(match: re.Match[str]) -> str:
        if match.group(2) != "percentencode":
            name = match.group(1)
            raise ValueError(f"expected ${{{name}:percentencode}}, got ${{{name}}}: values may hold any character")
        # what encodeURIComponent leaves, Grafana encodes the rest of RFC 3986's reserved set too
        return quote(_value(match.group(1), scope), safe="")

    return _VARIABLE.sub(one, sql)


def _macros(sql: str, scope: QueryScope) -> str:
    macro = _MACRO.search(sql)
    while macro:
        arguments, end = _arguments(sql, macro.end()) if macro.group(2) else ([], macro.end())
        text = _expand(macro.group(1), [_macros(argument, scope) for argument in arguments], scope)
        sql = sql[: macro.start()] + text + sql[end:]
        macro = _MACRO.search(sql, macro.start() + len(text))
    return sql


def _expand(name: str, arguments: list[str], scope: QueryScope) -> str:
    start = f"toDateTime({scope.start})"
    end = f"toDateTime({scope.end})"
    step = str(max(1, scope.interval))
    match name, arguments:
        case "fromTime", []:
            return start
        case "toTime", []:
            return end
        case "interval_s", []:
            return step
        case "timeFilter", [column]:
            return f"{column} >= {start} AND {column} <= {end}"
        case "timeInterval", [column]:
            return f"toStartOfInterval(toDateTime({column}), INTERVAL {step} second)"
    raise ValueError(
        f"expected a macro that queries here may use, got $__{name} with {len(arguments)} arguments; see _expand"
    )


def _arguments(sql: str, begin: int) -> tuple[list[str], int]:
    """The arguments of the list that opened before ``begin``, and the position after its end."""
    arguments = list[str]()
    depth = 0
    quoted = False
    for position in range(begin, len(sql)):
        letter = sql[position]
        if letter == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif letter == "(":
            depth += 1
        elif letter == ")" and depth:
            depth -= 1
        elif letter in ",)" and not depth:
            arguments.append(sql[begin:position].strip())
            begin = position + 1
            if letter == ")":
                return arguments, begin
    raise ValueError("expected a macro's argument list to end, got the end of the query; close the parenthesis")


def _value(name: str, scope: QueryScope) -> str:
    if name not in scope.variables:
        raise ValueError(f"expected a value for the variable ${name}, got none; give one in the scope")
    return scope.variables[name]


def main() -> None:
    """Print one query, ready for ``clickhouse-client``."""
    parser = argparse.ArgumentParser(description="Print a dashboard query as ClickHouse gets it.")
    parser.add_argument("query", choices=names(), help="name of a file under queries")
    parser.add_argument("--hours", type=int, default=6, help="hours of the time range, up to now")
    parser.add_argument("--interval", type=int, default=60, help="seconds of a bucket")
    parser.add_argument("--tenant", default="", help="id of one tenant (default: all)")
    arguments = parser.parse_args()
    now = int(time.time())
    scope = QueryScope(now - arguments.hours * 3600, now, arguments.interval, {"tenant": arguments.tenant})
    sys.stdout.write(render(raw(arguments.query), scope) + "\n")


if __name__ == "__main__":
    main()
