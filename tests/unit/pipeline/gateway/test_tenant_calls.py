"""One tenant's waiting calls leave room for the others'."""

from __future__ import annotations

import contextlib
import itertools

from pipeline.gateway.refusals import Refusal
from pipeline.gateway.tenant_calls import TenantCalls


def taken(calls: TenantCalls, held: contextlib.ExitStack, tenant: str) -> int:
    """So many calls of a tenant until it is told to come back."""
    for count in itertools.count():
        try:
            held.enter_context(calls.waiting(tenant))
        except Refusal as refusal:
            return count if (refusal.status, refusal.headers["Retry-After"]) == (503, "1") else -1
    raise AssertionError


def test_a_tenant_may_have_as_many_as_are_free() -> None:
    calls = TenantCalls(1000)
    with contextlib.ExitStack() as held:
        assert [taken(calls, held, tenant) for tenant in ("acme", "beta", "gamma")] == [500, 250, 125]
    with contextlib.ExitStack() as held:
        assert taken(calls, held, "beta") == 500


def test_a_call_that_fails_is_over() -> None:
    calls = TenantCalls(2)
    for _ in range(5):
        with contextlib.suppress(ValueError), calls.waiting("acme"):
            raise ValueError
    with contextlib.ExitStack() as held:
        assert taken(calls, held, "acme") == 1
