"""Several limits hold over a caller at once; an answer tells what each of them leaves, as of its decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from pipeline.events.control import Control, Limit, Tenant

LEVELS = {"o": "organisation", "t": "tenant", "p": "principal"}
"""Level of a limit by the first letter of its scope."""


class ScopedLimit(NamedTuple):
    """A limit holds over a scope: ``o:``, ``t:`` or ``p:`` and the id of who shares it."""

    scope: str
    limit: Limit

    @property
    def name(self) -> str:
        """Name the limit as ``LimitState`` does."""
        return f"{self.scope}|{self.limit.id}|{self.limit.meter}|{self.limit.unit}"

    @property
    def level(self) -> str:
        """Name the level that the limit is set at."""
        return LEVELS[self.scope[0]]


class LimitState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A limit leaves so much of its amount."""

    name: str
    """Scope, id, meter and unit with | between them."""
    amount: int
    """The most that it gives at once."""
    remaining: int
    reset_ms: int
    """Until it is as if never used, if nothing more is; -1 where no time restores it (``open``)."""


class QuotaState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The limits over the caller leave so much, all as of one decision."""

    time: int
    """Of the decision, Unix ms."""
    limits: tuple[LimitState, ...]


def limits_over(control: Control, tenant: Tenant, principal: str = "") -> Iterator[ScopedLimit]:
    """Give every limit over a tenant, and over one of its principals, the widest scope first."""
    organisation = control.organisations.get(tenant.organisation)
    shared = control.plans.get(organisation.plan) if organisation and organisation.plan else None
    for limit in shared.organisation if shared else ():
        yield ScopedLimit(f"o:{tenant.organisation}", limit)
    plan = control.plans.get(tenant.plan)
    if plan is None:
        return
    for limit in plan.tenant:
        yield ScopedLimit(f"t:{tenant.id}", limit)
    for limit in plan.principal if principal else ():
        yield ScopedLimit(f"p:{principal}", limit)
