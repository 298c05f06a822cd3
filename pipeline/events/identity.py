"""A key belongs to a principal, a tenant and a plan under the documents in force."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.events.control import Control, Key, Plan, Principal, Tenant


class Identity(NamedTuple):
    """A chain of documents stands behind a key."""

    tenant: Tenant
    principal: Principal
    plan: Plan
    key: Key


def identify(control: Control, key: str) -> Identity | None:
    """Find the chain behind ``key``; None where a document of it is missing. Says nothing of a signature."""
    document = control.keys.get(key)
    principal = control.principals.get(document.principal) if document else None
    tenant = control.tenants.get(principal.tenant) if principal else None
    plan = control.plans.get(tenant.plan) if tenant else None
    if document is None or principal is None or tenant is None or plan is None:
        return None
    return Identity(tenant, principal, plan, document)
