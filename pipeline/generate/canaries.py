"""The canaries of all tenants in ``control``, kept as documents change: no answer may hold another tenant's."""

from __future__ import annotations

from detectors.verbatim import ProtectedIndex
from pipeline.errors import ConfigError
from pipeline.events.control import Control, Tenant
from pipeline.events.wrapped import Former
from pipeline.generate.guard import CANARY_LETTERS, OtherTenantsCanaries
from pipeline.keys.vault import Vault


class Canaries:
    """Canaries of the tenants whose keys this worker has; a tenant's own worker has no other's, and finds none."""

    def __init__(self, control: Control, vault: Vault) -> None:
        self._control = control
        self._vault = vault
        self._version = -2
        self._known: dict[tuple[str, str, Former], tuple[str, ...]] = {}
        """By tenant and wrapped data keys, which canaries are derived from; none where they were not granted."""
        self._all: ProtectedIndex | None = None

    def others(self, tenant: str) -> OtherTenantsCanaries | None:
        """Canaries that must not occur in an answer of ``tenant``; None where those of others are not known."""
        if self._control.version != self._version:
            self._gather()
        return None if self._all is None else OtherTenantsCanaries(self._all, self._vault.canaries(tenant))

    def _gather(self) -> None:
        self._version, before = self._control.version, self._known
        self._known = {}
        for tenant in self._control.tenants.values():
            key = (tenant.id, tenant.data_key, tenant.former_data_keys)
            self._known[key] = before[key] if key in before else self._canaries(tenant)
        if self._known != before:
            canaries = [canary for each in self._known.values() for canary in each]
            # alone, a tenant's own is none of another
            several = sum(map(bool, self._known.values())) > 1
            self._all = ProtectedIndex({"canary": canaries}, CANARY_LETTERS) if several else None

    def _canaries(self, tenant: Tenant) -> tuple[str, ...]:
        try:
            return self._vault.canaries(tenant.id)
        except ConfigError:
            return ()
