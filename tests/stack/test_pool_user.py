"""An isolated tenant's own worker on the embedded stack is a user of its own at the brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from pipeline import wiring
from pipeline.embedded.stack import LocalStack, Ports
from pipeline.embedded.supervisor import free_port
from pipeline.events.control import Plan
from tests.deployment_site import CACHE
from tests.patience import STUCK_S


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    ports = Ports(free_port(), free_port(), free_port(), free_port())
    made = LocalStack(tmp_path / "home", CACHE, ports, {"SLUICE_GENERATE__MODEL": "echo"})
    try:
        made.start(print)
        yield made
    finally:
        made.stop()


async def isolated(stack: LocalStack) -> str:
    async with wiring.registry(stack.settings) as hand:
        await hand.apply_policies([Plan(id="alone", models=("echo",), isolation="process")])
        await hand.add_tenant("acme", "alone")
        return await hand.add_key("acme", "acme-app")


async def answer(stack: LocalStack, key: str) -> str:
    body = {"prompt": "hello", "model": "echo", "max_tokens": 8}
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as http, http.post(f"{stack.url}/inference", json=body, headers=headers) as got:
        return str((await got.json()).get("text", ""))


def test_its_worker_has_a_password_and_rights_of_its_own_and_serves(stack: LocalStack) -> None:
    key, end = asyncio.run(isolated(stack)), time.monotonic() + STUCK_S
    while "generate.acme" not in stack.stages:
        stack.supervise_once()
        assert time.monotonic() < end
        time.sleep(0.2)
    assert asyncio.run(answer(stack, key))
    assert stack.stages["generate.acme"].alive()
    assert (stack.home / "keys" / "kafka" / "generate-acme").is_file()
    assert asyncio.run(wiring.check_rights(stack.settings)) == []
