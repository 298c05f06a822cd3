"""The demo's people: three tenants on three plans, their principals, and one that copies; fresh keys every run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pipeline import wiring
from pipeline.config import Settings

PLANS = {"acme": "enterprise", "globex": "team", "initech": "free"}
PRINCIPALS = ("app", "research")
STUDENT = "acme-student"
"""The principal that runs the extraction campaign."""


@dataclass(slots=True)
class Credentials:
    """Keys by principal (``tenant-role``), one that is revoked, and each tenant's webhook secret."""

    keys: dict[str, str] = field(default_factory=dict)
    revoked: str = ""
    secrets: dict[str, bytes] = field(default_factory=dict)


async def issue_credentials(settings: Settings, webhook: str) -> Credentials:
    """Make tenants and principals where they are missing, and issue this run's keys."""
    credentials = Credentials()
    async with wiring.registry(settings) as registry:
        for tenant, plan in PLANS.items():
            target = f"{webhook}/{tenant}"
            if tenant not in registry.control.tenants:
                await registry.add_tenant(tenant, plan, webhook=target)
            elif registry.control.tenants[tenant].webhook != target:
                await registry.change_tenant(tenant, webhook=target)
            for role in PRINCIPALS:
                name = f"{tenant}-{role}"
                credentials.keys[name] = await wiring.add_producer_key(settings, registry, tenant, name, days=1)
        # an account that copies is reported once, and known when it comes back: each run has one of its own
        student = f"{STUDENT}-{os.urandom(4).hex()}"
        credentials.keys[STUDENT] = await wiring.add_producer_key(settings, registry, "acme", student, days=1)
        credentials.revoked = await registry.add_key("globex", "globex-app", days=1)
        await registry.revoke_key(credentials.revoked)
        vault = wiring.vault(settings, registry)
        credentials.secrets = {tenant: vault.webhook_secret(tenant) for tenant in PLANS}
    return credentials
