"""The embedded deployment: broker, store and every stage as child processes of this one, kept in one folder."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline import config, wiring
from pipeline.adapters.embedded.broker import BrokerSettings, EmbeddedBroker
from pipeline.adapters.embedded.store import EmbeddedStore, StoreSettings
from pipeline.adapters.embedded.supervisor import LOOPBACK, Child, Supervisor, require_port, spawn
from pipeline.adapters.registry import read_policies
from pipeline.config import Settings
from pipeline.errors import ConfigError, Retryable

_log = logging.getLogger(__name__)
Say = Callable[[str], None]
DEFAULT_POLICIES = Path(__file__).parent / "policies" / "default.toml"
_READY_S = 90.0
_GRACE_S = 15.0
_BACK_OFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class Ports:
    """All on loopback; each is named by its flag when it is taken."""

    gateway: int
    kafka: int
    controller: int
    clickhouse: int


@dataclass(slots=True)
class Running:
    """A stage process and how often it had to be started again."""

    child: Child
    began: float = field(default_factory=time.monotonic)
    restarts: int = 0


class LocalStack:
    """Everything on one machine. ``start``, then ``tend`` now and then, then ``stop``."""

    def __init__(self, home: Path, cache: Path, ports: Ports, overrides: dict[str, str] | None = None) -> None:
        self.home, self._ports, self._overrides = home.absolute(), ports, overrides or {}
        self._supervisor = Supervisor()
        self._lock: IO[str] | None = None
        self._cache = cache
        self.stages: dict[str, Running] = {}
        brokers = BrokerSettings(self.home / "kafka", cache, ports.kafka, ports.controller)
        self.broker = EmbeddedBroker(brokers, self._supervisor)
        self._password = ""
        self.store: EmbeddedStore | None = None

    @property
    def settings(self) -> Settings:
        """What the stages run with."""
        return config.load(self.home / "sluice.toml", self._overrides)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports.gateway}"

    def start(self, say: Say) -> None:
        """Set up what is missing, start everything, wait for the first readiness. Raises ConfigError, Retryable."""
        self._take_home()
        self._write_config()
        require_port(LOOPBACK, self._ports.gateway, "--port", "the gateway")
        self.broker.ensure_fetched(say)
        say("starting Kafka and ClickHouse")
        self.store = EmbeddedStore(
            StoreSettings(self.home / "clickhouse", self._ports.clickhouse, self._password), self._supervisor
        )
        self.broker.launch()
        self.store.launch()
        # its model loads meanwhile; the other stages would only wait
        self._start_stage("generate")
        self.broker.await_ready()
        self.store.await_ready()
        self._set_up()
        say("starting the stages")
        for stage in wiring.STAGES:
            if stage not in self.stages:
                self._start_stage(stage)
        self._await_ready()

    def tend(self) -> None:
        """Start again what has ended, later each time; a stage that ran a minute starts over at once."""
        for service in (self.broker, self.store):
            if service is not None and not service.alive:
                _log.warning("%s ended; starting it again", type(service).__name__)
                service.stop()
                service.start()
        for stage, running in self.stages.items():
            if running.child.alive():
                continue
            if time.monotonic() - running.began > _STEADY_S:
                running.restarts = 0
            pause = _BACK_OFF_S[min(running.restarts, len(_BACK_OFF_S) - 1)]
            if time.monotonic() - running.began >= pause:
                _log.warning("%s ended with status %s; starting it again", stage, running.child.returncode)
                self._supervisor.remove(running.child)
                restarts = running.restarts + 1
                self._start_stage(stage)
                self.stages[stage].restarts = restarts

    def stop(self) -> None:
        """End everything in order: stages first, so that what they hold is written."""
        children = [running.child for running in self.stages.values()]
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
        child = spawn(
            [sys.executable, "-m", "pipeline", "--config", str(self.home / "sluice.toml"), "run", stage],
            name=stage,
            log=self.home / "logs" / f"{stage}.log",
            env={**self._overrides, "PYTHONUNBUFFERED": "1"},
        )
        self._supervisor.add(child)
        self.stages[stage] = Running(child)

    def _take_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"a stack already runs in {self.home}; stop it, or choose another folder with --home"
            ) from None

    def _write_config(self) -> None:
        """The settings that the stages and later commands use; ports may change between starts, the password not."""
        secret = self.home / "keys" / "store-password"
        if not secret.exists():
            secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        self._password = secret.read_text()
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
        return {
            "kafka": {"bootstrap": f"{LOOPBACK}:{ports.kafka}"},
            "clickhouse": {"url": f"http://{LOOPBACK}:{ports.clickhouse}", "password": self._password},
            "keys": {"home": str(self.home / "keys")},
            "gateway": {"host": LOOPBACK, "port": ports.gateway},
            "notify": {"allow_private": True},
        }

    def _set_up(self) -> None:
        settings = self.settings
        asyncio.run(wiring.apply_topics(settings))
        wiring.apply_tables(settings)
        asyncio.run(self._policies(settings))

    async def _policies(self, settings: Settings) -> None:
        async with wiring.registry(settings) as registry:
            if not registry.control.plans:
                await registry.apply_policies(read_policies(DEFAULT_POLICIES))

    def _await_ready(self) -> None:
        began, last = time.monotonic(), "nothing listened"
        while time.monotonic() - began < _READY_S:
            for stage, running in self.stages.items():
                if not running.child.alive():
                    raise ConfigError(
                        f"{stage} ended with status {running.child.returncode} while starting; its last log lines "
                        f"({running.child.log}):\n{running.child.log_tail()}"
                    )
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):  # noqa: S310 - our own loopback URL
                    return
            except (urllib.error.URLError, OSError) as error:
                last = str(error)
            time.sleep(0.05)
        raise Retryable(f"the gateway at {self.url} was not ready within {_READY_S:.0f} s (last: {last})")
