"""Log-probabilities and logit bias through the whole pipeline, with the shipped model and a stock client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from inference.watermark.secrets import create_master
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.embedded.supervisor import free_port
from pipeline.sections import Kafka
from tests.deployment_site import furnished
from tests.patience import STUCK_S
from tests.stack.real_stages import serving

ASKED = [{"role": "user", "content": "What is a dog?"}]


def test_what_the_plan_allows_is_told_and_nothing_else(tmp_path: Path) -> None:
    with furnished(tmp_path, 1) as made:
        settings = Settings(
            kafka=Kafka(bootstrap=made.bootstrap, partitions=1),
            keys=Keys(home=made.home / "keys"),
            models=Models(home=made.home / "models"),
            gateway=Gateway(port=free_port()),
            generate=Generate(model="glossary", threads=1),
        )
        create_master(settings.keys.watermark_key)
        asyncio.run(_scene(settings, made.keys))


async def _scene(settings: Settings, keys: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{settings.gateway.port}/v1"
    async with serving(settings):
        async with openai.AsyncOpenAI(base_url=url, api_key=keys["acme"], max_retries=0, timeout=STUCK_S) as allowed:
            await _told(allowed)
        async with openai.AsyncOpenAI(base_url=url, api_key=keys["globex"], max_retries=0, timeout=STUCK_S) as refused:
            with pytest.raises(openai.PermissionDeniedError, match="tells fewer log-probabilities"):
                await refused.chat.completions.create(model="glossary", messages=ASKED, logprobs=True)  # type: ignore[arg-type]
            with pytest.raises(openai.PermissionDeniedError, match="logit_bias"):
                await refused.chat.completions.create(model="glossary", messages=ASKED, logit_bias={"5": 1})  # type: ignore[arg-type]


async def _told(client: openai.AsyncOpenAI) -> None:
    asked = {"model": "glossary", "messages": ASKED, "max_tokens": 8}
    whole = await client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)  # type: ignore[call-overload]
    choice = whole.choices[0]
    tokens = choice.logprobs.content
    assert b"".join(bytes(one.bytes) for one in tokens).decode() == choice.message.content
    assert len(tokens) == whole.usage.completion_tokens
    assert {len(one.top_logprobs) for one in tokens} == {2}
    # greedy: the likeliest is what was drawn
    assert all(one.logprob == one.top_logprobs[0].logprob <= 0 for one in tokens)
    streamed = [
        one
        async for one in await client.chat.completions.create(**asked, logprobs=True, top_logprobs=2, stream=True)  # type: ignore[call-overload]
    ]
    last = next(one.choices[0] for one in reversed(streamed) if one.choices)
    assert [one.token for one in last.logprobs.content] == [one.token for one in tokens]
    other = await client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert other.choices[0].logprobs is None
    assert other.choices[0].message.content == choice.message.content
