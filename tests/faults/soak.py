"""Kills everything at random under load, then counts. ``make soak KILLS=500 SEED=1 BROKERS=3``; exit 0 if all holds."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.demo.reconcile import Equation, reconcile
from pipeline.retry import retry_until
from tests.faults import fault_account
from tests.faults.fault_acts import Mischief
from tests.faults.fault_evidence import KINDS, WANTED, equations
from tests.faults.fault_hostile import Hostile
from tests.faults.fault_load import Crowd
from tests.faults.fault_plan import MOST_FURTHER, further, plan
from tests.faults.fault_site import FaultSite, make_stack, producer_endpoint
from tests.faults.verdict import Verdict, verified

Say = Callable[[str], None]
_CALM_S = 150.0
_MUST_MEET = 30
"""Kills from which on a run must have met every kind of fault; a shorter one says which it met."""


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
    starve: bool = True

    @property
    def must_meet(self) -> bool:
        """Tell whether the run counts only if every kind of fault was met often enough."""
        return self.starve and self.kills >= _MUST_MEET


class Storm:
    """A running stack, those who load it, and what is done to it."""

    def __init__(self, options: Options, site: FaultSite, say: Say) -> None:
        self._options, self._site, self._say = options, site, say
        settings, key = site.stack.settings, site.keys["acme-hostile"]
        kafka, partitions = producer_endpoint(settings, key), settings.kafka.partitions
        self._crowd = Crowd(site.stack.url, site.keys, options.seed, options.timeout_ms, options.calls)
        self._hostile = Hostile(site.stack.url, kafka, partitions, key, options.seed)
        self._mischief = Mischief(site, lambda: self._crowd.answered, options.patience_s, self._tell)

    async def rage(self) -> None:
        """Carry the plan of the seed out under load, then wait until every caller knows its end."""
        options = self._options
        faults = plan(
            options.seed, options.kills, self._site.targets, options.wave, options.hold_s, starve=options.starve
        )
        load = asyncio.gather(self._crowd.run(), self._hostile.run())
        try:
            await self._mischief.run(faults)
            if options.must_meet:
                await self._until_met()
        finally:
            self._crowd.stop.set()
            self._hostile.stop.set()
        self._say("calm: callers finish")
        await load

    async def count(self) -> Verdict:
        """Compare the log with the store, with what callers were told, and with what the verifier says."""
        settings, verdict = self._site.stack.settings, Verdict()
        self._say("counting")
        verdict.lines += await asyncio.to_thread(reconcile, settings, _CALM_S)
        log = await fault_account.read_log(settings)
        verdict.lines += fault_account.once(log)
        balance, repeated = fault_account.tokens(log)
        limits, most = fault_account.ceilings(log)
        verdict.lines += balance + limits + fault_account.callers(self._site, self._crowd.calls, log)
        verdict.lines += [fault_account.garbage(self._hostile.garbage, log), fault_account.refused_in_vain(log)]
        self._say("verifying the signed log")
        sealed, derived = await verified(settings)
        answered = sum(1 for _ in log.decisions()) + sum(1 for _ in log.outcomes())
        kills = sum(count for (act, _), count in self._mischief.done.items() if act == "kill")
        verdict.lines += [
            *sealed,
            Equation("decisions and outcomes derived again", derived, answered),
            Equation("processes that ended by an error of their own = 0", self._site.own_errors, 0),
            Equation("kills as planned", kills, self._options.kills),
        ]
        met = self._mischief.evidence.met(log.lost)
        verdict.lines += equations(met) if self._options.must_meet else []
        verdict.figures = [
            *self._figures(),
            ("requests", len(log.requests)),
            *fault_account.results(log).items(),
            ("records of losing writers", log.skipped),
            ("repeated runs", repeated["runs"]),
            ("tokens of repeated runs", repeated["tokens"]),
            *((f"most: {name}", level) for name, level in most.items()),
            *((f"met: {kind} ({KINDS[kind]})", count) for kind, count in met.items()),
        ]
        return verdict

    async def _until_met(self) -> None:
        """Add faults of the kinds that were met too seldom; a bounded number of them."""
        mischief, settings = self._mischief, self._site.stack.settings
        faults = further(self._options.seed)
        for _ in range(MOST_FURTHER):
            log = await retry_until(lambda: fault_account.read_log(settings), _CALM_S, "the log to be read")
            missing = [kind for kind, count in mischief.evidence.met(log.lost).items() if count < WANTED]
            if not missing:
                return
            await mischief.run([faults(missing)])

    def _tell(self, text: str) -> None:
        self._say(f"{text} · {self._crowd.answered} answered")

    def _figures(self) -> list[tuple[str, object]]:
        site, crowd = self._site, self._crowd
        ended = {f"ended unasked: {name}, status {status}": count for (name, status), count in site.unasked.items()}
        return [
            ("seed", self._options.seed),
            ("brokers", self._options.brokers),
            *((f"{act} {target}", count) for (act, target), count in sorted(self._mischief.done.items())),
            *ended.items(),
            ("calls", len(crowd.calls)),
            ("attempts", sum(len(call.tries) for call in crowd.calls)),
            *((f"calls: {name}", count) for name, count in crowd.finals.most_common()),
            *((f"hostile: {name}", count) for name, count in self._hostile.done.items()),
        ]


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
        site.start_second()
        raging = Storm(options, site, say)
        await raging.rage()
        return await raging.count()
    finally:
        await site.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="the choice of faults follows from it")
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    parser.add_argument("--wave", type=float, default=2.0, help="faults that come at about the same time")
    parser.add_argument("--keep", type=Path, help="folder of the stack, kept afterwards")
    parser.add_argument("--no-starve", action="store_true", help="kill only: no want of CPU, no slow screening")
    given = parser.parse_args()
    if not given.no_starve and not Path("/proc/self/schedstat").exists():
        parser.error("expected Linux, got no /proc/self/schedstat to count starvation by; add --no-starve")
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    options = Options(seed, given.kills, given.brokers, given.wave, starve=not given.no_starve)
    with tempfile.TemporaryDirectory(prefix="sluice-soak-") as folder:
        verdict = asyncio.run(storm(options, given.keep or Path(folder) / "home", say))
    verdict.show()
    print(f"seed {seed}: {'everything holds' if verdict.holds else 'NOT everything holds'}")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
