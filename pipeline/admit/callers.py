"""A caller is what the documents in force say of a key: whose it is, and the limits over each of its requests."""

from __future__ import annotations

from typing import NamedTuple

from detectors.accounts.response import DUTIES, STEPS, Step
from pipeline.admit.quota import Amounts, Ceiling, amounts_of, ceiling
from pipeline.events.control import Control, Key, Limit, Plan, Principal, Tenant
from pipeline.events.identity import identify
from pipeline.events.limits import limits_over
from pipeline.events.records import Facts
from pipeline.topics import partition_of

FULL = 100
"""An account's whole share of its limit, in the unit of ``DUTIES``."""


class Caller(NamedTuple):
    """A key belongs to a principal, and these documents and limits apply to every request under it."""

    tenant: Tenant
    principal: Principal
    plan: Plan
    key: Key
    home: int
    """Partition of the organisation."""
    ceilings: dict[str, tuple[Ceiling, ...]]
    """Every limit over the caller by the model that it asks for, from the partition's capacity down to the key; filled
    as models are asked for. Under the empty name those that hold for any."""
    slowed: dict[Step, Ceiling]
    """The further limit over an account that is answered at a step."""


def caller_of(control: Control, key: str) -> Caller | None:
    """Find the holder of ``key``; None where control knows no such chain. Says nothing of a signature."""
    caller: Caller | None = control.derived.get(key)
    if caller is None:
        identity = identify(control, key)
        if identity is None:
            return None
        home = partition_of(identity.tenant.organisation.encode(), control.require_deployment().partitions)
        account, plan = identity.principal.id, identity.plan
        slowed = {step: _slowed(account, plan, step) for step in STEPS if 0 < DUTIES[step].rate < FULL}
        caller = control.derived[key] = Caller(*identity, home, {}, slowed)
    return caller


def ceilings_over(control: Control, caller: Caller, model: str) -> tuple[Ceiling, ...]:
    """Give the partition's capacity and every limit over a caller that asks for ``model`` as ceilings."""
    name = model if model in control.models else ""
    ceilings = caller.ceilings.get(name)
    if ceilings is None:
        capacity = Limit(
            id="capacity", meter="open", unit="tokens", amount=control.require_deployment().capacity_tokens
        )
        limits = [
            ceiling(*scoped) for scoped in limits_over(control, caller.tenant, caller.principal.id, caller.key.id, name)
        ]
        ceilings = caller.ceilings[name] = (ceiling("*", capacity), *limits)
    return ceilings


def asked(control: Control, facts: Facts) -> Amounts:
    """Give the most that a request may use, which is reserved for it."""
    model = control.models.get(facts.model)
    margin = (model.margin or 0) if model else 0
    input_bound = -(-facts.input_bound * (100 + margin) // 100)
    return amounts_of(input_bound, facts.max_tokens, price_of(control, facts.model))


def price_of(control: Control, name: str) -> tuple[int, int] | None:
    """Give the price of a million input and output tokens of a model, or of its base; None where it has none."""
    model = control.models.get(name)
    base = control.models.get(model.base) if model and model.base else None
    price = (model and model.price) or (base and base.price)
    return (price.input, price.output) if price else None


def slowed_at(caller: Caller, account: str, step: Step) -> Ceiling | None:
    """Give the further limit over an account, the caller's or one of its users', that is answered at ``step``."""
    if account == caller.principal.id or step not in caller.slowed:
        return caller.slowed.get(step)
    return _slowed(account, caller.plan, step)


def _slowed(account: str, plan: Plan, step: Step) -> Ceiling:
    amount = max(1, plan.account_rate * DUTIES[step].rate // FULL)
    return ceiling(f"p:{account}", Limit(id=step, meter="rate", amount=amount, burst=-(-amount // 4)))
