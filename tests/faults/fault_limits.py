"""Limits that change while requests run: the plans of the deployment with other amounts, again and again."""

from __future__ import annotations

import random

from pipeline import wiring
from pipeline.config import Settings
from pipeline.control.policy_file import read_policies
from pipeline.embedded.stack import DEFAULT_POLICIES
from pipeline.events.control import Limit, Plan
from pipeline.retry import retry_until

_FACTORS = (1, 1, 2, 5, 20)
_LEAST = {"open": 3, "window": 5}
"""Below these a well-behaved caller would hardly get an answer."""
_PATIENCE_S = 60


async def change_limits(settings: Settings, chance: random.Random) -> None:
    """Write every plan of the shipped policies with amounts that are drawn anew."""
    plans = [_changed(document, chance) for document in read_policies(DEFAULT_POLICIES) if isinstance(document, Plan)]

    async def write() -> None:
        async with wiring.registry(settings) as registry:
            await registry.apply_policies(list(plans))

    await retry_until(write, _PATIENCE_S, "policies to be written")


def _changed(plan: Plan, chance: random.Random) -> Plan:
    tenant = tuple(_drawn(limit, chance) for limit in plan.tenant)
    principal = tuple(_drawn(limit, chance) for limit in plan.principal)
    return plan.model_copy(update={"tenant": tenant, "principal": principal})


def _drawn(limit: Limit, chance: random.Random) -> Limit:
    factor, least = chance.choice(_FACTORS), _LEAST.get(limit.meter, 1)
    return limit.model_copy(
        update={"amount": max(least, limit.amount // factor), "burst": -(-limit.burst // factor) if limit.burst else 0}
    )
