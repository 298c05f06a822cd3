"""Limits as callers see them, through the whole pipeline: headers of every answer, and GET /v1/quota."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from pipeline.clock import now_ms
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.control.policy_file import read_policies
from pipeline.control.registry import Registry
from pipeline.control.table import ControlTable
from pipeline.embedded.supervisor import free_port
from pipeline.sections import Kafka
from tests.deployment_site import Deployment, furnished
from tests.patience import STUCK_S
from tests.stack.real_stages import serving, settled

ASKED: Any = {"model": "echo", "messages": [{"role": "user", "content": "What is a dog?"}], "max_tokens": 16}
TOLD = {f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")}


def settings_of(made: Deployment) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap=made.bootstrap, partitions=1),
        keys=Keys(home=made.home / "keys"),
        models=Models(home=made.home / "models"),
        gateway=Gateway(port=free_port()),
        generate=Generate(model="echo", watermark=False, fingerprints=False),
    )


def test_callers_see_what_is_left_of_their_limits(tmp_path: Path) -> None:
    with furnished(tmp_path, 1) as made:
        asyncio.run(scene(made, settings_of(made)))


async def scene(made: Deployment, settings: Settings) -> None:
    """The free plan: ten a minute, fifty an hour, two hundred a day; 100,000 tokens a day; four at once."""
    url = f"http://127.0.0.1:{settings.gateway.port}"
    key, began = made.keys["initech"], now_ms()
    async with serving(settings), openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as stock:
        async with asyncio.timeout(STUCK_S):
            before = await quota(url, key)
            assert [row["id"] for row in before] == ["minute", "hour", "day", "tokens-day", "open"]
            assert {(row["level"], row["remaining"], row["reset"], row["as_of"]) for row in before} == {
                ("tenant", None, None, None)
            }
            whole = await stock.chat.completions.with_raw_response.create(**ASKED)
            assert limits(whole.headers, "requests") == ("10", "9", "1m0s")
            tokens = limits(whole.headers, "tokens")
            assert tokens[0] == "100000"
            assert 99_900 < int(tokens[1]) < 100_000
            async with stock.chat.completions.with_streaming_response.create(**ASKED, stream=True) as stream:
                assert limits(stream.headers, "requests")[1] == "8"
            await settled(made.bootstrap, 1)
            for _ in range(8):
                await stock.chat.completions.create(**ASKED)
            with pytest.raises(openai.RateLimitError) as refused:
                await stock.chat.completions.create(**ASKED)
            assert limits(refused.value.response.headers, "requests")[:2] == ("10", "0")
            after = {row["id"]: row for row in await quota(url, key)}
    assert [after[name]["remaining"] for name in ("minute", "hour", "day")] == [0, 40, 190]
    assert all(began <= row["as_of"] <= now_ms() for row in after.values())
    assert after["minute"]["as_of"] < after["minute"]["reset"] <= after["minute"]["as_of"] + 60_000
    assert after["open"]["reset"] is None
    assert {row["period_s"] for row in after.values()} == {60, 3600, 86400, None}


METERED = """
[[model]]
id = "echo"
context = 4096
price = { input = 2000000, output = 8000000 }

[[plan]]
id = "metered"
models = ["echo"]
max_tokens = 64
tenant = [{ id = "spend", meter = "budget", unit = "cost", amount = 1000000, period = "month" }]
key = [{ id = "rpm", meter = "rate", amount = 60, burst = 6 }]

[plan.model]
"*" = [{ id = "tokens", meter = "rate", unit = "tokens", amount = 6000 }]
echo = [{ id = "prompts", meter = "rate", unit = "input_tokens", amount = 600 }]
"""


def test_limits_by_key_by_model_and_in_cost_are_seen_as_well(tmp_path: Path) -> None:
    with furnished(tmp_path, 1) as made:
        (tmp_path / "metered.toml").write_text(METERED)
        asyncio.run(metered_scene(made, settings_of(made)))


async def metered_scene(made: Deployment, settings: Settings) -> None:
    table = ControlTable(made.kafka, made.pin)
    await table.start()
    registry = Registry(made.kafka, table, made.keyring, made.signing)
    await registry.apply_policies(read_policies(made.home / "metered.toml"))
    await registry.add_tenant("hooli", "metered")
    key = await registry.add_key("hooli", "hooli-app")
    await registry.close()
    await table.close()
    url = f"http://127.0.0.1:{settings.gateway.port}"
    async with serving(settings), openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as stock:
        async with asyncio.timeout(STUCK_S):
            answer = await stock.chat.completions.with_raw_response.create(**ASKED)
            assert limits(answer.headers, "requests")[:2] == ("60", "5")
            rows = {(row["level"], row["id"]): row for row in await quota(url, key)}
    assert list(rows) == [("tenant", "spend"), ("model", "tokens"), ("model", "prompts"), ("key", "rpm")]
    assert [row["unit"] for row in rows.values()] == ["cost", "tokens", "input_tokens", "requests"]
    assert {rows["model", name]["model"] for name in ("tokens", "prompts")} == {"echo"}
    assert (rows["tenant", "spend"]["period"], rows["tenant", "spend"]["period_s"]) == ("month", None)
    # 2 for each token of the prompt's bound and 8 for each of the 16 that may come
    prompt = 600 - rows["model", "prompts"]["remaining"]
    assert rows["model", "tokens"]["remaining"] == 6000 - prompt - 16
    assert rows["tenant", "spend"]["remaining"] == 1_000_000 - 2 * prompt - 8 * 16


def limits(headers: Any, unit: str) -> tuple[str, str, str]:
    assert set(headers) >= TOLD
    limit, remaining, reset = (headers[f"x-ratelimit-{what}-{unit}"] for what in ("limit", "remaining", "reset"))
    return limit, remaining, reset


async def quota(url: str, key: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/quota", headers={"Authorization": f"Bearer {key[:-2]}xx"}) as refused:
            assert refused.status == 401
        async with session.get(f"{url}/v1/quota", headers={"Authorization": f"Bearer {key}"}) as answer:
            assert answer.status == 200
            body: dict[str, Any] = await answer.json()
    assert body["object"] == "list"
    found: list[dict[str, Any]] = body["data"]
    return found
