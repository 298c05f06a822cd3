"""The embedded deployment: broker, store and every stage as child processes of this one, kept in one folder."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline import config, wiring
from pipeline.config import Settings
from pipeline.control.policy_file import read_policies
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.local_accounts import LocalAccounts
from pipeline.embedded.local_kafka import BrokerPorts, LocalKafka
from pipeline.embedded.pools import LocalPools
from pipeline.embedded.status_ports import StatusPorts
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import LOOPBACK, Child, Supervisor, await_answer, require_port, spawn
from pipeline.errors import ConfigError, Retryable
from pipeline.interpreter import module_command, module_environment
from pipeline.keys.rights import ALL_BUT_OWNER, take_rights

_log = logging.getLogger(__name__)
Say = Callable[[str], None]
DEFAULT_POLICIES = Path(__file__).parents[1] / "control" / "policies" / "default.toml"
_READY_S = 180.0
_GRACE_S = 15.0
_BACK_OFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
_GIVE_WAY = frozenset({"seal", "watch", "notify"})
"""Stages that no caller waits for; the store does as well."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All on loopback; each is named by its flag when it is taken."""

    gateway: int
    kafka: int
    controller: int
    clickhouse: int
    others: tuple[tuple[int, int], ...] = ()
    """Kafka and controller ports of further brokers; two more make a replicated cluster."""
    producers: int = 0
    """Of the first broker's listener for direct producers; 0: one that is free, as the further brokers have."""


@dataclass(slots=True)
class RestartBackoff:
    """Counts how often something had to be started again; the next time comes later each time."""

    began: float = field(default_factory=time.monotonic)
    restarts: int = 0

    def due(self) -> bool:
        """Tell whether what has ended may start now; what ran a minute starts over at once."""
        if time.monotonic() - self.began > _STEADY_S:
            self.restarts = 0
        return time.monotonic() - self.began >= _BACK_OFF_S[min(self.restarts, len(_BACK_OFF_S) - 1)]

    def again(self) -> None:
        self.began, self.restarts = time.monotonic(), self.restarts + 1


class LocalStack:
    """Everything on one machine. ``start``, then ``supervise_once`` now and then, then ``stop``."""

    authenticates = True

    def __init__(self, home: Path, cache: Path, ports: Ports, overrides: dict[str, str] | None = None) -> None:
        self.home = home.absolute()
        self._ports = ports
        self._overrides = overrides or {}
        self._supervisor = Supervisor()
        self._lock: IO[str] | None = None
        self.stages: dict[str, Child] = {}
        self._kafka = LocalKafka(self.home, cache, self._supervisor, authenticates=self.authenticates)
        self._accounts = LocalAccounts(self.home / "keys", authenticates=self.authenticates)
        self.store: EmbeddedStore | None = None
        self._paces: dict[str, RestartBackoff] = {}
        self._pools = LocalPools(self.home / "pools")
        self.status_ports = StatusPorts(self.home)

    @property
    def settings(self) -> Settings:
        """The stages run with these."""
        return config.load(self.home / "sluice.toml", self._overrides)

    @property
    def brokers(self) -> list[EmbeddedBroker]:
        return self._kafka.brokers

    @property
    def bootstrap(self) -> str:
        return self._kafka.bootstrap

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports.gateway}"

    def start(self, say: Say, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Set up what is missing, start everything, wait for the first readiness. Raises ConfigError, Retryable.

        ``meanwhile`` is called where there is nothing to do but wait.
        """
        self._take_home(say)
        first = BrokerPorts(self._ports.kafka, self._ports.controller, self._ports.producers)
        self._kafka.make([first, *(BrokerPorts(*others) for others in self._ports.others)])
        self._write_config()
        require_port(LOOPBACK, self._ports.gateway, "--port", "the gateway")
        self.brokers[0].ensure_fetched(say)
        say("starting Kafka and ClickHouse")
        self.store = EmbeddedStore(
            StoreSettings(self.home / "clickhouse", self._ports.clickhouse, passwords=self._accounts.folder),
            self._supervisor,
        )
        self._kafka.launch()
        self.store.launch()
        if not self.settings.keys.keyring.exists():
            wiring.prepare(self.settings)
        if self.settings.keys.pin and self._kafka.knows_stages:
            # its model loads meanwhile; the other stages would only wait
            self._start_stage("generate")
        meanwhile()
        self._kafka.await_ready()
        self.store.await_ready()
        self._set_up(say)
        say("starting the stages")
        for stage in wiring.STAGES:
            if stage not in self.stages:
                self._start_stage(stage)
        self.status_ports.keep(set(self.stages))
        self._pools.start(self.settings)
        self._await_ready()

    def supervise_once(self) -> None:
        """Start again what has ended, later each time, without waiting for it."""
        for index, broker in enumerate(self.brokers):
            self._supervise_service(f"kafka-{index + 1}", broker)
        if self.store is not None:
            self._supervise_service("clickhouse", self.store)
        for stage, child in [(name, child) for name, child in self.stages.items() if name in wiring.STAGES]:
            pace = self._paces.setdefault(stage, RestartBackoff())
            if not child.alive() and pace.due():
                _log.warning("%s ended with status %s; starting it again", stage, child.returncode)
                pace.again()
                self._supervisor.remove(child)
                self._start_stage(stage)
        self._supervise_pools()

    def _supervise_pools(self) -> None:
        """Workers that isolated tenants ask for; none of them holds the others up."""
        for name in sorted(self._pools.wanted()):
            pace, child = self._paces.setdefault(name, RestartBackoff()), self.stages.get(name)
            if (child is not None and child.alive()) or not (child is None or pace.due()):
                continue
            pace.again()
            if child is not None:
                _log.warning("%s ended with status %s; starting it again", name, child.returncode)
                self._supervisor.remove(self.stages.pop(name))
            try:
                self._start_stage(name)
            except (Retryable, ConfigError) as fault:
                _log.warning("%s is not started yet: %s", name, fault)

    def _supervise_service(self, name: str, service: EmbeddedBroker | EmbeddedStore) -> None:
        pace = self._paces.setdefault(name, RestartBackoff())
        if not service.alive and pace.due():
            _log.warning("%s ended; starting it again", name)
            pace.again()
            service.stop()
            service.launch()

    def stop(self) -> None:
        """End everything in order: stages first, so that what they hold is written."""
        self._pools.stop()
        children = list(self.stages.values())
        for child in children:
            child.ask()
        for child in children:
            child.terminate(_GRACE_S)
            self._supervisor.remove(child)
        self.stages.clear()
        self._supervisor.stop_all(_GRACE_S)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start_stage(self, stage: str) -> None:
        """A stage, or ``generate.TENANT`` for a tenant's own worker."""
        words, own = [stage], {"SLUICE_STATUS__PORT": str(self.status_ports.take(stage))}
        if stage not in wiring.STAGES:
            words, keys = self._pools.run(stage)
            own |= keys | self._kafka.admit_pool(words[-1])
        child = spawn(
            module_command("pipeline", "--config", str(self.home / "sluice.toml"), "run", *words),
            name=stage,
            log=self.home / "logs" / f"{stage}.log",
            env={**self.environment(words[0]), **own, "SLUICE_KAFKA__INSTANCE": "0", **_UNBUFFERED},
            gives_way=stage in _GIVE_WAY,
        )
        self._supervisor.add(child)
        self.stages[stage] = child

    def environment(self, stage: str) -> dict[str, str]:
        """Give what makes a process ``stage`` of this deployment; by ``sluice.toml`` alone it is an operator's."""
        users = {**self._kafka.environment(stage), **self._accounts.environment(stage)}
        return {**module_environment(), **self._overrides, **users}

    def _take_home(self, say: Say) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.home, self.home / "keys"):
            if folder.exists():
                for told in take_rights(folder, ALL_BUT_OWNER, inside=folder != self.home):
                    say(told)
        self._lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"a stack already runs in {self.home}; stop it, or choose another folder with --home"
            ) from None

    def _write_config(self) -> None:
        """The settings that the stages and later commands use; ports may change between starts."""
        self._accounts.ensure_passwords()
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
            for section, fields in self._sections().items()
        )
        partial = self.home / "sluice.toml.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        partial.replace(self.home / "sluice.toml")

    def _sections(self) -> dict[str, dict[str, object]]:
        ports = self._ports
        replication = min(3, len(self.brokers))
        return {
            "kafka": {**self._kafka.operator_section, "replication": replication},
            "clickhouse": {"url": f"http://{LOOPBACK}:{ports.clickhouse}", **self._accounts.operator_section},
            "keys": {"home": str(self.home / "keys")},
            "models": {"home": str(self.home / "models")},
            "gateway": {"host": LOOPBACK, "port": ports.gateway, **self._kafka.gateway_section},
            "notify": {"allow_private": True},
        }

    def _set_up(self, say: Say) -> None:
        settings = self.settings
        asyncio.run(wiring.apply_topics(settings, say))
        wiring.apply_tables(settings)
        asyncio.run(self._policies(settings))

    async def _policies(self, settings: Settings) -> None:
        async with wiring.registry(settings) as registry:
            if not registry.control.plans:
                await registry.apply_policies(read_policies(DEFAULT_POLICIES))

    def _await_ready(self) -> None:
        def probe() -> None:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):  # noqa: S310 - our own loopback URL
                return

        await_answer(f"the gateway at {self.url}", list(self.stages.values()), probe, _READY_S)
