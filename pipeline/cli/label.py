"""``sluice label``: analysts label flagged requests, and each rule is measured by the labels."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline import terminal, wiring
from pipeline.cli.arguments import BY, add_command, add_group, whole
from pipeline.clickhouse.labels import SignedLabel, precision_of_rules, signed_labels
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.terminal import UnixMs

_KNOWN = """
SELECT tenant, principal, verdict, reason, rules FROM records
WHERE request = {request:String} AND kind = 'decision' LIMIT 1
"""


def add(commands: Any) -> None:
    """Add ``label``."""
    label = add_group(
        commands,
        "label",
        "label requests as attack or benign, and measure each rule by it",
        "A label is an act of a person: it is written to the topic access and sealed like every other. The newest\n"
        "label of a request counts.",
    )
    for verdict, meaning in (("attack", "the finding was right"), ("benign", "it was a false alarm")):
        labelled = add_command(label, verdict, f"label a request as {verdict}: {meaning}", _label)
        labelled.add_argument("request", help="its id, as in x-sluice-request, an alert, or the dashboard")
        labelled.add_argument("--by", metavar="NAME", default="", help=BY)
    listed = add_command(label, "list", "list the newest labels", _list)
    listed.add_argument("--limit", type=whole(1, 100_000), metavar="N", default=100, help="most rows (default 100)")
    add_command(label, "precision", "count confirmed and false alarms of each rule, over everything sealed", _precision)


def _label(arguments: argparse.Namespace, settings: Settings) -> int:
    decided = _decided(arguments.request, settings)
    analyst = arguments.by or settings.keys.operator

    async def act() -> None:
        async with wiring.registry(settings, arguments.by) as registry:
            await registry.label(arguments.request, decided.tenant, arguments.verb)

    asyncio.run(act())
    columns = ("request", "tenant", "principal", "verdict", "reason", "rules", "label", "by")
    row = (arguments.request, *decided._replace(rules=" ".join(decided.rules)), arguments.verb, analyst)
    terminal.table("labelled", columns, [row], as_json=arguments.json)
    return 0


class DecidedRequest(NamedTuple):
    """The sealed decision about one request, as _KNOWN reads it."""

    tenant: str
    principal: str
    verdict: str
    reason: str
    rules: Sequence[str]


def _decided(request: str, settings: Settings) -> DecidedRequest:
    """The sealed decision, waited for a little: an answer is there before it is sealed."""
    with wiring.store(settings, patience_s=5) as store:
        for pause in (0.0, 0.5, 1.0, 1.5, 2.0):
            time.sleep(pause)
            if known := store.query(_KNOWN, {"request": request}):
                return DecidedRequest(*known[0])
    raise ConfigError(
        f"expected a sealed decision about {request[:80]!r}, got none within 5 s; give an id as in x-sluice-request or "
        "an alert"
    )


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    labels = asyncio.run(_signed(settings))[: arguments.limit]
    rows = [(*label[:4], UnixMs(label.time)) for label in labels]
    terminal.table("labels", ("request", "tenant", "label", "by", "time"), rows, as_json=arguments.json)
    return 0


def _precision(arguments: argparse.Namespace, settings: Settings) -> int:
    labels = asyncio.run(_signed(settings))
    with wiring.store(settings, patience_s=5) as store:
        rows = [(*row, row.precision) for row in precision_of_rules(store, labels)]
    columns = ("rule", "confirmed", "false_alarms", "precision")
    terminal.table("precision by rule", columns, rows, as_json=arguments.json)
    return 0


async def _signed(settings: Settings) -> list[SignedLabel]:
    """Read the labels that operators signed; say how many records there are that none did."""
    async with wiring.control_table(settings) as table:
        with wiring.store(settings, patience_s=5) as store:
            labels, unsigned = signed_labels(store, table.fold)
    if unsigned:
        terminal.note(f"{unsigned} labels are not counted: no operator known then signed them")
    return labels
