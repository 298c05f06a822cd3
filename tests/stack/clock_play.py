"""Admit workers whose clocks are wrong, on a real broker: what they answer to requests, and what they say of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from pipeline.admit.rules import RULES
from pipeline.audit.replay import Replay
from pipeline.embedded.supervisor import Child, free_port, spawn
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision, LogRecord
from pipeline.kafka.writer import Publisher
from tests.admit_site import history, read, valid
from tests.deployment_site import Deployment
from tests.patience import looks

_ROOT = Path(__file__).parents[2]
Readiness = dict[str, Any]


class ClockedWorker:
    """An admit process whose clock is ``ahead_ms`` ahead of this machine's."""

    def __init__(self, deployment: Deployment, name: str, ahead_ms: int, *partitions: str) -> None:
        home = deployment.home / name
        home.mkdir()
        self._clock, self._log, self.port = home / "clock", home / "admit.log", free_port()
        config = home / "sluice.toml"
        config.write_text(
            f'[kafka]\nbootstrap = "{deployment.bootstrap}"\ninstance = "{name}"\n'
            f'[keys]\nhome = "{deployment.home}/keys"\n[status]\nport = {self.port}\n'
        )
        self.set_clock(ahead_ms)
        argv = [sys.executable, str(Path(__file__).with_name("clocked_admit.py")), str(self._clock), str(config)]
        env = {"PYTHONPATH": str(_ROOT)}
        self.child: Child = spawn([*argv, *partitions], name=f"admit-{name}", log=self._log, env=env)

    def set_clock(self, ahead_ms: int) -> None:
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{ahead_ms:+d}")
        fresh.replace(self._clock)

    def log(self) -> str:
        return self._log.read_text()

    async def until_ready(self, ready: bool, says: str = "") -> Readiness:
        """Wait until /readyz says so, with a fault that has ``says`` in it."""
        told: Readiness = {}
        async with aiohttp.ClientSession() as http:
            for _ in looks():
                try:
                    async with http.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                        told = await answer.json()
                        assert (answer.status == 200) == told["ready"]
                except aiohttp.ClientError:
                    told = {"ready": None, "faults": []}
                if told["ready"] is ready and says in " ".join(told["faults"]):
                    return told
                await asyncio.sleep(0.1)
        raise AssertionError(f"{told}; its log ends:\n{self.child.log_tail()}")

    async def metric(self, name: str) -> float:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))

    def stop(self) -> None:
        self.child.terminate()


class Requests:
    """Genuine requests of one tenant, by a sender with a clock of its own."""

    def __init__(self, deployment: Deployment, session: str) -> None:
        self._deployment, self._session = deployment, session
        self._publisher = Publisher(deployment.kafka)
        self._asked = 0

    async def ask(self, ahead_ms: int = 0, partition: int = 0, tenant: str = "acme") -> None:
        self._asked += 1
        at = time.time_ns() // 1_000_000 + ahead_ms
        value, headers = self._deployment.request(
            tenant, f"{self._session}-{self._asked}", counter=self._asked, session=self._session, at=at,
            timeout_ms=60_000,
        )  # fmt: skip
        await self._publisher.send("requests", partition, b"o", value, headers)

    async def answered(self, workers: Sequence[ClockedWorker]) -> list[Decision]:
        """The decisions of this sender's requests, once there is one for each."""
        mine: list[Decision] = []
        for _ in looks():
            records = await history(self._deployment.bootstrap)
            mine = [r for r in records if isinstance(r, Decision) and r.facts.session == self._session]
            if len(mine) >= self._asked:
                return mine
            await asyncio.sleep(0.1)
        logs = "\n".join(worker.child.log_tail() for worker in workers)
        raise AssertionError(f"{len(mine)} of {self._asked} requests were decided; the logs end:\n{logs}")

    async def close(self) -> None:
        await self._publisher.close()


async def faults_of(deployment: Any) -> list[str]:
    """What a verifier says of the log, with the append times that the broker gave."""
    control = [(item.offset, item.value) for item in await read(deployment.bootstrap, "control")]
    replay = Replay(RULES, 0, control, pin=deployment.pin)
    entries = await valid(deployment.bootstrap)
    return [fault for entry in entries for fault in _pushed(replay, decode_log(entry.value), entry)]


def _pushed(replay: Replay, record: LogRecord, entry: Any) -> list[str]:
    return replay.push(record, entry.value, entry.time)
