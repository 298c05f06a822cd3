"""Rolls a home of an older build to this one under load, then counts. ``make roll FROM=COMMIT HOME_OF=FOLDER``.

The home is aged first: what retention takes in eight days is gone, ``decisions`` below the newest snapshot as well.
Then workers of this build join those of the other, one stage after the other, and take over; exit 0 if all holds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.demo.reconcile import Equation, count_log, count_store, equations, reconcile
from pipeline.events.records import Upgrade
from pipeline.interpreter import module_command, module_environment
from tests.faults import fault_account
from tests.faults.fault_load import Crowd
from tests.faults.fault_site import SECOND, FaultSite
from tests.faults.roll_site import Build, RollingSite, RollingStack
from tests.faults.verdict import Verdict, verified

Say = Callable[[str], None]
_READERS = ("generate", "seal", "watch", "notify")
"""Whoever reads what admit writes is rolled before it: an older seal would seal what it cannot read."""
_ANSWERS = 40
"""Answered calls between two steps."""
_FILL = 250
_LOOKS, _LOOK_S = 1200, 0.1
_SETTLED_S = 120.0


class Roll:
    """A stack of the older build under load, step by step replaced."""

    def __init__(self, site: FaultSite, stack: RollingStack, say: Say) -> None:
        self._site, self._stack, self._say = site, stack, say
        self._crowd = Crowd(stack.url, site.keys, 1, 12_000, 100_000)

    async def run(self) -> None:
        load = asyncio.create_task(self._crowd.run())
        try:
            await self._answers("workers of the older build alone")
            self._site.start_worker("generate-2", "generate", instance="1")
            await self._answers("generate of both builds share the work")
            for stage in _READERS:
                await self._replace(stage)
            self._site.start_worker(SECOND, "admit", instance="1")
            await self._answers("admit of both builds share the partitions")
            await self._site.end_worker(SECOND, signal.SIGKILL)
            await self._answers("the newer admit is gone, and what it lifted is not the older one's to decide", 5)
            self._site.start_worker(SECOND, "admit", instance="1")
            await self._answers("it is back")
            for stage in ("admit", "gateway"):
                await self._replace(stage)
        finally:
            self._crowd.stop.set()
        await load

    async def fill(self) -> None:
        """Have the older build decide enough for a snapshot in every partition that has traffic."""
        load = asyncio.create_task(self._crowd.run())
        try:
            await self._answers("workers of the older build fill it", _FILL)
        finally:
            self._crowd.stop.set()
        await load
        lines = await asyncio.to_thread(reconcile, self._stack.settings, _SETTLED_S)
        assert all(line.holds for line in lines), f"the older build does not come to rest: {lines}"

    async def count(self) -> Verdict:
        settings, verdict = self._stack.settings, Verdict()
        verdict.lines += await self._reconciled()
        log = await fault_account.read_log(settings)
        balance, _ = fault_account.tokens(log)
        limits, _ = fault_account.ceilings(log)
        verdict.lines += fault_account.once(log) + balance + limits
        verdict.lines += fault_account.callers(self._site, self._crowd.calls, log)
        marks = sum(isinstance(record, Upgrade) for records in log.records for record in records)
        deciders = sorted({record.decider for _, record in log.decisions()})
        verdict.lines += [
            *(await verified(settings))[0],
            Equation("upgrade marks = partitions", marks, settings.kafka.partitions),
            Equation("deciders in the log = 2", len(deciders), 2),
            Equation("exit status of sluice audit verify = 0", await self._verify_by_command(), 0),
            Equation("partitions with decisions cut >= 2", min(2, sum(at > 0 for at in self._stack.cut)), 2),
        ]
        verdict.figures = [
            ("decisions begin at", str(self._stack.cut)),
            ("deciders", str(deciders)),
            *((f"decisions by decider {n}", sum(r.decider == n for _, r in log.decisions())) for n in deciders),
            ("calls", len(self._crowd.calls)),
            *((f"calls: {name}", count) for name, count in self._crowd.finals.most_common()),
            *fault_account.results(log).items(),
            *((f"ended unasked: {name}, status {status}", n) for (name, status), n in self._site.unasked.items()),
        ]
        return verdict

    async def _replace(self, stage: str) -> None:
        """End the older worker of a stage; the supervisor starts one of this build in its place."""
        self._stack.rolled.add(stage)
        await self._site.send(stage, signal.SIGTERM)
        await self._answers(f"{stage} is of this build")

    async def _answers(self, what: str, more: int = _ANSWERS) -> None:
        """Wait until callers got answers, or as long as one would be stuck for."""
        self._say(what)
        wanted = self._crowd.answered + more
        for _ in range(_LOOKS):
            if self._crowd.answered >= wanted:
                return
            await asyncio.sleep(_LOOK_S)
        raise AssertionError(f"{what}: {self._crowd.answered - wanted + more} of {more} calls were answered")

    async def _reconciled(self) -> list[Equation]:
        """The log with what was deleted from it, against the store, once everything is sealed."""
        began = time.monotonic()
        while True:
            stored = await asyncio.to_thread(count_store, self._stack.settings)
            lines = equations(await count_log(self._stack.settings) + self._stack.gone, stored)
            if all(line.holds for line in lines) or time.monotonic() - began > _SETTLED_S:
                return lines
            await asyncio.sleep(0.5)

    async def _verify_by_command(self) -> int:
        argv = module_command("pipeline", "--config", str(self._stack.home / "sluice.toml"), "audit", "verify")
        child = await asyncio.create_subprocess_exec(*argv, env=os.environ | module_environment(), stdout=sys.stderr)
        return await child.wait()


async def roll(home: Path, build: Build, say: Say) -> Verdict:
    """Age the home, start it on the older build, roll it to this one under load, count."""
    stack, site = _site(home, build, aged=True)
    try:
        await site.start()
        rolling = Roll(site, stack, say)
        await rolling.run()
        return await rolling.count()
    finally:
        await site.stop()


async def make_home(home: Path, build: Build, say: Say) -> None:
    """Let the older build's own demonstration make a home, and its stages go on until they have written snapshots."""
    say("the older build makes a home")
    argv = build.command("--home", str(home), "demo", "--once")
    await asyncio.to_thread(subprocess.run, argv, env=os.environ | build.environment, check=True, stdout=sys.stderr)
    stack, site = _site(home, build, aged=False)
    try:
        await site.start()
        await Roll(site, stack, say).fill()
    finally:
        await site.stop()


def _site(home: Path, build: Build, *, aged: bool) -> tuple[RollingStack, FaultSite]:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    overrides = {
        "SLUICE_GENERATE__MODEL": "echo",
        "SLUICE_GENERATE__ECHO_DELAY_MS": "50",
        "SLUICE_ADMIT__SNAPSHOT_EVERY": "100",
    }
    stack = RollingStack(home, build, overrides, aged=aged)
    return stack, RollingSite(stack, overrides)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="commit of the older build, in this repository")
    parser.add_argument("--home", type=Path, help="folder that the older build left; a copy of it is rolled")
    parser.add_argument("--keep", type=Path, help="folder for the copy, kept afterwards")
    given = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="sluice-roll-") as folder:
        build, home = Build(given.commit, Path(folder) / "build"), given.keep or Path(folder) / "home"
        if given.home is not None:
            shutil.copytree(given.home, home, symlinks=True)
        else:
            asyncio.run(make_home(home, build, say))
        verdict = asyncio.run(roll(home, build, say))
    verdict.show()
    print("everything holds" if verdict.holds else "NOT everything holds")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
