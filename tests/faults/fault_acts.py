"""Carries the faults of a plan out on a running stack."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import clickhouse_connect
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.clickhouse.accounts import OPERATOR
from pipeline.kafka.clients import make_admin
from pipeline.topics import TOPICS, partition_of
from tests.faults import fault_processes
from tests.faults.fault_evidence import Evidence
from tests.faults.fault_limits import change_limits
from tests.faults.fault_plan import Fault
from tests.faults.fault_site import RIVAL, SECOND, THIRD, FaultSite

_WHOLE_S = 90
_TAKES_OVER_S = 40
"""A further worker starts Python and its screening before it asks for partitions."""
_STARVED = 0.25
"""Share of a span for which stages, all together, waited for a CPU."""


class Mischief:
    """Carries a plan out on a site; what takes a while goes on beside the next faults."""

    def __init__(
        self, site: FaultSite, answered: Callable[[], int], patience_s: float, say: Callable[[str], None]
    ) -> None:
        self._site, self._answered, self._patience_s, self._say = site, answered, patience_s, say
        self.evidence = Evidence(site.stack.home / "logs")
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._number = 0
        self.done: Counter[tuple[str, str]] = Counter()

    async def run(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self._number += 1
            await self._until_answered(fault.answers)
            await asyncio.sleep(fault.wait_s)
            before = self._busy.pop(_place(fault), None)
            if before is not None:
                await before
            if fault.target in self._site.brokers:
                await self._until_whole()
            self._say(f"{self._number} {fault.act} {fault.target}")
            await self._do(fault)
            self.done[fault.act, fault.target] += 1
        await self.finish()

    async def finish(self) -> None:
        """Wait for what goes on."""
        await asyncio.gather(*self._busy.values())
        self._busy.clear()

    async def _until_answered(self, more: int) -> None:
        wanted = self._answered() + more
        for _ in range(int(self._patience_s / 0.05)):
            if self._answered() >= wanted:
                break
            await asyncio.sleep(0.05)

    async def _do(self, fault: Fault) -> None:
        match fault.act:
            case "kill":
                await self._site.send(fault.target, signal.SIGKILL)
            case "end":
                await self._site.send(fault.target, signal.SIGTERM)
            case _:
                acts = {
                    "pause": self._stop,
                    "stop": self._stop,
                    "rival": self._rival,
                    "race": self._race,
                    "full": self._full,
                    "slow": self._slow,
                    "join": self._join,
                    "starve": self._starve,
                    "limits": self._change_limits,
                }
                self._busy[_place(fault)] = asyncio.create_task(acts[fault.act](fault))

    async def _change_limits(self, _: Fault) -> None:
        await change_limits(self._site.stack.settings, random.Random(self._number))

    async def _stop(self, fault: Fault) -> None:
        pid = await self._site.send(fault.target, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.hold_s)
            if fault_processes.stopped(pid):
                self.evidence.count("stopped stage")
        finally:
            await self._site.wake(fault.target, pid)

    async def _slow(self, fault: Fault) -> None:
        """Hold the process still that reads texts for an admit worker, so that its requests wait for screening."""
        worker = self._site.pid(fault.target)
        reader = fault_processes.text_reader(worker) if worker is not None else None
        if reader is None or fault_processes.stopped(reader):
            return
        span = self.evidence.slow(fault.target)
        fault_processes.signal_group(reader, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            span.ended = time.time()
            fault_processes.signal_group(reader, signal.SIGCONT)

    async def _race(self, fault: Fault) -> None:
        """A worker outside of the group decides all that the group decides; one after the other screens slowly."""
        partitions = range(self._site.stack.settings.kafka.partitions)
        chance = random.Random(self._number)
        self._site.start_worker(RIVAL, "admit", "--assign", ",".join(map(str, partitions)))
        try:
            if await self._takes_over(RIVAL):
                until = time.monotonic() + fault.hold_s
                while time.monotonic() < until:
                    worker = chance.choice(("admit", SECOND, RIVAL))
                    await self._slow(Fault("slow", worker, 0, 0, chance.uniform(0.3, 2)))
                    await asyncio.sleep(chance.uniform(0.1, 0.5))
        finally:
            await self._site.end_worker(RIVAL, signal.SIGKILL)

    async def _rival(self, fault: Fault) -> None:
        """A second worker on the partition of one tenant."""
        partition = partition_of(fault.target.encode(), self._site.stack.settings.kafka.partitions)
        name = f"{RIVAL}-{fault.target}"
        self._site.start_worker(name, "admit", "--assign", str(partition))
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            await self._site.end_worker(name, signal.SIGKILL)

    async def _join(self, fault: Fault) -> None:
        """A third member comes and goes, cleanly or not; each time the group shares its partitions anew."""
        chance = random.Random(self._number)
        self._site.start_worker(THIRD, "admit")
        span = self.evidence.joined(THIRD)
        try:
            if await self._takes_over(THIRD):
                slow = Fault("slow", chance.choice(("admit", SECOND, THIRD)), 0, 0, fault.hold_s)
                await self._slow(slow)
        finally:
            span.ended = time.time()
            await self._site.end_worker(THIRD, chance.choice((signal.SIGTERM, signal.SIGKILL)))

    async def _takes_over(self, name: str) -> bool:
        """Wait until a further worker serves a partition; False where it did not in time."""
        log = self._site.log_of(name)
        told = log.read_text("utf-8", "replace").count("took over") if log.exists() else 0
        for _ in range(_TAKES_OVER_S * 10):
            if self._site.pid(name) is None:
                return False
            if log.read_text("utf-8", "replace").count("took over") > told:
                return True
            await asyncio.sleep(0.1)
        return False

    async def _starve(self, fault: Fault) -> None:
        pids, site = self._site.stage_pids, self._site
        waited = fault_processes.waited_s(pids)
        children = await asyncio.to_thread(fault_processes.busy, site.log_of("busy"), fault.hold_s)
        try:
            await asyncio.sleep(fault.hold_s)
            # what a process that was killed meanwhile had waited is not known any more
            if fault_processes.waited_s(pids) - waited > _STARVED * fault.hold_s:
                self.evidence.count("starved CPU")
        finally:
            for child in children:
                child.kill()

    async def _full(self, fault: Fault) -> None:
        await asyncio.to_thread(self._keep_free, 1 << 50)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(self._keep_free, 0)

    def _keep_free(self, size: int) -> None:
        """A table that wants a pebibyte to stay free takes every disk for a full one."""
        ours = self._site.stack.settings.clickhouse.account(OPERATOR)
        place = urlsplit(ours.url)
        for _ in range(120):
            try:
                store = clickhouse_connect.get_client(
                    host=place.hostname,
                    port=place.port,
                    username=ours.user,
                    password=ours.password,
                    database=ours.database,
                )
                for table in ("records", "manifests"):
                    store.command(f"ALTER TABLE {table} MODIFY SETTING min_free_disk_bytes_to_perform_insert = {size}")
                store.close()
                return
            except ClickHouseError:
                # it may be on its way up
                time.sleep(0.5)
        raise AssertionError("the store took no setting within a minute")

    async def _until_whole(self) -> None:
        """Every partition has all its replicas in sync: a cluster must stand the loss of one broker at a time, and one
        that is down already cannot be lost."""
        for _ in range(_WHOLE_S * 4):
            try:
                if await self._whole():
                    return
            except (KafkaError, OSError):
                pass
            await asyncio.sleep(0.25)
        raise AssertionError(f"the cluster was not whole again within {_WHOLE_S} s")

    async def _whole(self) -> bool:
        admin = make_admin(self._site.stack.settings.kafka.endpoint, request_timeout_ms=5000)
        try:
            await admin.start()
            found = await admin.describe_topics([topic.name for topic in TOPICS])
        finally:
            await admin.close()
        want = len(self._site.brokers)
        return bool(found) and all(len(p["isr"]) == want for topic in found for p in topic["partitions"])


def _place(fault: Fault) -> tuple[str, str]:
    """Faults of one place come one after the other: of a process, of its screening, or of the whole machine."""
    return ("screening" if fault.act == "slow" else "process", fault.target)
