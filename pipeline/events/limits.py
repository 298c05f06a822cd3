"""Several limits hold over a caller at once; an answer tells what each of them leaves, as of its decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from pipeline.events import plans
from pipeline.events.control import Control, Limit, Tenant

LEVELS = {"o": "organisation", "t": "tenant", "p": "principal", "k": "key"}
"""Level of a limit by the first letter of its scope."""
LONGEST_REFILL_S = 32 * 86_400
"""A rate or window of a policy file is full again within this time: an idle one's count is kept for as long."""
_MODEL = "/m:"
"""Stands between a tenant's scope and the model, where a limit is over what the tenant asks of it."""


class ScopedLimit(NamedTuple):
    """A limit holds over a scope: ``o:``, ``t:``, ``p:`` or ``k:`` and the id of who shares it."""

    scope: str
    limit: Limit
    utc_offset: int = 0
    """Minutes by which calendar periods are ahead of UTC."""

    @property
    def name(self) -> str:
        """Name the limit as ``LimitState`` does."""
        return f"{self.scope}|{self.limit.id}|{self.limit.meter}|{self.limit.unit}"

    @property
    def level(self) -> str:
        """Name the level that the limit is set at."""
        return "model" if self.model else LEVELS[self.scope[0]]

    @property
    def model(self) -> str:
        """Name the model whose use is limited; empty where it is that of all."""
        return self.scope.partition(_MODEL)[2]

    @property
    def over(self) -> str:
        """Name who or what shares the limit, by its id."""
        return self.model or self.scope[2:]


class LimitState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A limit leaves so much of its amount."""

    name: str
    """Scope, id, meter and unit with | between them."""
    amount: int
    """Of the limit in its plan."""
    remaining: int
    reset_ms: int
    """Until it is as if never used, if nothing more is; -1 where no time restores it (``open``)."""


class QuotaState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The limits over the caller leave so much, all as of one decision."""

    time: int
    """Of the decision, Unix ms."""
    limits: tuple[LimitState, ...]


def limits_over(
    control: Control, tenant: Tenant, principal: str = "", key: str = "", model: str | None = None
) -> Iterator[ScopedLimit]:
    """Give every limit over a tenant and what it asks of a model, over one of its principals and one of their keys.

    The widest scope comes first. Without ``model`` those of every model that the tenant may ask for.
    """
    organisation = control.organisations.get(tenant.organisation)
    shared = control.plans.get(organisation.plan) if organisation and organisation.plan else None
    if shared is not None:
        yield from _scoped(f"o:{tenant.organisation}", shared.organisation, shared.utc_offset)
    plan = control.plans.get(tenant.plan)
    if plan is None:
        return
    yield from _scoped(f"t:{tenant.id}", plan.tenant, plan.utc_offset)
    if plan.model:
        allowed = (m.id for m in control.models.values() if plans.allows(plan, tenant.id, m))
        for name in allowed if model is None else (model,):
            limits = (*plan.model.get("*", ()), *plan.model.get(name, ()))
            yield from _scoped(f"t:{tenant.id}{_MODEL}{name}", limits, plan.utc_offset)
    yield from _scoped(f"p:{principal}", plan.principal if principal else (), plan.utc_offset)
    yield from _scoped(f"k:{key}", plan.key if key else (), plan.utc_offset)


def _scoped(scope: str, limits: Iterable[Limit], utc_offset: int) -> Iterator[ScopedLimit]:
    return (ScopedLimit(scope, limit, utc_offset) for limit in limits)
