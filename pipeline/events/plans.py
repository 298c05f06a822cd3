"""A plan gives a tenant the models it may ask for, and the workers that run its requests."""

from __future__ import annotations

from pipeline.events.control import Control, Model, Plan
from pipeline.topics import POOL_WORK


def knows(tenant: str, model: Model | None) -> bool:
    """Tell whether a model exists for a tenant; the adapters of others do not."""
    return model is not None and model.tenant in (None, tenant)


def allows(plan: Plan, tenant: str, model: Model) -> bool:
    """Tell whether a tenant may ask for a model: its plan names it, or the base of the tenant's own adapter."""
    return knows(tenant, model) and (model.base or model.id) in plan.models


def work_topic(control: Control, tenant: str) -> str:
    """Give the topic of a tenant's work: that of the shared workers, or of its own."""
    plan = control.plans[control.tenants[tenant].plan]
    return "work" if plan.isolation == "shared" else f"{POOL_WORK}{tenant}"


def pools(control: Control) -> dict[str, str]:
    """Give the tenants with workers of their own, by id, and the tier that their plan asks for."""
    plans = {tenant.id: control.plans.get(tenant.plan) for tenant in control.tenants.values()}
    return {name: plan.isolation for name, plan in sorted(plans.items()) if plan and plan.isolation != "shared"}
