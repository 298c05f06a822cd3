"""The equations of a run, and figures beside them; what the verifier and the ledgers' replay say of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipeline import terminal, wiring
from pipeline.config import Settings
from pipeline.demo.reconcile import Equation


@dataclass(slots=True)
class Verdict:
    """The invariants, and figures beside them."""

    lines: list[Equation] = field(default_factory=list)
    figures: list[tuple[str, object]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(line.holds for line in self.lines)

    def show(self) -> None:
        terminal.table("what happened", ("what", "count"), self.figures)
        rows = [(line.name, line.left, line.right, "yes" if line.holds else "NO") for line in self.lines]
        terminal.table("what must hold", ("equation", "left", "right", "holds"), rows)


async def verified(settings: Settings) -> tuple[list[Equation], int]:
    """Verify the sealed log against its source and work every ledger out again; gives the records derived as well."""
    report = await asyncio.to_thread(
        wiring.verify, settings, await wiring.log_keys(settings), lambda _: None, with_source=True
    )
    for fault in report.faults:
        print(f"FAULT {fault.origin} batch {fault.batch} leaf {fault.leaf}: {fault.what}")
    ledgers = await wiring.replay_ledgers(settings, lambda _: None)
    for ledger in ledgers:
        for text in ledger.faults:
            print(f"LEDGER decisions[{ledger.partition}] {text}")
    return [
        Equation("faults of the signed log = 0", report.faults_total, 0),
        Equation("decisions not derivable = 0", report.not_derivable, 0),
        Equation("outcomes above their reservation = 0", report.overshoot, 0),
        Equation("faults of ledgers worked out again = 0", sum(ledger.faults_total for ledger in ledgers), 0),
    ], report.derived
