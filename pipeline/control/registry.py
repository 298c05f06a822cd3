"""Operator's acts on ``control``: plans, tenants, principals, keys. Each is also recorded in ``access``."""

from __future__ import annotations

import base64
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detectors.accounts.response import STEPS
from detectors.personal import TYPES
from pipeline.clock import now_ms
from pipeline.control import topics as topic_admin
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import encode
from pipeline.events.control import (
    AnyDocument,
    Control,
    Key,
    Limit,
    Model,
    Organisation,
    Plan,
    Principal,
    Tenant,
    parse,
)
from pipeline.events.limits import LONGEST_REFILL_S
from pipeline.events.messages import Access
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Kms, Vault, tenant_keys
from pipeline.topics import partition_of

KEY_PREFIX = "sk-sluice-"
MAX_WEBHOOK = 512
MAX_WINDOW = 1_000
_KINDS = {"plan": Plan, "organisation": Organisation, "model": Model}


def read_policies(path: Path) -> list[AnyDocument]:
    """Plans, organisations and models of a TOML file. Raises ConfigError with the entry and the field."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    unknown = set(tree) - set(_KINDS)
    if unknown:
        raise ConfigError(f"{path}: unknown tables {sorted(unknown)}; expected {sorted(_KINDS)}")
    documents = []
    for kind in _KINDS:
        for entry in _entries(tree, kind, path):
            try:
                documents.append(parse(encode({"doc": kind, **entry})))
            except Malformed as error:
                raise ConfigError(f"{path}: [[{kind}]] {entry.get('id', '?')}: {error}") from error
    fault = next(_unsound(documents), "")
    if fault:
        raise ConfigError(f"{path}: {fault}")
    _require_known(documents, path)
    return documents


def checked_webhook(url: str) -> str:
    """A URL to which alerts can be delivered; empty: none. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if url and (not fits or len(url) > MAX_WEBHOOK or not url.isascii() or not url.isprintable() or " " in url):
        raise ConfigError(f"webhook: expected http(s)://host/path in {MAX_WEBHOOK} characters, got {url[:80]!r}")
    return url


def _entries(tree: dict[str, Any], kind: str, path: Path) -> list[dict[str, Any]]:
    entries = tree.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: {kind}: expected tables, each under a line [[{kind}]] of its own")
    return entries


def _unsound(documents: list[AnyDocument]) -> Iterator[str]:
    """Name what each document may say by itself but no operator means; old ones in ``control`` stay as they are."""
    if not documents:
        yield f"nothing in it: expected tables of {', '.join(f'[[{kind}]]' for kind in _KINDS)}"
    for name, count in Counter((document.doc, document.id) for document in documents).items():
        if count > 1:
            yield f"[[{name[0]}]] {name[1]}: expected once, got {count} times"
    for plan in documents:
        if isinstance(plan, Plan):
            yield from (f"[[plan]] {plan.id}: {fault}" for fault in _unsound_plan(plan))


def _unsound_plan(plan: Plan) -> Iterator[str]:
    for name in ("max_tokens", "max_input_bytes"):
        if getattr(plan, name) < 1:
            yield f"{name}: expected 1 or more, got {getattr(plan, name)}: it would refuse every request"
    if unknown := sorted(set(plan.personal_off) - TYPES):
        yield f"personal_off: expected types of personal data, got {', '.join(unknown)}; use {', '.join(sorted(TYPES))}"
    for scope, limits in plan.scopes().items():
        every = plan.scopes()["model.*"] if scope.startswith("model.") and scope != "model.*" else ()
        for limit in limits:
            where = f"{scope}.{limit.id}"
            if sum(other.id == limit.id for other in (*limits, *every)) > 1:
                yield f"{where}: expected an id of its own, for each limit of a scope"
            if scope == "principal" and limit.id in STEPS:
                yield f"{where}: expected another id: limits over accounts that copy a model have this one"
            yield from (f"{where}: {fault}" for fault in _unsound_limit(limit))


def _unsound_limit(limit: Limit) -> Iterator[str]:
    if limit.meter == "window" and limit.unit != "requests":
        yield "a window counts requests; for tokens take rate or budget"
    if limit.meter == "window" and limit.amount > MAX_WINDOW:
        yield f"a window keeps each time it counted: expected at most {MAX_WINDOW}, or rate or budget"
    refill_s = limit.period_s
    if limit.meter == "rate" and limit.burst:
        refill_s = limit.burst * limit.period_s // limit.amount
    if limit.meter in ("rate", "window") and refill_s > LONGEST_REFILL_S:
        yield f"expected a {limit.meter} full again within {LONGEST_REFILL_S} s, got {refill_s} s; take a budget"


def _require_known(documents: list[AnyDocument], path: Path) -> None:
    models = [document for document in documents if isinstance(document, Model)]
    known, bases = {model.id for model in models}, {model.id for model in models if model.base is None}
    for plan in documents:
        if not isinstance(plan, Plan):
            continue
        missing = [m for m in (*plan.models, *plan.model) if m not in known and m != "*"]
        if missing:
            raise ConfigError(f"{path}: plan {plan.id} names models that are not in the file: {missing}")
        free = [m.id for m in models if m.price is None and m.id in plan.models]
        if free and any(limit.unit == "cost" for limits in plan.scopes().values() for limit in limits):
            raise ConfigError(f"{path}: plan {plan.id} limits cost: expected a price for each model, got none: {free}")
    for model in models:
        if model.base is not None and model.base not in bases:
            raise ConfigError(f"{path}: model {model.id} is an adapter of {model.base!r}, which is no base in the file")


class Registry:
    """Writes documents once they fit what is there; ``control`` is read to its end before and after."""

    def __init__(self, kafka: KafkaEndpoint, table: ControlTable, kms: Kms, actor: str = "operator") -> None:
        self._kafka, self._publisher = kafka, Publisher(kafka)
        self._table = table
        self._kms = kms
        self._actor = actor

    @property
    def control(self) -> Control:
        return self._table.control

    async def close(self) -> None:
        await self._publisher.close()

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
        await self._record(f"tenant.{what}.show", tenant, f"tenant/{tenant}")

    async def apply_policies(self, documents: list[AnyDocument]) -> list[str]:
        """Write those that differ from what is in force; gives their names."""
        await self._table.refresh()
        control = self._table.control
        in_force: dict[type[Any], Any] = {
            Plan: control.plans,
            Organisation: control.organisations,
            Model: control.models,
        }
        changed = [d for d in documents if in_force[type(d)].get(d.id) != d]
        isolating = {d.id for d in changed if isinstance(d, Plan) and d.isolation != "shared"}
        await self._add_pools(tenant.id for tenant in control.tenants.values() if tenant.plan in isolating)
        for document in changed:
            await self._write(document, f"policy.{document.doc}")
        await self._table.refresh()
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
            await self._write(root, "organisation.add")
        await self._write(document, "tenant.add")
        await self._table.refresh()

    async def change_tenant(self, tenant: str, **changes: Any) -> None:
        """Suspend or resume, another plan, another webhook."""
        await self._table.refresh()
        changed = self._tenant(tenant).model_copy(update=changes)
        plan = self._table.control.plans.get(changed.plan)
        if plan is None:
            raise ConfigError(f"no plan {changed.plan!r}; see: sluice policy show")
        if plan.isolation != "shared":
            await self._add_pools([tenant])
        await self._write(changed, "tenant.change")
        await self._table.refresh()

    async def add_key(self, tenant: str, principal: str, days: int = 0) -> str:
        """The text of a new key, shown once and never stored. The principal is made where it does not exist."""
        await self._table.refresh()
        self._tenant(tenant)
        known = self._table.control.principals.get(principal)
        if known is not None and known.tenant != tenant:
            raise ConfigError(f"principal {principal!r} belongs to another tenant; choose another id")
        if known is None:
            await self._write(_made(Principal, id=principal, tenant=tenant), "principal.add")
        key, secret = f"k{os.urandom(6).hex()}", os.urandom(32)
        expires = now_ms() + days * 86_400_000 if days else 0
        wrapped = self._kms.wrap(secret, f"key/{key}")
        await self._write(_made(Key, id=key, principal=principal, secret=wrapped, expires=expires), "key.add")
        await self._table.refresh()
        return f"{KEY_PREFIX}{key}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"

    async def revoke_key(self, key: str) -> None:
        """In force for every request decided after the stages have read it."""
        await self._table.refresh()
        document = self._table.control.keys.get(key.removeprefix(KEY_PREFIX).split(".")[0])
        if document is None:
            raise ConfigError(f"no key {key.split('.')[0]!r}; list them with: sluice key list")
        await self._write(document.model_copy(update={"status": "revoked"}), "key.revoke")
        await self._table.refresh()

    async def judge_account(self, principal: str, extraction: str, analyst: str) -> str:
        """Put in force what an analyst knows of an account (``Principal.extraction``); gives its tenant."""
        await self._table.refresh()
        document = self._table.control.principals.get(principal)
        if document is None:
            raise ConfigError(f"no principal {principal[:80]!r}; list them with: sluice key list")
        changed = document.model_copy(update={"extraction": extraction})
        await self._write(changed, f"account.{extraction}", document.tenant, analyst)
        await self._table.refresh()
        return document.tenant

    async def _add_pools(self, tenants: Iterable[str]) -> None:
        wanted = list(tenants)
        if wanted:
            await topic_admin.add_pools(self._kafka, wanted)

    def _tenant(self, tenant: str) -> Tenant:
        document = self._table.control.tenants.get(tenant)
        if document is None:
            raise ConfigError(f"no tenant {tenant!r}; list them with: sluice tenant list")
        return document

    async def _write(self, document: AnyDocument, act: str, tenant: str = "", actor: str = "") -> None:
        await self._publisher.send(
            "control", 0, f"{document.doc}/{document.id}".encode(), document.model_dump_json().encode()
        )
        tenant = document.id if isinstance(document, Tenant) else tenant
        await self._record(act, tenant, f"{document.doc}/{document.id}", actor)

    async def label(self, request: str, tenant: str, verdict: str, analyst: str) -> None:
        """Put on record what an analyst says of a request of ``tenant``: ``attack`` or ``benign``."""
        await self._record(f"label.{verdict}", tenant, request, analyst)

    async def _record(self, act: str, tenant: str, target: str, actor: str = "") -> None:
        record = Access(now_ms(), actor or self._actor, act, tenant, target)
        partitions = self._table.control.require_deployment().partitions
        await self._publisher.send("access", partition_of(tenant.encode(), partitions), tenant.encode(), encode(record))


def _made(kind: type[Any], **fields: Any) -> Any:
    """A document from an operator's words. Raises ConfigError naming the field."""
    doc = kind.model_fields["doc"].default
    try:
        return parse(encode({"doc": doc, **fields}))
    except Malformed as error:
        raise ConfigError(str(error)) from error
