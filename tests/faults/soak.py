"""Kills everything at random under load, then counts. ``make soak KILLS=500 SEED=1 BROKERS=3``; exit 0 if all holds."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import terminal, wiring
from pipeline.demo.reconcile import Equation, reconcile
from tests.faults import fault_account
from tests.faults.fault_load import Crowd
from tests.faults.fault_plan import Mischief, plan
from tests.faults.fault_site import FaultSite, make_stack

Say = Callable[[str], None]
_CALM_S = 150.0


@dataclass(frozen=True, slots=True)
class Options:
    """One storm. ``wave`` faults come at about the same time; pauses last ``hold_s``."""

    seed: int
    kills: int
    brokers: int = 1
    wave: float = 2.0
    hold_s: float = 20.0
    patience_s: float = 20.0
    timeout_ms: int = 12_000
    calls: int = 100_000


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


async def storm(options: Options, home: Path, say: Say) -> Verdict:
    """Start a stack in ``home``, let the plan of the seed loose on it under load, wait until it is quiet, count."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    overrides = {
        "SLUICE_GENERATE__MODEL": "echo",
        "SLUICE_GENERATE__ECHO_DELAY_MS": "10",
        "SLUICE_ADMIT__SNAPSHOT_EVERY": "500",
    }
    site = FaultSite(make_stack(home, options.brokers, overrides), overrides)
    try:
        await site.start()
        crowd = Crowd(site.stack.url, site.keys, options.seed, options.timeout_ms, options.calls)
        load = asyncio.create_task(crowd.run())
        mischief = Mischief(
            site, lambda: crowd.answered, options.patience_s, lambda text: say(f"{text} · {crowd.answered} answered")
        )
        faults = plan(options.seed, options.kills, site.targets, options.wave, options.hold_s)
        try:
            await mischief.run(faults)
        finally:
            crowd.stop.set()
        say("calm: callers finish")
        await load
        return await _count(options, site, crowd, mischief, say)
    finally:
        await site.stop()


async def _count(options: Options, site: FaultSite, crowd: Crowd, mischief: Mischief, say: Say) -> Verdict:
    settings, verdict = site.stack.settings, Verdict()
    say("counting")
    verdict.lines += await asyncio.to_thread(reconcile, settings, _CALM_S)
    log = await fault_account.read_log(settings)
    verdict.lines += fault_account.once(log)
    balance, repeated = fault_account.tokens(log)
    limits, most = fault_account.ceilings(log)
    verdict.lines += balance + limits + fault_account.callers(site, crowd.calls, log)
    say("verifying the signed log")
    report = await asyncio.to_thread(
        wiring.verify, settings, await wiring.log_keys(settings), lambda _: None, with_source=True
    )
    for fault in report.faults:
        print(f"FAULT {fault.origin} batch {fault.batch} leaf {fault.leaf}: {fault.what}")
    kills = sum(count for (act, _), count in mischief.done.items() if act == "kill")
    verdict.lines += [
        Equation("faults of the signed log = 0", report.faults_total, 0),
        Equation("decisions not derivable = 0", report.not_derivable, 0),
        Equation(
            "decisions and outcomes derived again", report.derived, report.admitted + report.denied + report.ended
        ),
        Equation("outcomes above their reservation = 0", report.overshoot, 0),
        Equation("processes that ended by an error of their own = 0", site.own_errors, 0),
        Equation("kills as planned", kills, options.kills),
    ]
    verdict.figures = _figures(options, site, crowd, mischief, log, repeated, most)
    return verdict


def _figures(
    options: Options,
    site: FaultSite,
    crowd: Crowd,
    mischief: Mischief,
    log: fault_account.Log,
    repeated: Counter[str],
    most: dict[str, int],
) -> list[tuple[str, object]]:
    ended = {f"ended unasked: {name}, status {status}": count for (name, status), count in site.unasked.items()}
    return [
        ("seed", options.seed),
        ("brokers", options.brokers),
        *((f"{act} {target}", count) for (act, target), count in sorted(mischief.done.items())),
        *ended.items(),
        ("calls", len(crowd.calls)),
        ("attempts", sum(len(call.tries) for call in crowd.calls)),
        *((f"calls: {name}", count) for name, count in crowd.finals.most_common()),
        ("requests", len(log.requests)),
        *fault_account.results(log).items(),
        ("records of losing writers", log.skipped),
        ("repeated runs", repeated["runs"]),
        ("tokens of repeated runs", repeated["tokens"]),
        *((f"most: {name}", level) for name, level in most.items()),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="the choice of faults follows from it")
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    parser.add_argument("--wave", type=float, default=2.0, help="faults that come at about the same time")
    parser.add_argument("--keep", type=Path, help="folder of the stack, kept afterwards")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    options = Options(seed, given.kills, given.brokers, given.wave)
    with tempfile.TemporaryDirectory(prefix="sluice-soak-") as folder:
        verdict = asyncio.run(storm(options, given.keep or Path(folder) / "home", say))
    verdict.show()
    print(f"seed {seed}: {'everything holds' if verdict.holds else 'NOT everything holds'}")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
