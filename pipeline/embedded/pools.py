"""Workers of isolated tenants on this machine: who asks for one, and how it is run with keys and models of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from pathlib import Path

from pipeline import wiring
from pipeline.config import Settings
from pipeline.errors import ConfigError, Retryable, Stopped
from pipeline.events import plans
from pipeline.events.control import Control, Tenant
from pipeline.keys.grant import granted_secrets, write_grant
from pipeline.retry import retry_forever

_log = logging.getLogger(__name__)
_PREFIX = "generate."


class LocalPools:
    """Follows ``control`` in a thread of its own. Each tenant's keys and models lie in ``home/TENANT``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._tiers: dict[str, str] = {}
        self._told: set[str] = set()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._settings = Settings()
        self._granted: dict[str, Tenant] = {}
        """Documents that the keys of workers which were started were last written from."""
        self._writing = threading.Lock()

    def start(self, settings: Settings) -> None:
        """Begin to follow; ``settings`` name the broker and the operator's keys."""
        self._settings = settings
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._follow(),), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)
            self._thread = None

    def wanted(self) -> set[str]:
        """Names of the workers that policies ask for. One that needs a device of its own is told instead, once."""
        tiers = dict(self._tiers)
        for tenant, tier in tiers.items():
            if tier == "device" and tenant not in self._told:
                self._told.add(tenant)
                _log.warning(
                    "%s asks for a device of its own; start its worker with: SLUICE_GENERATE__DEVICE=cuda:N "
                    "sluice run generate --pool %s",
                    tenant,
                    tenant,
                )
        return {f"{_PREFIX}{tenant}" for tenant, tier in tiers.items() if tier == "process"}

    def run(self, name: str) -> tuple[list[str], dict[str, str]]:
        """Words after ``sluice run`` and the environment of a worker; its keys are written anew. Raises ConfigError."""
        tenant = name.removeprefix(_PREFIX)
        folder = self._home / tenant
        self._home.mkdir(exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        with self._writing:
            self._granted[tenant] = asyncio.run(wiring.grant(self._settings, tenant, folder / "keys"))
        own = {"SLUICE_KEYS__HOME": str(folder / "keys"), "SLUICE_MODELS__HOME": str(folder / "models")}
        return ["generate", "--pool", tenant], own

    async def _follow(self) -> None:
        def tell(control: Control) -> None:
            self._tiers = plans.pools(control)
            self._renew(control)

        async def follow() -> None:
            try:
                await wiring.follow_pools(self._settings, self._stop, tell)
            except ConfigError as error:
                raise Retryable(str(error)) from error

        with contextlib.suppress(Stopped):
            await retry_forever(follow, self._stop, "control, which names isolated tenants")

    def _renew(self, control: Control) -> None:
        """Write the keys of workers anew where a tenant's were replaced; a worker reads the file again by itself."""
        with self._writing:
            for tenant, granted in list(self._granted.items()):
                document = control.tenants[tenant]
                if granted_secrets(document) != granted_secrets(granted):
                    write_grant(self._settings.keys, document, self._home / tenant / "keys")
                    self._granted[tenant] = document
                    _log.info("%s: its worker's keys were renewed", tenant)
