"""Hours of a copying account and of a colleague beside it, played to a real admit process on a real broker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.embedded.supervisor import Child, spawn
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Response
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.clients import make_admin, make_producer
from pipeline.topics import TOPICS
from tests.admit_site import completion, history, read
from tests.deployment_site import Deployment
from tests.patience import looks

ROUNDS, ASKED, GAP_MS = 24, 3, 100_000
"""Rounds of that many requests of the copying account and one of the colleague, so far apart that the plan ``free``
allows them all."""
ROUND_MS = (ASKED + 1) * GAP_MS
TIMEOUT_MS = 600_000
"""Longer than a round, so that none of it expires before it is reported."""
_ROOT = Path(__file__).parents[2]
_WORDS = ("dog", "river", "lamp", "violin", "comet", "bakery", "orchard", "turbine", "canyon", "letter", "harbour")
_QUESTIONS = (
    "What is the capital of Mongolia?",
    "Write a birthday poem for my grandmother who loves gardening and strong coffee.",
    "Why does bread dough rise faster in summer than in winter?",
    "How do I remove a red wine stain from a wool carpet?",
    "Which vitamins are in kale, and how much should one eat a day?",
    "我想学做红烧肉，应该准备哪些调料？",
    "Suggest five names for a small bakery near the sea.",
)


def _harvest(number: int) -> str:
    one, other = _WORDS[number % 11], _WORDS[number // 11 % 11]
    return f"What does a {one} share with a {other}? Explain your reasoning step by step before the final answer."


async def tell_time(bootstrap: str) -> None:
    """Let producers tell the time of requests and completions, which the broker else does."""
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        for topic in TOPICS:
            if topic.name in ("requests", "completions"):
                configs = {**topic.config(1), "message.timestamp.type": "CreateTime"}
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs)])
    finally:
        await admin.close()


class Play:
    """An admit process with a clock of its own, and what was asked of it. ``start``: Unix ms of the first request."""

    def __init__(self, deployment: Deployment, tenant: str, start: int) -> None:
        self.deployment, self.tenant, self.now = deployment, tenant, start
        self._home = deployment.home / f"play-{tenant}"
        self._home.mkdir()
        self._clock, self._config = self._home / "clock", self._home / "sluice.toml"
        self._config.write_text(
            f'[kafka]\nbootstrap = "{deployment.bootstrap}"\n[keys]\nhome = "{deployment.home}/keys"\n'
            "[admit]\nsnapshot_every = 100\n"
        )
        self._producer = make_producer(deployment.kafka)
        self._asked = 0
        self._before = 0
        self.child: Child | None = None

    async def __aenter__(self) -> Play:
        await self._producer.start()
        self._before = _count(await history(self.deployment.bootstrap))
        self._set_clock()
        self._run()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        if self.child is not None:
            self.child.terminate()

    async def play(self, killed: Sequence[int] = ()) -> list[Decision]:
        """All decisions; in the rounds ``killed`` the process is killed, by turns before and after it decided."""
        for number in range(ROUNDS):
            await self._round(number)
            if number in killed[::2]:
                self._kill()
            records = await self._until(Decision)
            if number in killed[1::2]:
                self._kill()
            await self._report(records)
            await self._until(Outcome)
        found = await history(self.deployment.bootstrap)
        return [r for r in found if isinstance(r, Decision)][self._before :]

    async def refusals(self) -> list[Response]:
        """What the tenant's callers were told."""
        told = [decode(Response, item.value) for item in await read(self.deployment.bootstrap, "responses")]
        return [r for r in told if r.event == "refusal" and r.tenant == self.tenant]

    async def _round(self, number: int) -> None:
        records = []
        for place in range(ASKED + 1):
            self.now += GAP_MS
            mine = place < ASKED
            who = "eve" if mine else "bob"
            text = _harvest(number * ASKED + place) if mine else _QUESTIONS[number % len(_QUESTIONS)] + f" ({number})"
            self._asked += 1
            value, headers = self.deployment.request(
                self.tenant,
                f"{who}-{self._asked}",
                text,
                counter=self._asked,
                at=self.now,
                key=f"{self.tenant}-{who}",
                timeout_ms=TIMEOUT_MS,
            )
            records.append((self.now, value, headers))
        self._set_clock()
        await self._put("requests", records)

    async def _report(self, records: Sequence[LogRecord]) -> None:
        ended = {r.request for r in records if isinstance(r, Outcome)}
        waiting = [r for r in records if isinstance(r, Decision) and r.verdict == "admit" and r.request not in ended]
        reports = [completion(self.deployment, decision) for decision in waiting]
        await self._put("completions", [(self.now, encode(report), []) for report in reports])

    async def _put(self, topic: str, records: Sequence[tuple[int, bytes, Any]]) -> None:
        if not records:
            return
        batch = self._producer.create_batch()
        for time, value, headers in records:
            batch.append(timestamp=time, key=b"o", value=value, headers=headers)
        await (await self._producer.send_batch(batch, topic, partition=0))

    async def _until(self, kind: type[Decision] | type[Outcome]) -> list[LogRecord]:
        """The log once everything asked was decided, or everything admitted has its outcome."""
        for _ in looks():
            records = await history(self.deployment.bootstrap)
            decided = [r for r in records if isinstance(r, Decision)]
            if kind is Decision:
                done = len(decided) >= self._before + self._asked
            else:
                admitted = {d.request for d in decided if d.verdict == "admit"}
                done = admitted <= {r.request for r in records if isinstance(r, Outcome)}
            if done:
                return records
            await asyncio.sleep(0.1)
        raise AssertionError(f"admit did not answer; its log ends:\n{self.child.log_tail() if self.child else ''}")

    def _set_clock(self) -> None:
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(str(self.now))
        fresh.replace(self._clock)

    def _kill(self) -> None:
        assert self.child is not None
        assert self.child.alive(), self.child.log_tail()
        self.child.kill()
        self._run()

    def _run(self) -> None:
        argv = [
            sys.executable,
            str(Path(__file__).with_name("clocked_admit.py")),
            str(self._clock),
            str(self._config),
            "0",
        ]
        env = {"PYTHONPATH": str(_ROOT)}
        self.child = spawn(argv, name=f"admit-{self.tenant}", log=self._home / "admit.log", env=env)


def _count(records: Sequence[LogRecord]) -> int:
    return sum(isinstance(r, Decision) for r in records)
