"""The acts behind ``sluice keys rotate`` and ``sluice keys forget``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from inference.registry.listing import BrokenVersion
from inference.registry.refusal import ModelRefused
from inference.registry.wrapping import TenantRecipient
from pipeline.config import Settings
from pipeline.control import operators
from pipeline.control.rotation import KeyringRotation
from pipeline.errors import ConfigError
from pipeline.events.control import Deployment, Tenant
from pipeline.events.signed_document import DEPLOYMENT
from pipeline.keys.keyring import FileKeyring
from pipeline.keys.rotation import SecretKind
from pipeline.keys.signing import load_signers
from pipeline.wiring.log_rotation import LogRotation
from pipeline.wiring.operate import models, registry

DAY_MS = 86_400_000
_NEXT = {"deployment.rotate.log": "then run this again", "deployment.retire.log": "which retires the former keys"}
"""By the act of a proposed document: what follows once it is in force."""


@contextlib.asynccontextmanager
async def rotation(settings: Settings, by: str) -> AsyncIterator[KeyringRotation]:
    """Give the operator's hand on keys."""
    async with registry(settings, by) as hand:
        yield KeyringRotation(hand.table, hand.writer, settings.keys.keyring)


async def prepare_secret(settings: Settings, kind: SecretKind, tenant: str, by: str = "") -> Tenant:
    """Let readers know a tenant's next key."""
    async with rotation(settings, by) as keys:
        return await keys.prepare(tenant, kind)


async def rotate_secret(settings: Settings, kind: SecretKind, tenant: str, by: str = "") -> Tenant:
    """Put a tenant's next key in use."""
    async with rotation(settings, by) as keys:
        return await keys.rotate(tenant, kind)


async def rotate_webhook(settings: Settings, tenant: str, days: int, by: str = "") -> tuple[Tenant, str]:
    """Replace a webhook's secret, beside which the former one signs for ``days``; gives what the receiver is told."""
    async with registry(settings, by) as hand:
        keys = KeyringRotation(hand.table, hand.writer, settings.keys.keyring)
        document = await keys.rotate(tenant, "webhook", days * DAY_MS)
        return document, hand.webhook(tenant)[1]


async def forget_secret(settings: Settings, kind: SecretKind, tenant: str, former_id: str, by: str = "") -> Tenant:
    """Drop a former key of a tenant."""
    async with rotation(settings, by) as keys:
        return await keys.forget(tenant, kind, former_id)


async def rotate_log(
    settings: Settings, wait_s: float, tell: Callable[[str], None], by: str = "", propose: Path | None = None
) -> None:
    """Replace the log's signing keys; with ``propose`` the documents go to a file, for more roots to sign."""
    async with registry(settings, by) as hand:

        async def write(document: Deployment, act: str) -> None:
            if propose is None:
                await hand.change_deployment(document, act)
                return
            signers = load_signers(settings.keys.roots)
            operators.write_proposal(propose, operators.propose(hand, document, act, DEPLOYMENT, signers))
            raise _Proposed(_NEXT[act])

        keys = settings.keys.log_key
        try:
            await LogRotation(settings.kafka.endpoint, hand.table, keys, write).run(wait_s, tell)
        except _Proposed as proposed:
            tell(f"{propose} is to be signed: sluice operator sign, then sluice operator submit, {proposed}")


class _Proposed(Exception):
    """A document waits for roots; the rotation goes on once it is in force."""


async def rotate_keyring(settings: Settings, *, prepare: bool, by: str = "") -> list[tuple[str, str]]:
    """Replace the keyring's key; gives what was done."""
    async with rotation(settings, by) as keys:
        if prepare:
            return [("added to the keyring, not in use", await keys.prepare_keyring())]
        name, tenants, secrets = await keys.rotate_keyring()
    return [("in use", name), *_counted(tenants, secrets, _rewrap_models(settings))]


async def rewrap_secrets(settings: Settings, by: str = "") -> list[tuple[str, str]]:
    """Wrap every secret with the key in use, and bind those of API keys; gives what was done."""
    async with rotation(settings, by) as keys:
        tenants, secrets = await keys.rewrap_all()
    return _counted(tenants, secrets, _rewrap_models(settings))


async def drop_keyring(settings: Settings, by: str = "") -> list[tuple[str, str]]:
    """Drop the keyring's keys that nothing needs; gives what was done."""
    needed = frozenset(wrapped.partition(":")[0] for _, _, _, wrapped in _model_wraps(settings))
    async with rotation(settings, by) as keys:
        dropped = await keys.drop(needed)
        kept = FileKeyring(settings.keys.keyring)
    rows = [("dropped", name) for name in dropped]
    return [*rows, *(("in use" if name == kept.current else "kept", name) for name in kept.names)]


def _counted(tenants: int, keys: int, versions: int) -> list[tuple[str, str]]:
    return [("tenants wrapped", str(tenants)), ("API keys wrapped and bound", str(keys)), ("models", str(versions))]


def _model_wraps(settings: Settings) -> list[tuple[str, int, str, str]]:
    """Give model, version, recipient and wrap of every data key of a model that the keyring has wrapped."""
    if not settings.models.home.exists():
        return []
    registered = models(settings)
    try:
        return [
            (version.manifest.model, version.manifest.version, name, wrapped)
            for version in registered.list_versions()
            if not isinstance(version, BrokenVersion)
            for name, wrapped in registered.exports.recipients(version.manifest.model, version.manifest.version).items()
            if name == "operator" or name.startswith("tenant/")
        ]
    except ModelRefused as error:
        raise ConfigError(f"models: {error}; see: sluice model list") from error


def _rewrap_models(settings: Settings) -> int:
    """Wrap the data keys of models with the key in use; gives the count."""
    kms = FileKeyring(settings.keys.keyring)
    wraps = [each for each in _model_wraps(settings) if not each[3].startswith(f"{kms.current}:")]
    for model, version, name, _ in wraps:
        holder = TenantRecipient(kms, name.partition("/")[2])
        models(settings).exports.rewrap(model, version, holder, holder)
    return len(wraps)
