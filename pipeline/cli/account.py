"""``sluice account``: accounts flagged for model extraction, and the verdicts of analysts."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import BY, add_command, add_group, whole
from pipeline.config import Settings
from pipeline.terminal import StoredTime

_VERDICTS = {
    "clear": ("cleared", "clear an account: it copies nothing, and is answered like any other"),
    "confirm": ("confirmed", "confirm an account: it does copy, and every request is refused"),
    "judge": ("judged", "judge an account by its requests again"),
}
_RISES = """
SELECT principal, argMax(tenant, (time, leaf)),
    argMax(if(JSONHas(body, 'step'), JSONExtractString(body, 'step'), 'observe'), (time, leaf)),
    argMax(arrayFirst(rule -> startsWith(rule, 'extraction.'), rules), (time, leaf)), count(), toString(max(time))
FROM records
WHERE kind = 'decision' AND principal != '' AND arrayExists(rule -> startsWith(rule, 'extraction.'), rules)
GROUP BY principal ORDER BY max(time) DESC LIMIT {limit:UInt32}
"""
_COLUMNS = ("principal", "tenant", "standing", "step", "rule", "rises", "last")


def add(commands: Any) -> None:
    """Add ``account``."""
    account = add_group(
        commands,
        "account",
        "list accounts flagged for model extraction; clear or confirm them",
        "An account that copies the model is answered step by step, as its plan says. What an analyst knows of it\n"
        "counts more than what it looks like; it is an act of a person and sealed like every other.",
    )
    listed = add_command(
        account, "list", "list accounts that rose a step, the latest first, and those judged by hand", _list
    )
    listed.add_argument("--limit", type=whole(1, 100_000), metavar="N", default=100, help="most rows (default 100)")
    for verb, (_, summary) in _VERDICTS.items():
        judged = add_command(account, verb, summary, _judge)
        judged.add_argument("principal", help="as on the decision, in an alert, or in: sluice account list")
        judged.add_argument("--by", metavar="NAME", default="", help=BY)


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    with wiring.store(settings, patience_s=5) as store:
        rises = store.query(_RISES, {"limit": arguments.limit})

    async def read_standings() -> dict[str, tuple[str, str]]:
        async with wiring.registry(settings) as registry:
            return {p.id: (p.tenant, p.extraction) for p in registry.control.principals.values()}

    standings = asyncio.run(read_standings())
    rows: list[tuple[object, ...]] = [
        (name, tenant, standings.get(name, ("", "judged"))[1], *step, StoredTime(last))
        for name, tenant, *step, last in rises
    ]
    risen = {row[0] for row in rows}
    rows += [
        (name, tenant, standing, "", "", 0, "")
        for name, (tenant, standing) in sorted(standings.items())
        if standing != "judged" and name not in risen
    ]
    terminal.table("accounts", _COLUMNS, rows, as_json=arguments.json)
    return 0


def _judge(arguments: argparse.Namespace, settings: Settings) -> int:
    standing = _VERDICTS[arguments.verb][0]

    async def act() -> str:
        async with wiring.registry(settings, arguments.by) as registry:
            return await registry.judge_account(arguments.principal, standing)

    row = (arguments.principal, asyncio.run(act()), standing, arguments.by or settings.keys.operator)
    terminal.table("in force now", ("principal", "tenant", "standing", "by"), [row], as_json=arguments.json)
    return 0
