"""The cost of a flooding tenant to another, on the worker that both share and with a worker of the other's own.

The quiet tenant asks at an even pace, the flood asks again at once with every client. The same stack, model and
machine; only the quiet tenant's plan changes between the two halves. Best of the rounds for each figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import aiohttp

from pipeline import wiring
from pipeline.embedded.stack import LocalStack
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, parse
from tests.bench.rows import Measurement, percentile
from tests.bench.stack import opened

ROUNDS, QUESTIONS = 3, 20
PACE_S = 1.0
CLIENTS = 24
QUIET_TOKENS, FLOOD_TOKENS = 24, 64
_READY_S = 120.0
_WORDS = ("dog", "river", "house", "music", "winter", "bridge", "garden", "letter")
_OPEN = {"id": "open", "meter": "open", "amount": 10**6}


def plans() -> list[AnyDocument]:
    """The same plan twice; under one of them a tenant has a worker of its own."""
    plan = {"doc": "plan", "models": ["glossary"], "max_tokens": 256, "tenant": [_OPEN]}
    tiers = ({"id": "with-others", "isolation": "shared"}, {"id": "alone", "isolation": "process"})
    return [parse(encode({**plan, **tier})) for tier in tiers]


def measure() -> list[Measurement]:
    """Latency of the quiet tenant by tier, with and without the flood, and what the flood got done."""
    with opened("glossary") as stack:
        keys = asyncio.run(_keys(stack))
        return asyncio.run(_measure(stack, keys))


async def _keys(stack: LocalStack) -> dict[str, str]:
    async with wiring.registry(stack.settings) as hand:
        await hand.apply_policies(plans())
        for tenant in ("quiet", "flood"):
            await hand.add_tenant(tenant, "with-others")
        return {tenant: await hand.add_key(tenant, f"{tenant}-app") for tenant in ("quiet", "flood")}


async def _measure(stack: LocalStack, keys: dict[str, str]) -> list[Measurement]:
    rows = []
    async with _caller(keys["quiet"]) as quiet, _caller(keys["flood"]) as flood:
        for tier, plan in (("shared", "with-others"), ("own process", "alone")):
            await _under(stack, plan)
            await _until_served(stack, quiet)
            rows += await _tier(stack, tier, quiet, flood)
    return rows


async def _tier(
    stack: LocalStack, tier: str, quiet: aiohttp.ClientSession, flood: aiohttp.ClientSession
) -> list[Measurement]:
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    done: list[float] = []
    for _ in range(ROUNDS):
        alone.append(await _paced(stack, quiet))
        async with _flooding(stack, flood) as count:
            began = time.perf_counter()
            beside.append(await _paced(stack, quiet))
            done.append(len(count) / (time.perf_counter() - began))
    load = (
        f"{QUESTIONS} questions of {QUIET_TOKENS} tokens every {PACE_S:g} s, best of {ROUNDS}; flood: {CLIENTS} "
        f"clients, {FLOOD_TOKENS} tokens; load average {os.getloadavg()[0]:.1f}"
    )
    rows = []
    for name, rounds in (("without flood", alone), ("beside the flood", beside)):
        for share in (0.5, 0.99):
            value = min(percentile(took, share) for took in rounds) * 1000
            rows.append(Measurement("isolation", f"{tier}, {name}, p{share * 100:.0f}", load, value, "ms"))
    return [*rows, Measurement("isolation", f"{tier}, flood", load, max(done), "answers/s")]


@contextlib.asynccontextmanager
async def _caller(key: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def _ask(stack: LocalStack, session: aiohttp.ClientSession, number: int, tokens: int) -> float:
    prompt = f"What is a {_WORDS[number % len(_WORDS)]}?"
    body = {"prompt": prompt, "model": "glossary", "max_tokens": tokens, "temperature": 0.7, "timeout_ms": 120_000}
    began = time.perf_counter()
    async with session.post(f"{stack.url}/inference", json=body) as answer:
        text = await answer.text()
        if answer.status != 200:
            raise RuntimeError(f"expected 200 of the gateway, got {answer.status}: {text}")
    return time.perf_counter() - began


async def _paced(stack: LocalStack, session: aiohttp.ClientSession) -> list[float]:
    async def one(number: int) -> float:
        await asyncio.sleep(number * PACE_S)
        return await _ask(stack, session, number, QUIET_TOKENS)

    return await asyncio.gather(*(one(number) for number in range(QUESTIONS)))


@contextlib.asynccontextmanager
async def _flooding(stack: LocalStack, session: aiohttp.ClientSession) -> AsyncIterator[list[float]]:
    """The flood while the block runs; gives what it got done so far."""
    took: list[float] = []

    async def client(first: int) -> None:
        number = first
        while True:
            took.append(await _ask(stack, session, number, FLOOD_TOKENS))
            number += CLIENTS

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    await asyncio.sleep(2)
    took.clear()
    try:
        yield took
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _under(stack: LocalStack, plan: str) -> None:
    async with wiring.registry(stack.settings) as hand:
        await hand.change_tenant("quiet", plan=plan)


async def _until_served(stack: LocalStack, session: aiohttp.ClientSession) -> None:
    """Until the worker that the plan asks for is up: a question before it would wait for it."""
    async with asyncio.timeout(_READY_S):
        name = "generate.quiet"
        async with wiring.registry(stack.settings) as hand:
            own = hand.control.plans[hand.control.tenants["quiet"].plan].isolation != "shared"
        while own and name not in stack.stages:
            await asyncio.to_thread(stack.supervise_once)
            await asyncio.sleep(0.5)
        await _ask(stack, session, 0, QUIET_TOKENS)
