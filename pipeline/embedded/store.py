"""The embedded ClickHouse store as a child process: `store_server` on one folder, reachable on loopback only.

Every acknowledged insert is flushed to disk before the answer (the tables set ``fsync_after_insert``), so neither a
SIGKILL nor a power cut loses one.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.embedded.supervisor import LOOPBACK, Child, Supervisor, await_answer, require_port, spawn
from pipeline.errors import ConfigError, Retryable
from pipeline.interpreter import module_command, module_environment

PASSWORD_VARIABLE = "SLUICE_STORE_PASSWORD"  # noqa: S105 - the name of the variable
"""How the child learns it: arguments are visible to every user of the machine."""
START_TIMEOUT_S = 180.0
STOP_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store's folder (`home`, trusted and its own), its port on loopback, and its one account."""

    home: Path
    port: int
    password: str = field(repr=False)
    user: str = "sluice"


class EmbeddedStore:
    """One store process; `supervisor` stops it with the rest if the owner does not."""

    def __init__(self, settings: StoreSettings, supervisor: Supervisor) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """The HTTP endpoint for `pipeline.clickhouse.store.ClickHouse`."""
        return f"http://{LOOPBACK}:{self._settings.port}"

    @property
    def pid(self) -> int:
        """Process id of the running store; ConfigError before `start`."""
        if self._child is None:
            raise ConfigError("the store has not been started; call start() first")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.alive()

    def launch(self) -> None:
        """Start the process without waiting for it. ConfigError: it runs already, or the port is taken."""
        if self._child is not None and self._child.alive():
            raise ConfigError(f"the store already runs (pid {self._child.pid}); stop it first")
        s = self._settings
        require_port(LOOPBACK, s.port, "--clickhouse-port", "the ClickHouse store")
        options = ("--home", str(s.home), "--port", str(s.port), "--user", s.user)
        argv = module_command("pipeline.embedded.store_server", *options)
        env = {**module_environment(), PASSWORD_VARIABLE: s.password, "TZ": "UTC"}
        self._child = spawn(argv, name="store", log=s.home / "store.log", env=env, gives_way=True)
        self._supervisor.add(self._child)

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until the store answers.

        Raises ConfigError (port taken, folder in use, no password) or Retryable (no answer within `timeout_s`
        seconds; the store is then killed).
        """
        self.launch()
        self.await_ready(timeout_s)

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until ``/ping`` is answered; errors as `start`."""
        child = self._child
        if child is None:
            raise ConfigError("the store has not been started; call start() first")

        def probe() -> None:
            # any other status than 2xx is an OSError
            with urllib.request.urlopen(f"{self.url}/ping", timeout=2):  # noqa: S310 - loopback HTTP
                return

        try:
            await_answer(f"the ClickHouse store at {self.url}", [child], probe, timeout_s)
        except (ConfigError, Retryable):
            self.kill()
            raise

    def stop(self) -> None:
        """End the store cleanly (killed after 20 s); does nothing when it does not run."""
        self._end(lambda child: child.terminate(STOP_GRACE_S))

    def kill(self) -> None:
        """SIGKILL the store, as a crash would; does nothing when it does not run."""
        self._end(Child.kill)

    def _end(self, how: Callable[[Child], None]) -> None:
        if self._child is not None:
            self._supervisor.remove(self._child)
            how(self._child)
            self._child = None
