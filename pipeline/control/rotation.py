"""An operator replaces keys: each act is documents in ``control``, signed and recorded like every other act."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError
from pipeline.events import plans
from pipeline.events.control import AnyDocument, Key, Tenant
from pipeline.keys.keyring import FileKeyring, Kms
from pipeline.keys.rotation import (
    FIELDS,
    SecretKind,
    add_keyring_key,
    drop_keyring_keys,
    forgotten,
    prepared,
    rewrapped_key,
    rewrapped_tenant,
    rotated,
    use_keyring_key,
)

REST_MS = 15 * 60_000
"""A replaced keyring key stays so long: tickets of requests that are under way were made with it."""


class DocumentWriter(Protocol):
    """Writes documents to ``control``; ``settle`` raises ConfigError where another operator came first."""

    async def write(self, document: AnyDocument, act: str, tenant: str = "") -> None: ...
    async def write_all(self, documents: Sequence[AnyDocument], act: str, target: str) -> None: ...
    async def record(self, act: str, tenant: str, target: str) -> None: ...
    async def settle(self) -> None: ...


class KeyRotation:
    """Replaces the secrets of tenants and the keyring's key; ``control`` is read to its end before each act."""

    def __init__(self, table: ControlTable, writer: DocumentWriter, kms: Kms) -> None:
        self._table = table
        self._writer = writer
        self._kms = kms

    async def prepare(self, tenant: str, kind: SecretKind) -> Tenant:
        """Let readers know the next key, under which nothing is sealed yet. Raises ConfigError."""
        return await self._put(prepared(self._kms, await self._tenant(tenant), kind), f"tenant.prepare.{kind}")

    async def rotate(self, tenant: str, kind: SecretKind, overlap_ms: int = 0) -> Tenant:
        """Put the next key in use and keep the former one. Raises ConfigError."""
        document = await self._tenant(tenant)
        following = FIELDS[kind].following
        if following and tenant in plans.pools(self._table.control) and not getattr(document, following):
            raise ConfigError(
                f"tenant {tenant} has workers of its own, which are yet to be granted the next key; run: sluice keys "
                f"rotate {kind} {tenant} --prepare, then sluice deploy grant {tenant} where they run (sluice up does "
                "it by itself), then this again"
            )
        return await self._put(rotated(self._kms, document, kind, now_ms(), overlap_ms), f"tenant.rotate.{kind}")

    async def forget(self, tenant: str, kind: SecretKind, former_id: str) -> Tenant:
        """Drop a former key; what only it opens is closed for ever. Raises ConfigError."""
        return await self._put(forgotten(await self._tenant(tenant), kind, former_id), f"tenant.forget.{kind}")

    async def rewrap(self, current: str) -> tuple[int, int]:
        """Wrap every secret with keyring key ``current`` and bind those of API keys; gives the counts written.

        Killed in between, it goes on with the rest when it is run again. Raises ConfigError.
        """
        await self._table.refresh()
        documents = list(self._rewrapped(current))
        if documents:
            await self._writer.write_all(documents, "deployment.rewrap", current)
            await self._writer.settle()
        tenants = sum(isinstance(document, Tenant) for document in documents)
        return tenants, len(documents) - tenants

    def needed(self) -> frozenset[str]:
        """Name the keyring keys that secrets in documents in force are wrapped with."""
        control = self._table.control
        wrapped = [key.secret for key in control.keys.values()]
        for tenant in control.tenants.values():
            for fields in FIELDS.values():
                wrapped += [getattr(tenant, name) for name in (fields.current, fields.following) if name]
                wrapped += [former.secret for former in getattr(tenant, fields.former)]
        return frozenset(text.partition(":")[0] for text in wrapped if text)

    def _rewrapped(self, current: str) -> Iterator[Tenant | Key]:
        control = self._table.control
        for tenant in list(control.tenants.values()):
            document = rewrapped_tenant(self._kms, tenant, current)
            if document is not tenant:
                yield document
        for key in list(control.keys.values()):
            principal = control.principals.get(key.principal)
            if principal is None:
                continue
            bound = rewrapped_key(self._kms, key, principal.tenant, current)
            if bound is not key:
                yield bound

    async def _tenant(self, tenant: str) -> Tenant:
        await self._table.refresh()
        document = self._table.control.tenants.get(tenant)
        if document is None:
            raise ConfigError(f"no tenant {tenant!r}; list them with: sluice tenant list")
        return document

    async def _put(self, document: Tenant, act: str) -> Tenant:
        if document is not self._table.control.tenants[document.id]:
            await self._writer.write(document, act)
            await self._writer.settle()
        return document


class KeyringRotation(KeyRotation):
    """Replaces the keyring's key.

    Order: the file gets the next key; the file names it as the one that wraps; documents are wrapped anew; the former
    key goes when nothing needs it. Killed anywhere, every secret opens with the file as it is, and the command goes on
    from there when it is run again.
    """

    def __init__(self, table: ControlTable, writer: DocumentWriter, path: Path) -> None:
        super().__init__(table, writer, FileKeyring(path))
        self._path = path

    async def prepare_keyring(self) -> str:
        """Add the next key to the file, for its copies on other hosts to have it before it is used; gives its name."""
        name = add_keyring_key(self._path)
        await self._writer.record("deployment.prepare.keyring", "", name)
        return name

    async def rotate_keyring(self) -> tuple[str, int, int]:
        """Put the next key in use, made where there is none; gives its name and the documents that were written."""
        keyring = FileKeyring(self._path)
        # what an attempt before left wrapped otherwise is gone on with, and no further key is made for it
        goes_on = bool(await self._others(keyring.current)) and not keyring.following
        name = keyring.current if goes_on else add_keyring_key(self._path)
        use_keyring_key(self._path, name, now_ms())
        await self._writer.record("deployment.rotate.keyring", "", name)
        return name, *await self.rewrap_all()

    async def rewrap_all(self) -> tuple[int, int]:
        """Wrap with the key in use what is wrapped otherwise, and bind what is not bound."""
        self._kms = keyring = FileKeyring(self._path)
        return await self.rewrap(keyring.current)

    async def drop(self, needed: frozenset[str]) -> list[str]:
        """Drop keys that nothing is wrapped with; ``needed`` names those of model envelopes."""
        await self._table.refresh()
        dropped = drop_keyring_keys(self._path, self.needed() | needed, now_ms(), REST_MS)
        for name in dropped:
            await self._writer.record("deployment.drop.keyring", "", name)
        return dropped

    async def _others(self, current: str) -> frozenset[str]:
        await self._table.refresh()
        return self.needed() - {current}
