"""Which faults come, in which order and after which pauses: a function of the seed alone; and carrying them out."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import clickhouse_connect
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipeline.kafka.clients import make_admin
from pipeline.topics import TOPICS, partition_of
from tests.faults.fault_site import TENANTS, FaultSite

Act = Literal["kill", "pause", "end", "rival", "full"]
PAUSED = ("admit", "generate", "seal")
_EVERY = 100
"""One set of the other faults for each so many kills."""
_WHOLE_S = 90


@dataclass(frozen=True, slots=True)
class Fault:
    """Once so many more calls were answered, and ``wait_s`` later, do ``act`` to ``target``; what does not end at once
    lasts ``hold_s``."""

    act: Act
    target: str
    answers: int
    wait_s: float
    hold_s: float = 0.0


def plan(seed: int, kills: int, targets: list[str], wave: float, hold_s: float) -> list[Fault]:
    """Every target is killed once at least; pauses, clean restarts, rivals and a full store lie between.

    Faults come in waves of ``wave`` on average: at most a second apart within one, and the next only when the system
    answers again, or all would be spent on a system that is down already.
    """
    chance = random.Random(seed)
    first = [targets[index % len(targets)] for index in range(min(kills, len(targets)))]
    drawn: list[tuple[Act, str, float]] = [("kill", t, 0.0) for t in first]
    drawn += [("kill", chance.choice(targets), 0.0) for _ in range(kills - len(first))]
    for _ in range(-(-kills // _EVERY)):
        drawn += [("pause", stage, hold_s) for stage in PAUSED]
        drawn += [("end", "store", 0.0), ("end", chance.choice([t for t in targets if "broker" in t]), 0.0)]
        drawn += [("rival", tenant, hold_s) for tenant in ("acme", "globex")]
        drawn.append(("full", "store", hold_s / 2))
    chance.shuffle(drawn)
    return [
        Fault(act, target, 0 if chance.random() * wave > 1 else chance.randint(1, 20), chance.uniform(0, 1), hold)
        for act, target, hold in drawn
    ]


class Mischief:
    """Carries a plan out on a site; what takes a while goes on beside the next faults."""

    def __init__(
        self, site: FaultSite, answered: Callable[[], int], patience_s: float, say: Callable[[str], None]
    ) -> None:
        self._site, self._answered, self._patience_s, self._say = site, answered, patience_s, say
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._rivals = 0
        self.done: Counter[tuple[str, str]] = Counter()

    async def run(self, faults: list[Fault]) -> None:
        for number, fault in enumerate(faults, 1):
            await self._until_answered(fault.answers)
            await asyncio.sleep(fault.wait_s)
            before = self._busy.pop(fault.target, None)
            if before is not None:
                await before
            if fault.target in self._site.brokers:
                await self._until_whole()
            self._say(f"{number}/{len(faults)} {fault.act} {fault.target}")
            await self._do(fault)
            self.done[fault.act, fault.target] += 1
        await asyncio.gather(*self._busy.values())

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
            case "pause":
                pid = await self._site.send(fault.target, signal.SIGSTOP)
                self._busy[fault.target] = asyncio.create_task(self._wake(fault, pid))
            case "rival":
                self._busy[fault.target] = asyncio.create_task(self._rival(fault))
            case "full":
                self._busy[fault.target] = asyncio.create_task(self._full(fault))

    async def _wake(self, fault: Fault, pid: int) -> None:
        await asyncio.sleep(fault.hold_s)
        await self._site.wake(fault.target, pid)

    async def _rival(self, fault: Fault) -> None:
        assert fault.target in TENANTS
        self._rivals += 1
        partition = partition_of(fault.target.encode(), self._site.stack.settings.kafka.partitions)
        child = await asyncio.to_thread(self._site.rival, partition, self._rivals)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            child.kill()

    async def _full(self, fault: Fault) -> None:
        await asyncio.to_thread(self._keep_free, 1 << 50)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(self._keep_free, 0)

    def _keep_free(self, size: int) -> None:
        """A table that wants a pebibyte to stay free takes every disk for a full one."""
        ours = self._site.stack.settings.clickhouse
        place, access = urlsplit(ours.url), ours.password.get_secret_value()
        for _ in range(120):
            try:
                store = clickhouse_connect.get_client(
                    host=place.hostname, port=place.port, username=ours.user, password=access, database=ours.database
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
