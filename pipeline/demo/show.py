"""Plays the demo on a running stack: traffic with progress, the summary, the reconciliation, the verdict."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import terminal, wiring
from pipeline.adapters.auditor import as_document
from pipeline.audit.faults import Report
from pipeline.config import Settings
from pipeline.demo import account, script
from pipeline.demo.abuse import abuse_gateway, abuse_kafka
from pipeline.demo.cast import PLANS, assemble
from pipeline.demo.receiver import Receiver
from pipeline.demo.traffic import Callers, Seen
from pipeline.local import LocalStack

_ALERTS_S = 30.0
_EXPECTED_ALERTS = 2
COLUMNS = ("tenant", "requests", "admitted", "denied", "reserved", "settled", "findings", "alerts", "p50 ms", "p99 ms")


def run(stack: LocalStack, say: Callable[[str], None], *, as_json: bool = False) -> int:
    """0 where every count reconciles, the log verifies, and callers saw what they had to; else 1."""
    settings, began = stack.settings, int(time.time() * 1000)
    seen, alerts, refused = asyncio.run(_play(settings, stack.url))
    say("reconciling")
    lines = account.reconcile(settings)
    rows = [
        (*row[:7], alerts[row[0]], *row[7:]) if row[0] else ("(unknown)", *row[1:7], 0, *row[7:])
        for row in account.per_tenant(settings, began)
    ]
    report = wiring.verify(settings, asyncio.run(wiring.log_keys(settings)), lambda _: None, with_source=True)
    missing = max(0, _EXPECTED_ALERTS - sum(alerts.values()))
    if missing:
        seen.surprises.append(f"{missing} alerts fewer than expected were delivered")
    if refused:
        seen.surprises.append(f"{refused} webhooks did not verify")
    ok = all(line.holds for line in lines) and report.ok and not seen.surprises
    if as_json:
        terminal.document(_document(ok, rows, lines, report, seen))
    else:
        _print(rows, lines, report, seen)
    return 0 if ok else 1


async def _play(settings: Settings, url: str) -> tuple[Seen, Counter[str], int]:
    receiver, seen = Receiver(), Seen()
    webhook = await receiver.start()
    try:
        cast = await assemble(settings, webhook)
        receiver.secrets = cast.secrets
        scenes = [script.ordinary(), script.hostile(), script.campaign(), script.burst()]
        with _progress() as progress:
            task = progress.add_task("traffic", total=sum(map(len, scenes)) + 7)

            def tick() -> None:
                progress.advance(task)

            async with Callers(url, cast, seen) as callers:
                for lines in scenes:
                    await callers.all(lines, tick)
            await abuse_gateway(url, cast, seen, tick)
            async with wiring.registry(settings) as registry:
                await abuse_kafka(settings.kafka.bootstrap, registry.control, cast, seen, tick)
        await _until_alerted(receiver)
        return seen, receiver.received, receiver.refused
    finally:
        await receiver.close()


async def _until_alerted(receiver: Receiver) -> None:
    for _ in range(int(_ALERTS_S / 0.2)):
        if sum(receiver.received.values()) >= _EXPECTED_ALERTS:
            break
        await asyncio.sleep(0.2)
    # what is about to be recorded as delivered
    await asyncio.sleep(1.0)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not sys.stderr.isatty())


def _print(rows: list[tuple[object, ...]], lines: list[account.Line], report: Report, seen: Seen) -> None:
    terminal.table(f"tenants ({', '.join(f'{t}: {p}' for t, p in PLANS.items())})", COLUMNS, rows)
    print(f"\nan answer: {seen.sample.strip()!r}\n")
    verdicts = [(line.name, line.left, line.right, "yes" if line.holds else "NO") for line in lines]
    terminal.table("reconciliation", ("equation", "left", "right", "holds"), verdicts)
    terminal.audit_report(report)
    for surprise in seen.surprises[:20]:
        print(f"SURPRISE {surprise}")


def _document(
    ok: bool, rows: list[tuple[object, ...]], lines: list[account.Line], report: Report, seen: Seen
) -> dict[str, object]:
    return {
        "ok": ok,
        "tenants": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        "reconciliation": [{**line._asdict(), "holds": line.holds} for line in lines],
        "audit": as_document(report),
        "doors": dict(seen.doors),
        "surprises": seen.surprises,
    }
