"""What one tenant has the gateway hold never takes the place of another's; refusals are held least."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.messages import Response
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Reply
from pipeline.gateway.tenant_shares import TenantShares
from pipeline.gateway.waiting import ResponseRouter


def opened(response: Response, field: str = "", sealed: bytes = b"") -> bytes:
    return sealed


def ended(tenant: str, n: int) -> Response:
    return Response(f"{tenant}-q{n}", f"{tenant}-1:{n}", tenant, "end", "w.1", result="finished")


def refused(tenant: str, n: int) -> Response:
    return Response(f"{tenant}-c{n}", f"{tenant}-1:c{n}", tenant, "refusal", reason="no_such_request")


def held(router: ResponseRouter, response: Response) -> Reply | None:
    key = (response.tenant, response.client_request)
    return asyncio.run(router.cache.wait_reply(key, opened, 0))


def test_refused_cancels_of_one_tenant_push_out_no_answer() -> None:
    router = ResponseRouter(Metrics(), 10_000, 64 << 20)
    answers = [ended(tenant, n) for tenant in ("beta", "gamma", "acme") for n in range(100)]
    refusals = [refused("beta", n) for n in range(3)]
    for response in (*answers, *refusals):
        router.deliver(response)
    for n in range(11_000):
        router.deliver(refused("acme", n))
    assert all(held(router, response) for response in (*answers, *refusals))
    assert held(router, refused("acme", 10_999))
    assert not held(router, refused("acme", 0))


def test_answers_of_one_tenant_push_out_nothing_of_others() -> None:
    router = ResponseRouter(Metrics(), 10_000, 100_000)
    others = [ended("beta", 1), refused("beta", 2)]
    for response in others:
        router.deliver(response)
    for n in range(500):
        router.deliver(ended("acme", n))
    assert all(held(router, response) for response in others)
    assert held(router, ended("acme", 499))


def test_an_alias_goes_with_its_responses() -> None:
    router = ResponseRouter(Metrics(), 4, 1 << 20)
    for n in range(1_000):
        router.deliver(refused("acme", n))
    assert len(router.cache._key_of) == 4


def test_queue_positions_of_one_tenant_push_out_no_others() -> None:
    router = ResponseRouter(Metrics(), 100, 1 << 20)
    router.deliver(Response("b", "beta-1:1", "beta", "place", position=3))
    for n in range(500):
        router.deliver(Response(f"a{n}", f"acme-1:{n}", "acme", "place", position=n))
    assert router.queue_position(("beta", "beta-1:1")) is not None
    assert router.queue_position(("acme", "acme-1:499")) is not None
    assert router.queue_position(("acme", "acme-1:0")) is None


operations = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 30), st.booleans(), st.booleans()), max_size=80
)


@given(operations, st.integers(1, 12), st.integers(20, 120))
def test_the_bounds_hold_and_only_the_largest_holder_loses(
    steps: list[tuple[str, int, int, bool, bool]], most: int, most_bytes: int
) -> None:
    shares: TenantShares[tuple[str, int, int]] = TenantShares(most, most_bytes)
    kept: dict[tuple[str, str], tuple[str, int, int]] = {}
    for tenant, name, size, least, drop in steps:
        key = (tenant, str(name))
        if drop:
            assert shares.pop(key) == kept.pop(key, None)
            continue
        value = (tenant, name, size)
        kept[key] = value
        gone = shares.put(key, value, size, least=least)
        for left in gone:
            del kept[left[0], str(left[1])]
        assert shares.count <= most
        assert shares.size <= most_bytes
        for loser in {left[0] for left in gone}:
            count = sum(k[0] == loser for k in kept) + sum(left[0] == loser for left in gone)
            sizes = sum(v[2] for v in (*kept.values(), *gone) if v[0] == loser)
            for other in set("abc") - {loser}:
                theirs = [v for k, v in kept.items() if k[0] == other]
                assert count >= len(theirs) or sizes >= sum(v[2] for v in theirs)
    assert {key: shares.get(key) for key in kept} == kept
    assert (shares.count, shares.size) == (len(kept), sum(v[2] for v in kept.values()))


@pytest.mark.parametrize("bound", [1, 2, 15, 16])
def test_a_small_table_holds_as_much_as_it_may(bound: int) -> None:
    shares: TenantShares[int] = TenantShares(bound)
    for n in range(40):
        shares.put(("acme", str(n)), n)
    assert shares.count == bound if bound < 16 else shares.count >= bound - 1
