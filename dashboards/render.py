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
    """What a dashboard adds to a query: time range (Unix seconds), bucket (seconds), variables ('' is All)."""

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


def render(sql: str, view: QueryScope) -> str:
    """The query as ClickHouse gets it. Raises ValueError, saying which macro or variable is wrong."""
    plain = _COMMENT.sub(lambda found: found.group(1) or "", sql)
    return _macros(_variables(_conditions(plain, view), view), view).strip()


def _conditions(sql: str, view: QueryScope) -> str:
    """``$__conditionalAll(condition, $v)``: the condition, or ``1=1`` where ``v`` is All. Last occurrence first."""
    name = "$__conditionalAll("
    while (at := sql.rfind(name)) >= 0:
        arguments, end = _arguments(sql, at + len(name))
        if len(arguments) != 2 or not re.fullmatch(r"\$\w+", arguments[1]):
            raise ValueError(
                f"$__conditionalAll takes a condition and a plain $variable, got {len(arguments)} arguments"
            )
        sql = sql[:at] + (arguments[0] if _value(arguments[1][1:], view) else "1=1") + sql[end:]
    return sql


def _variables(sql: str, view: QueryScope) -> str:
    def one(found: re.Match[str]) -> str:
        if found.group(2) != "percentencode":
            raise ValueError(f"${{{found.group(1)}}} must be written ${{{found.group(1)}:percentencode}}")
        # what encodeURIComponent leaves, Grafana encodes the rest of RFC 3986's reserved set too
        return quote(_value(found.group(1), view), safe="")

    return _VARIABLE.sub(one, sql)


def _macros(sql: str, view: QueryScope) -> str:
    found = _MACRO.search(sql)
    while found:
        arguments, end = _arguments(sql, found.end()) if found.group(2) else ([], found.end())
        text = _expand(found.group(1), [_macros(argument, view) for argument in arguments], view)
        sql = sql[: found.start()] + text + sql[end:]
        found = _MACRO.search(sql, found.start() + len(text))
    return sql


def _expand(name: str, arguments: list[str], view: QueryScope) -> str:
    start, end, step = f"toDateTime({view.start})", f"toDateTime({view.end})", str(max(1, view.interval))
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
    raise ValueError(f"$__{name} with {len(arguments)} arguments: no such macro, or none that our queries may use")


def _arguments(sql: str, at: int) -> tuple[list[str], int]:
    """The arguments of the list that opened before ``at``, and the position after its end."""
    found, depth, begin, quoted = list[str](), 0, at, False
    for position in range(at, len(sql)):
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
            found.append(sql[begin:position].strip())
            begin = position + 1
            if letter == ")":
                return found, begin
    raise ValueError("a macro's argument list does not end")


def _value(name: str, view: QueryScope) -> str:
    if name not in view.variables:
        raise ValueError(f"variable ${name} has no value in this view")
    return view.variables[name]


def main() -> None:
    """Print one query, ready for ``clickhouse-client``."""
    parser = argparse.ArgumentParser(description="Print a dashboard query as ClickHouse gets it.")
    parser.add_argument("query", choices=names())
    parser.add_argument("--hours", type=int, default=6, help="time range up to now")
    parser.add_argument("--interval", type=int, default=60, help="bucket, seconds")
    parser.add_argument("--tenant", default="", help="one tenant; all without it")
    given = parser.parse_args()
    now = int(time.time())
    view = QueryScope(now - given.hours * 3600, now, given.interval, {"tenant": given.tenant})
    sys.stdout.write(render(raw(given.query), view) + "\n")


if __name__ == "__main__":
    main()
