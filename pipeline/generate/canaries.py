"""The canaries of all tenants in ``control``, kept as documents change: no answer may hold another tenant's."""

from __future__ import annotations

from detectors.verbatim import ProtectedIndex
from pipeline.errors import ConfigError
from pipeline.events.control import Control, Tenant
from pipeline.generate.guard import CANARY_LETTERS, OtherTenantsCanaries
from pipeline.keys.vault import Vault


class Canaries:
    """Canaries of the tenants whose keys this worker has; a tenant's own worker has no other's, and finds none."""

    def __init__(self, control: Control, vault: Vault) -> None:
        self._control = control
        self._vault = vault
        self._version = -2
        self._known: dict[tuple[str, str], str] = {}
        """By tenant and wrapped data key, which a canary is derived from; empty where that was not granted."""
        self._all: ProtectedIndex | None = None

    def others(self, tenant: str) -> OtherTenantsCanaries | None:
        """Canaries that must not occur in an answer of ``tenant``; None where those of others are not known."""
        if self._control.version != self._version:
            self._gather()
        return None if self._all is None else OtherTenantsCanaries(self._all, self._vault.canary(tenant))

    def _gather(self) -> None:
        self._version, before = self._control.version, self._known
        self._known = {}
        for tenant in self._control.tenants.values():
            key = (tenant.id, tenant.data_key)
            self._known[key] = before[key] if key in before else self._canary(tenant)
        if self._known != before:
            canaries = [canary for canary in self._known.values() if canary]
            # alone, a tenant's own is none of another
            self._all = ProtectedIndex({"canary": canaries}, CANARY_LETTERS) if len(canaries) > 1 else None

    def _canary(self, tenant: Tenant) -> str:
        try:
            return self._vault.canary(tenant.id)
        except ConfigError:
            return ""
