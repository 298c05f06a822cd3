"""The embedded ClickHouse store as a child process: `store_server` on one folder, reachable on loopback only.

Every acknowledged insert is flushed to disk before the answer (the tables set ``fsync_after_insert``), so neither a
SIGKILL nor a power cut loses one.
"""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.embedded.process import EmbeddedProcess
from pipeline.embedded.supervisor import LOOPBACK, Supervisor, require_port, spawn
from pipeline.interpreter import module_command, module_environment

PASSWORD_VARIABLE = "SLUICE_STORE_PASSWORD"  # noqa: S105 - the name of the variable
"""How the child learns the operator's where it has no file: arguments are visible to every user of the machine."""
START_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store's folder (`home`, trusted and its own), its port on loopback, and the passwords of its accounts."""

    home: Path
    port: int
    password: str = field(default="", repr=False)
    """The operator's, where it is not in ``passwords``."""
    passwords: Path | None = None
    """Folder with a file for each account, named like it."""


class EmbeddedStore(EmbeddedProcess):
    """One store process."""

    def __init__(self, settings: StoreSettings, supervisor: Supervisor) -> None:
        super().__init__("store", supervisor)
        self._settings = settings

    @property
    def url(self) -> str:
        """The HTTP endpoint for `pipeline.clickhouse.store.ClickHouse`."""
        return f"http://{LOOPBACK}:{self._settings.port}"

    def launch(self) -> None:
        """Start the process without waiting for it. ConfigError: it runs already, or the port is taken."""
        self._require_stopped()
        s = self._settings
        require_port(LOOPBACK, s.port, "--clickhouse-port", "the ClickHouse store")
        options = ["--home", str(s.home), "--port", str(s.port)]
        options += ["--passwords", str(s.passwords)] if s.passwords is not None else []
        argv = module_command("pipeline.embedded.store_server", *options)
        env = {**module_environment(), PASSWORD_VARIABLE: s.password, "TZ": "UTC"}
        self._hold(spawn(argv, name="store", log=s.home / "store.log", env=env, gives_way=True))

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until the store answers.

        Raises ConfigError (port taken, folder in use, no password) or Retryable (no answer within `timeout_s`
        seconds; the store is then killed).
        """
        self.launch()
        self.await_ready(timeout_s)

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until ``/ping`` is answered; errors as `start`."""

        def probe() -> None:
            # any other status than 2xx is an OSError
            with urllib.request.urlopen(f"{self.url}/ping", timeout=2):  # noqa: S310 - loopback HTTP
                return

        self._await(f"the ClickHouse store at {self.url}", probe, timeout_s)
