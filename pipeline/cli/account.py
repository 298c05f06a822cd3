"""``sluice account``: accounts flagged for model extraction, and the verdicts of analysts."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from detectors.accounts.meanings import meaning
from detectors.accounts.response import STEPS
from pipeline import terminal, wiring
from pipeline.admit.calibration import CalibratedShape, PastRequest, calibrate
from pipeline.cli.arguments import BY, add_command, add_group, whole
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.events.control import Plan
from pipeline.terminal import StoredTime, UnixMs

_VERDICTS = {
    "clear": ("cleared", "clear an account: it copies nothing, and is answered like any other"),
    "confirm": ("confirmed", "confirm an account: it does copy, and every request is refused"),
    "judge": ("judged", "judge an account by its requests again"),
}
_RISES = """
SELECT principal, argMax(tenant, (time, leaf)),
    argMax(if(JSONHas(body, 'step'), JSONExtractString(body, 'step'), 'observe'), (time, leaf)),
    argMax(arrayFirst(rule -> startsWith(rule, 'extraction.'), rules), (time, leaf)), count(), toString(max(time)),
    argMax(JSONExtractString(body, 'facts', 'end_user'), (time, leaf))
FROM records
WHERE kind = 'decision' AND principal != '' AND arrayExists(rule -> startsWith(rule, 'extraction.'), rules)
GROUP BY principal ORDER BY max(time) DESC LIMIT {limit:UInt32}
"""
MAX_PAST = 500_000
"""Requests that are judged anew at once, the latest."""
_PAST = """
SELECT principal, JSONExtractString(body, 'facts', 'end_user'), JSONExtractInt(body, 'facts', 'time') AS asked,
    JSONExtract(body, 'facts', 'features', 'Array(UInt64)'), verdict, reason
FROM (
    SELECT * FROM records
    WHERE kind = 'decision' AND tenant = {tenant:String} AND principal != ''
        AND time >= now() - toIntervalDay({days:UInt32})
    ORDER BY time DESC, origin, leaf DESC LIMIT {limit:UInt32}
)
ORDER BY time, origin, leaf
"""
_COLUMNS = ("principal", "tenant", "standing", "step", "rule", "rises", "last", "user", "why")


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
    calibrated = add_command(
        account,
        "calibrate",
        "show what a tenant's own traffic would have raised, and let its plan act",
        _calibrate,
        "Judges the requests of the last days anew, out of the sealed log, and shows by the shape of the accounts what "
        "steps would have met them. A plan's extraction acts on a tenant only once this was looked at and accepted.",
    )
    calibrated.add_argument("tenant", help="id, as in: sluice tenant list")
    calibrated.add_argument("--days", type=whole(1, 400), metavar="N", default=7, help="look back so far (default 7)")
    verdict = calibrated.add_mutually_exclusive_group()
    verdict.add_argument("--accept", action="store_true", help="let the plan act from now on")
    verdict.add_argument("--withdraw", action="store_true", help="let the plan only tell again")
    calibrated.add_argument("--by", metavar="NAME", default="", help=BY)
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
        (name, tenant, standings.get(name, ("", "judged"))[1], step, rule, times, StoredTime(last), user, meaning(rule))
        for name, tenant, step, rule, times, last, user in rises
    ]
    risen = {row[0] for row in rows}
    rows += [
        (name, tenant, standing, "", "", 0, "", "", "")
        for name, (tenant, standing) in sorted(standings.items())
        if standing != "judged" and name not in risen
    ]
    terminal.table("accounts", _COLUMNS, rows, as_json=arguments.json)
    return 0


def _calibrate(arguments: argparse.Namespace, settings: Settings) -> int:
    with wiring.store(settings, patience_s=5) as store:
        rows = store.query(_PAST, {"tenant": arguments.tenant, "days": arguments.days, "limit": MAX_PAST})
    past = [PastRequest(who, user, asked, tuple(trace), *answer) for who, user, asked, trace, *answer in rows]
    if arguments.accept and not past:
        raise ConfigError(
            f"expected requests of tenant {arguments.tenant!r} in the last {arguments.days} days, got none; serve its "
            "traffic with extraction only telling, wait until it is sealed, and accept then"
        )

    async def act() -> tuple[Plan, int]:
        async with wiring.registry(settings, arguments.by) as registry:
            found = registry.control.tenants.get(arguments.tenant)
            if found is None:
                raise ConfigError(f"no tenant {arguments.tenant[:80]!r}; list them with: sluice tenant list")
            since = found.calibrated
            if arguments.accept or arguments.withdraw:
                since = await registry.calibrate(found.id, accepted=arguments.accept)
            return registry.control.plans[found.plan], since

    plan, since = asyncio.run(act())
    most = STEPS[-1] if plan.extraction == STEPS[0] else plan.extraction
    shapes = [(*one[:1], meaning(one.kind).partition(".")[0], *one[2:]) for one in calibrate(past, most)]
    state = f"acts up to {plan.extraction} since {terminal.cell_text(UnixMs(since))}" if since else "only tells"
    title = f"{len(past):,} requests, steps up to {most}; plan {plan.id} ({plan.extraction}) {state}"
    terminal.table(title, CalibratedShape._fields, shapes, as_json=arguments.json)
    return 0


def _judge(arguments: argparse.Namespace, settings: Settings) -> int:
    standing = _VERDICTS[arguments.verb][0]

    async def act() -> str:
        async with wiring.registry(settings, arguments.by) as registry:
            return await registry.judge_account(arguments.principal, standing)

    row = (arguments.principal, asyncio.run(act()), standing, arguments.by or settings.keys.operator)
    terminal.table("in force now", ("principal", "tenant", "standing", "by"), [row], as_json=arguments.json)
    return 0
