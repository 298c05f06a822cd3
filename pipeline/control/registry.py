"""Operator's acts on ``control``: plans, tenants, principals, keys. Each is signed, and recorded in ``access``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from pipeline.clock import now_ms
from pipeline.control import topics as topic_admin
from pipeline.control.table import ControlTable
from pipeline.control.writer import ControlWriter
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import encode
from pipeline.events.control import (
    AnyDocument,
    Control,
    Deployment,
    Key,
    Organisation,
    Plan,
    Principal,
    Tenant,
    parse,
)
from pipeline.keys.api_key import key_id, key_text
from pipeline.keys.keyring import wrap_named
from pipeline.keys.signing import SigningKeys
from pipeline.keys.vault import Kms, Vault, key_context, tenant_keys


class Registry:
    """Writes documents once they fit what is there; ``control`` is read to its end before and after."""

    def __init__(self, kafka: KafkaEndpoint, table: ControlTable, kms: Kms, keys: SigningKeys) -> None:
        self._kafka = kafka
        self._table = table
        self._kms = kms
        self._writer = ControlWriter(kafka, table, keys)

    @property
    def control(self) -> Control:
        return self._table.control

    @property
    def table(self) -> ControlTable:
        """Give ``control`` as a table that can be read on."""
        return self._table

    @property
    def writer(self) -> ControlWriter:
        """Give what writes in the operator's name."""
        return self._writer

    async def change_deployment(self, document: Deployment, act: str, target: str = "") -> None:
        """Put a deployment document in force, which the roots sign. Raises ConfigError."""
        await self._writer.write_deployment(document, act, target)
        await self._writer.settle()

    async def close(self) -> None:
        await self._writer.close()

    def canary(self, tenant: str) -> str:
        """``Vault.canary``. Raises ConfigError for no such tenant."""
        try:
            return Vault(self._kms, self.control).canary(tenant)
        except Malformed as error:
            raise ConfigError(f"{error}; see: sluice tenant list") from None

    def webhook(self, tenant: str) -> tuple[str, str]:
        """Give the address of a tenant's alerts, and the secret that a receiver checks them with."""
        # every stage imports this module, and none but notify needs an HTTP client
        from pipeline.keys.vault import secret_text

        document = self._tenant(tenant)
        return document.webhook, secret_text(Vault(self._kms, self.control).webhook_secret(tenant))

    async def record_shown(self, what: str, tenant: str) -> None:
        """Put on record that a secret of a tenant is about to be shown or handed out. Raises ConfigError."""
        self._tenant(tenant)
        await self._writer.record(f"tenant.{what}.show", tenant, f"tenant/{tenant}")

    async def apply_policies(self, documents: list[AnyDocument]) -> list[str]:
        """Write those that differ from what is in force; gives their names."""
        await self._table.refresh()
        control = self._table.control
        changed = [d for d in documents if control.current(d) != d]
        isolating = {d.id for d in changed if isinstance(d, Plan) and d.isolation != "shared"}
        await self._add_pools(tenant.id for tenant in control.tenants.values() if tenant.plan in isolating)
        for document in changed:
            await self._writer.write(document, f"policy.{document.doc}")
        await self._writer.settle()
        return [f"{document.doc} {document.id}" for document in changed]

    async def add_tenant(self, tenant: str, plan: str, organisation: str = "", webhook: str = "") -> None:
        """Raises ConfigError where it exists or the plan does not."""
        await self._table.refresh()
        control = self._table.control
        if tenant in control.tenants:
            raise ConfigError(f"tenant {tenant!r} exists; choose another id")
        if plan not in control.plans:
            raise ConfigError(f"no plan {plan!r}; known: {', '.join(sorted(control.plans)) or 'none (policy apply)'}")
        organisation = organisation or tenant
        keys = tenant_keys(self._kms, tenant)
        # all of it is read before any of it is written
        document = _made(Tenant, id=tenant, organisation=organisation, plan=plan, webhook=webhook, **keys)
        root = _made(Organisation, id=organisation)
        if control.plans[plan].isolation != "shared":
            await self._add_pools([tenant])
        if organisation not in control.organisations:
            await self._writer.write(root, "organisation.add")
        await self._writer.write(document, "tenant.add")
        await self._writer.settle()

    async def change_tenant(self, tenant: str, **changes: Any) -> None:
        """Suspend or resume, another plan, another webhook."""
        await self._table.refresh()
        changed = self._tenant(tenant).model_copy(update=changes)
        plan = self._table.control.plans.get(changed.plan)
        if plan is None:
            raise ConfigError(f"no plan {changed.plan!r}; see: sluice policy show")
        if plan.isolation != "shared":
            await self._add_pools([tenant])
        await self._writer.write(changed, "tenant.change")
        await self._writer.settle()

    async def add_key(
        self, tenant: str, principal: str, days: int = 0, kafka_user: str = "", *, kafka: bool = False
    ) -> str:
        """The text of a new key, shown once and never stored. The principal is made where it does not exist.

        ``kafka``: its bearer writes records itself, as ``kafka_user``, or else under the key's id.
        """
        await self._table.refresh()
        self._tenant(tenant)
        known = self._table.control.principals.get(principal)
        if known is not None and known.tenant != tenant:
            raise ConfigError(f"principal {principal!r} belongs to another tenant; choose another id")
        if known is None:
            await self._writer.write(_made(Principal, id=principal, tenant=tenant), "principal.add")
        key, secret = f"k{os.urandom(6).hex()}", os.urandom(32)
        expires = now_ms() + days * 86_400_000 if days else 0
        user = kafka_user or (key if kafka else "")
        made = _made(Key, id=key, principal=principal, secret="", expires=expires, bound=True, kafka_user=user)
        wrapped = wrap_named(self._kms, secret, key_context(made, tenant))
        await self._writer.write(made.model_copy(update={"secret": wrapped}), "key.add")
        await self._writer.settle()
        return key_text(key, secret)

    async def revoke_key(self, key: str) -> Key:
        """Give the key, revoked: in force for every request decided after the stages have read it."""
        await self._table.refresh()
        document = self._table.control.keys.get(key_id(key))
        if document is None:
            raise ConfigError(f"no key {key_id(key)!r}; list them with: sluice key list")
        await self._writer.write(document.model_copy(update={"status": "revoked"}), "key.revoke")
        await self._writer.settle()
        return document

    async def judge_account(self, principal: str, extraction: str) -> str:
        """Put in force what an analyst knows of an account (``Principal.extraction``); gives its tenant."""
        await self._table.refresh()
        document = self._table.control.principals.get(principal)
        if document is None:
            raise ConfigError(f"no principal {principal[:80]!r}; list them with: sluice key list")
        changed = document.model_copy(update={"extraction": extraction})
        await self._writer.write(changed, f"account.{extraction}", document.tenant)
        await self._writer.settle()
        return document.tenant

    async def calibrate(self, tenant: str, *, accepted: bool) -> int:
        """Let a tenant's plan act on accounts that copy, or let it only tell again; gives the time from which it acts,
        0 where it does not."""
        await self._table.refresh()
        changed = self._tenant(tenant).model_copy(update={"calibrated": now_ms() if accepted else 0})
        await self._writer.write(changed, "account.calibrated" if accepted else "account.uncalibrated", tenant)
        await self._writer.settle()
        return changed.calibrated

    async def _add_pools(self, tenants: Iterable[str]) -> None:
        wanted = list(tenants)
        if wanted:
            await topic_admin.add_pools(self._kafka, wanted)

    def _tenant(self, tenant: str) -> Tenant:
        document = self._table.control.tenants.get(tenant)
        if document is None:
            raise ConfigError(f"no tenant {tenant!r}; list them with: sluice tenant list")
        return document

    async def label(self, request: str, tenant: str, verdict: str) -> None:
        """Put on record what an analyst says of a request of ``tenant``: ``attack`` or ``benign``."""
        await self._writer.record(f"label.{verdict}", tenant, request)


def _made(kind: type[Any], **fields: Any) -> Any:
    """A document from an operator's words. Raises ConfigError naming the field."""
    doc = kind.model_fields["doc"].default
    try:
        return parse(encode({"doc": doc, **fields}))
    except Malformed as error:
        raise ConfigError(str(error)) from error
