"""The embedded stack in a folder of its own, its processes by name, and what became of each."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from pipeline import config, wiring
from pipeline.config import Settings
from pipeline.embedded.stack import LocalStack, Ports, RestartBackoff
from pipeline.embedded.supervisor import LOOPBACK, Child, spawn
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.interpreter import module_command
from pipeline.keys.api_key import kafka_password, parse_key

TENANTS = {"acme": "enterprise", "globex": "team", "initech": "free"}
ROLES = ("http", "records", "hostile")
STAGES = ("gateway", "admit", "generate", "seal", "watch", "notify")
SECOND = "admit-2"
"""The group of admit has two members at all times, so that there is somebody to race with."""
THIRD, RIVAL = "admit-3", "rival"
"""A member that comes and goes, and a worker outside of the group."""
_LOOK_S = 0.2
_OWN_ERRORS = (1, 4)
"""Exit codes of an error nobody foresaw, and of a broken invariant."""


def quiet_port(taken: set[int]) -> int:
    """A free port below the ephemeral range, where no client's end of a connection sits while a server is down."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            if port not in taken and probe.connect_ex((LOOPBACK, port)):
                taken.add(port)
                return port
    raise AssertionError("no free port below the ephemeral range")


def quiet_ports(brokers: int) -> Ports:
    taken: set[int] = set()
    pairs = [(quiet_port(taken), quiet_port(taken)) for _ in range(brokers)]
    return Ports(quiet_port(taken), *pairs[0], quiet_port(taken), tuple(pairs[1:]))


def make_stack(home: Path, brokers: int, overrides: dict[str, str]) -> LocalStack:
    return LocalStack(home, config.cache(), quiet_ports(brokers), overrides)


def producer_endpoint(settings: Settings, key: str) -> KafkaEndpoint:
    """Where the bearer of ``key`` writes records itself."""
    user, secret = parse_key(key)
    security = KafkaSecurity(
        settings.kafka.security_protocol, settings.producers_mechanism, user, kafka_password(secret)
    )
    return KafkaEndpoint(settings.gateway.advertised_bootstrap, security)


class FaultSite:
    """A running stack that is tended; every signal goes to a child that is known to be alive."""

    def __init__(self, stack: LocalStack, overrides: dict[str, str]) -> None:
        self.stack, self.overrides = stack, overrides
        self.keys: dict[str, str] = {}
        self.unasked: Counter[tuple[str, int]] = Counter()
        """Processes that ended without having been told to, by name and exit status."""
        self.downs: list[list[float]] = []
        """When the gateway could not be reached: from, until."""
        self.held = asyncio.Lock()
        self._asked: set[int] = set()
        self._counted: set[int] = set()
        self._workers: dict[str, Child] = {}
        """Workers beside the stack's own."""
        self._pace = RestartBackoff()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await asyncio.to_thread(self.stack.start, lambda text: print(text, file=sys.stderr))
        await self._issue_keys()
        self._tasks = [asyncio.create_task(self._tend()), asyncio.create_task(self._look())]

    async def _issue_keys(self) -> None:
        async with wiring.registry(self.stack.settings) as registry:
            for tenant, plan in TENANTS.items():
                if tenant not in registry.control.tenants:
                    await registry.add_tenant(tenant, plan)
                for role in ROLES:
                    self.keys[f"{tenant}-{role}"] = await wiring.add_producer_key(
                        self.stack.settings, registry, tenant, f"{tenant}-{role}"
                    )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in list(self._workers):
            await self.end_worker(name)
        await asyncio.to_thread(self.stack.stop)

    @property
    def targets(self) -> list[str]:
        return [*STAGES, SECOND, "store", *self.brokers]

    @property
    def brokers(self) -> list[str]:
        return [f"broker-{index + 1}" for index in range(len(self.stack.brokers))]

    def pid(self, name: str) -> int | None:
        """The process id, or None while it does not run."""
        stack = self.stack
        child = stack.stages.get(name) or self._workers.get(name)
        if child is not None:
            return child.pid if child.alive() else None
        if name in (*STAGES, SECOND, THIRD, RIVAL):
            return None
        service = stack.store if name == "store" else stack.brokers[int(name.rsplit("-")[-1]) - 1]
        return service.pid if service is not None and service.alive else None

    async def send(self, name: str, number: signal.Signals) -> int:
        """Send a signal to the named process once it runs; gives its id."""
        for _ in range(3000):
            async with self.held:
                pid = self.pid(name)
                if pid is not None:
                    if number in (signal.SIGKILL, signal.SIGTERM):
                        self._asked.add(pid)
                        if name == "gateway":
                            self.downs.append([time.monotonic(), float("inf")])
                    os.kill(pid, number)
                    return pid
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} did not come back within 300 s")

    async def wake(self, name: str, pid: int) -> None:
        async with self.held:
            if self.pid(name) == pid:
                os.kill(pid, signal.SIGCONT)

    @property
    def stage_pids(self) -> list[int]:
        """Process ids of the stages and workers that run now."""
        return [pid for name in (*STAGES, SECOND) if (pid := self.pid(name)) is not None]

    def start_worker(self, name: str, *words: str, instance: str = "") -> None:
        """Start a further worker of a stage, ``words`` after ``sluice run``; ``instance`` as in the settings."""
        self._workers[name] = spawn(
            module_command("pipeline", "--config", str(self.stack.home / "sluice.toml"), "run", *words),
            name=name,
            log=self.log_of(name),
            env={**self.stack.environment(words[0]), **self.overrides, "SLUICE_KAFKA__INSTANCE": instance},
        )

    def start_second(self) -> None:
        """Give admit's group its second member, which is supervised from then on."""
        self.start_worker(SECOND, "admit", instance="1")

    async def end_worker(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a further worker, cleanly or at once."""
        child = self._workers.pop(name)
        self._note(child)
        if number == signal.SIGKILL:
            child.kill()
        await asyncio.to_thread(child.terminate)

    def log_of(self, name: str) -> Path:
        return self.stack.home / "logs" / f"{name}.log"

    def was_down(self, began: float, ended: float) -> bool:
        """Whether the gateway was away at some moment of the span."""
        return any(since <= ended and began <= until for since, until in self.downs)

    @property
    def own_errors(self) -> int:
        return sum(count for (_, status), count in self.unasked.items() if status in _OWN_ERRORS)

    async def _tend(self) -> None:
        while True:
            async with self.held:
                for child in (*self.stack.stages.values(), *self._workers.values()):
                    self._note(child)
                await asyncio.to_thread(self.stack.supervise_once)
                self._supervise_second()
            await asyncio.sleep(_LOOK_S)

    def _note(self, child: Child) -> None:
        """Count a process that ended without having been told to."""
        if child.alive() or child.pid in self._counted | self._asked:
            return
        self._counted.add(child.pid)
        self.unasked[child.name, child.returncode or 0] += 1
        if child.name == "gateway":
            self.downs.append([time.monotonic() - 2 * _LOOK_S, float("inf")])

    def _supervise_second(self) -> None:
        child = self._workers.get(SECOND)
        if child is not None and not child.alive() and self._pace.due():
            self._pace.again()
            self.start_second()

    async def _look(self) -> None:
        """Close the spans in which the gateway was away once it answers again."""
        while True:
            down = bool(self.downs) and self.downs[-1][1] == float("inf")
            # one that was told to end answers until it has
            ending = self.pid("gateway") in self._asked
            if down and not ending and await asyncio.to_thread(self._answers):
                self.downs[-1][1] = time.monotonic()
            await asyncio.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.stack.url}/healthz", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False
