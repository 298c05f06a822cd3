"""``sluice quota``: what is left of limits, why a request was refused, and whether the ledgers come out again."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from typing import Any

import msgspec

from pipeline import terminal, wiring
from pipeline.cli.arguments import add_command, add_group
from pipeline.config import Settings
from pipeline.terminal import Colored, StatusLine, UnixMs

_EXAMPLES = """\
examples:
  sluice quota show acme                       a tenant; the id of a principal or of a key shows their limits too
  sluice quota explain 5f0c9b12-0-1704         x-request-id of an answer
  sluice quota replay && echo equal
"""
_NEAR = 10
"""Percent of a limit below which what is left is coloured."""
_WAITS = {
    "none": "its limits had let it in at once",
    "until_one_ends": "once something that was open had ended",
    "never": "never: it asks for more than a limit ever gives at once; lower max_tokens or send less text",
}


def add(commands: Any) -> None:
    """Add ``quota``."""
    quota = add_group(
        commands,
        "quota",
        "show what is left of limits, and why they refused",
        "Limits are counted in the log itself: a partition's ledger is what its decisions add up to. So all of\n"
        "this is read from Kafka, is exact up to the last record, and changes nothing.",
        _EXAMPLES,
    )
    shown = add_command(
        quota,
        "show",
        "show what is left now of every limit over a tenant, principal or key",
        _show,
        "Folds the newest snapshot and all decisions behind it. Each limit says when it is whole again.",
    )
    shown.add_argument("name", metavar="TENANT|PRINCIPAL|KEY", help="id, as in: sluice tenant list, sluice key list")
    shown.add_argument(
        "--as", dest="subject", choices=("tenant", "principal", "key"), help="which of them the id names, where several"
    )
    explained = add_command(
        quota,
        "explain",
        "show why a request was refused or let in",
        _explain,
        "Derives the decision again from the log, with the ledger as it was then: each limit, what it held, what was "
        "asked of it, and when it had let the request in. Exit 1 where the stored decision is another one.",
    )
    explained.add_argument("request", help="id of the request: x-request-id of its answer")
    add_command(
        quota,
        "replay",
        "verify the ledger of every partition by working it out again",
        _replay,
        "Derives every decision, outcome and charge again from decisions, and compares the ledger with each snapshot "
        "that the log marks and with the newest one stored. Exit 0 where all is equal, 1 where something differs, 2 "
        "where it cannot be: the log is cut and no snapshot reaches its beginning, or another build decided.",
    )


def _progress(arguments: argparse.Namespace) -> StatusLine:
    return StatusLine(enabled=sys.stderr.isatty() and not arguments.json)


def _show(arguments: argparse.Namespace, settings: Settings) -> int:
    progress = _progress(arguments)
    left = asyncio.run(wiring.left_of_limits(settings, arguments.name, arguments.subject, progress.show))
    progress.clear()
    columns: tuple[str, ...] = ("level", "over", "id", "meter", "unit", "limit", "remaining", "reset")
    rows: list[tuple[object, ...]] = []
    for scoped, state in left.limits:
        limit = scoped.limit
        reset = UnixMs(left.time + state.reset_ms) if state.reset_ms > 0 else None
        shown = reset if arguments.json else reset or ("when one ends" if state.reset_ms < 0 else "")
        named = (scoped.level, scoped.over, limit.id, limit.meter, limit.unit)
        rows.append((*named, limit.amount, _left(state.remaining, limit.amount), shown))
    if arguments.json:
        # the time stands in the title for people
        columns, rows = (*columns, "as_of"), [(*row, left.time) for row in rows]
    title = f"limits over {left.subject} {arguments.name} at {terminal.cell_text(UnixMs(left.time))}"
    terminal.table(title, columns, rows, as_json=arguments.json)
    return 0


def _left(remaining: int, amount: int) -> Colored:
    color = "red" if not remaining else "yellow" if remaining * 100 < amount * _NEAR else ""
    return Colored(remaining, f"{remaining}", color)


def _explain(arguments: argparse.Namespace, settings: Settings) -> int:
    progress = _progress(arguments)
    found = asyncio.run(wiring.explain_decision(settings, arguments.request, progress.show))
    progress.clear()
    differs = found.derived == "differs"
    if arguments.json:
        terminal.document(msgspec.to_builtins(found))
        return int(differs)
    told = {
        "request": found.request,
        "time": UnixMs(found.time),
        "verdict": f"{found.verdict}: {found.reason}" if found.reason else found.verdict,
        "message": found.message,
        "limit": found.limit,
        "tenant": found.tenant,
        "principal": found.principal,
        "key": found.key,
        "derived": f"DIFFERS: the rules give {found.derived_as}" if differs else found.derived,
    }
    if found.limits and found.verdict == "deny":
        told["admitted"] = UnixMs(found.admitted_at) if found.wait == "until" else _WAITS[found.wait]
    terminal.fields("", {name: value for name, value in told.items() if value != ""})
    columns = ("limit", "meter", "unit", "amount", "held", "asked", "refuses")
    rows = [
        (one.limit, one.meter, one.unit, one.amount, one.held, one.asked, Colored(one.refuses, *_refuses(one.refuses)))
        for one in found.limits
    ]
    if rows:
        terminal.table("limits as the request met them", columns, rows)
    return int(differs)


def _refuses(refuses: bool) -> tuple[str, str]:
    return ("yes", "red") if refuses else ("", "")


def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    progress = _progress(arguments)
    found = asyncio.run(wiring.replay_ledgers(settings, progress.show))
    progress.clear()
    faults = sum(one.faults_total for one in found)
    foreign = sum(one.not_derivable for one in found)
    code = 1 if faults else 2 if foreign else 0
    if arguments.json:
        document = {"equal": not code, "partitions": [dataclasses.asdict(one) for one in found]}
        terminal.document(document)
        return code
    columns = ("partition", "start", "records", "decisions", "outcomes", "charges", "open", "snapshots", "newest")
    rows = [
        (*(getattr(one, name) for name in columns[:-1]), one.newest if one.newest >= 0 else "none") for one in found
    ]
    terminal.table("ledgers worked out again", columns, rows)
    for one in found:
        for fault in one.faults:
            print(f"FAULT decisions[{one.partition}] {fault}")
    if foreign:
        print(f"{foreign} decisions are of another decider version: not re-derivable by this build")
    equal = "the ledgers are equal" if not foreign else "the rest is equal"
    print(f"{faults} faults: the ledgers differ" if faults else equal)
    return code
