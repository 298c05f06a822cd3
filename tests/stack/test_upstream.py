"""Another server's model behind the whole path: streamed, salted by tenant, charged as told, honest where it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline import wiring
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.control.policy_file import read_policies
from pipeline.embedded.supervisor import free_port
from pipeline.events.control import AnyDocument, Model, Plan
from pipeline.events.records import Decision, Outcome
from pipeline.metrics import OVERSHOOT
from pipeline.sections import Kafka, Status
from tests.deployment_site import POLICIES, Deployment, furnished
from tests.model_server import KEY, ModelServer
from tests.model_server import serving as upstream
from tests.stack.completions_site import derived
from tests.stack.real_stages import serving, settled

MODEL = "somebody-elses"
WORDS = "one two three four five six"
ESTIMATED = "somebody-elses-estimated"
"""The same server's, under a document with a margin."""
MARGIN = 25
ALWAYS_BUSY, BROKEN_OFF = "500 always", "broken off"


@dataclass
class Served:
    streamed: list[dict[str, Any]]
    """Events of one answer, in order."""
    answers: dict[str, tuple[int, str]]
    """Status and body, by tenant or by how the server misbehaved."""
    asked: list[tuple[str, dict[str, Any]]]
    """Bearer and body of what the server was asked before it misbehaved."""
    outcomes: list[Outcome]
    greedy: dict[str, tuple[Decision, Outcome]]
    """What became of a request whose usage the server told as far above its bound, by model."""
    overshoot: float
    """Of the metrics of admit."""


def settings(made: Deployment, url: str) -> Settings:
    secret = made.home / "upstream-key"
    secret.write_text(f"{KEY}\n")
    return Settings(
        kafka=Kafka(bootstrap=made.bootstrap, partitions=1),
        keys=Keys(home=made.home / "keys"),
        models=Models(home=made.home / "models"),
        gateway=Gateway(port=free_port()),
        status=Status(port=free_port()),
        generate=Generate(model=MODEL, upstream=url, upstream_key_file=str(secret)),
    )


def offering() -> list[AnyDocument]:
    """Every plan of the default, with that model."""
    plans = [document for document in read_policies(POLICIES) if isinstance(document, Plan)]
    extended = [plan.model_copy(update={"models": (*plan.models, MODEL, ESTIMATED)}) for plan in plans]
    return [Model(id=MODEL, context=4096), Model(id=ESTIMATED, context=4096, margin=MARGIN), *extended]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home: Path = tmp_path_factory.mktemp("upstream")
    with furnished(home, 1) as made, upstream() as server:
        yield asyncio.run(_serve(made, server))


async def _serve(made: Deployment, server: ModelServer) -> Served:
    ours = settings(made, server.url)
    async with wiring.registry(ours) as hand:
        await hand.apply_policies(offering())
        planted = {tenant: hand.canary(tenant) for tenant in ("acme", "globex")}
    url = f"http://127.0.0.1:{ours.gateway.port}"
    answers: dict[str, tuple[int, str]] = {}
    async with serving(ours), aiohttp.ClientSession(url) as http:
        streamed = await _stream(http, made.keys["acme"])
        for tenant in ("acme", "globex", "acme"):
            answers[tenant] = await _ask(http, made.keys[tenant])
        asked = list(zip(server.keys, server.asked, strict=True))
        for tenant, canary in planted.items():
            answers[f"planted by {tenant}"] = await _ask(http, made.keys["acme"], f"it is {canary} they say")
        for fault in (ALWAYS_BUSY, BROKEN_OFF):
            server.acting = fault
            answers[fault] = await _ask(http, made.keys["acme"])
        _, outcomes = await settled(made.bootstrap, 1)
        server.acting = "greedy"
        for model in (MODEL, ESTIMATED):
            answers[model] = await _ask(http, made.keys["acme"], model=model)
        decisions, ends = await settled(made.bootstrap, 1)
        await derived(made)
        ended, asked_of = {end.request: end for end in ends}, {one.facts.model: one for one in decisions}
        greedy = {model: (asked_of[model], ended[asked_of[model].request]) for model in (MODEL, ESTIMATED)}
        async with http.get(f"http://127.0.0.1:{ours.status.port}/metrics") as answer:
            overshoot = _value(await answer.text(), OVERSHOOT)
        return Served(streamed, answers, asked, outcomes, greedy, overshoot)


def _value(metrics: str, name: str) -> float:
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name} "))


def _body(text: str = WORDS, **fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 16, **fields}


async def _ask(http: aiohttp.ClientSession, key: str, text: str = WORDS, **fields: object) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post("/v1/chat/completions", json=_body(text, **fields), headers=headers) as answer:
        return answer.status, await answer.text()


async def _stream(http: aiohttp.ClientSession, key: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post("/v1/chat/completions", json=_body(stream=True), headers=headers) as answer:
        assert answer.status == 200
        lines = [line[6:] async for line in answer.content if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def test_the_answer_is_streamed_from_the_server(served: Served) -> None:
    said = [choice["delta"].get("content", "") for event in served.streamed for choice in event["choices"]]
    assert "".join(said) == WORDS
    status, body = served.answers["acme"]
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, WORDS)


def test_each_tenant_has_a_salt_of_its_own_and_no_name(served: Served) -> None:
    salts = [asked["cache_salt"] for _, asked in served.asked]
    assert salts[0] == salts[1] == salts[3] != salts[2]
    for bearer, asked in served.asked:
        assert bearer == f"Bearer {KEY}"
        assert asked["messages"] == [{"role": "user", "content": WORDS}]
        assert not any(tenant in json.dumps(asked) for tenant in ("acme", "globex"))


def test_tokens_are_charged_as_the_server_counts_them(served: Served) -> None:
    finished = [outcome for outcome in served.outcomes if outcome.result == "finished"]
    assert len(finished) == 5
    assert {outcome.output_tokens for outcome in finished[:4]} == {len(WORDS.split())}
    assert all(outcome.input_tokens > 0 and outcome.model == MODEL for outcome in finished)


def test_an_answer_with_another_tenants_canary_is_withheld(served: Served) -> None:
    (own, mine), (foreign, theirs) = served.answers["planted by acme"], served.answers["planted by globex"]
    assert (own, foreign) == (200, 403)
    assert json.loads(mine)["choices"][0]["finish_reason"] == "stop"
    error = json.loads(theirs)["error"]
    assert (error["code"], "they say" in theirs) == ("withheld", False)
    assert "output.foreign" in error["message"]
    [withheld] = [outcome for outcome in served.outcomes if outcome.result == "withheld"]
    assert [finding.rule for finding in withheld.findings] == ["output.foreign.canary"]


def test_a_server_that_fails_is_an_error_that_says_so_and_quotes_nothing(served: Served) -> None:
    for fault in (ALWAYS_BUSY, BROKEN_OFF):
        status, body = served.answers[fault]
        assert status >= 500
        error = json.loads(body)["error"]
        assert error["message"]
        assert "xyzzy" not in body
    failed = [outcome for outcome in served.outcomes if outcome.result == "failed"]
    assert len(failed) == 2
    assert {outcome.finish for outcome in failed} == {"error"}


def test_usage_above_its_bound_is_charged_in_full_and_counted_where_it_is_estimated(served: Served) -> None:
    asked, ended = served.greedy[ESTIMATED]
    reserved = -(-asked.facts.input_bound * (100 + MARGIN) // 100) + 16
    assert {charge.amount for charge in asked.charges if charge.unit == "tokens"} == {reserved}
    assert (ended.result, ended.input_tokens, ended.output_tokens) == ("finished", 99_999, 1)
    assert ended.overshoot == served.overshoot == 100_000 - reserved
    charged = {charge.amount for charge in ended.charges if charge.unit == "tokens" and charge.meter != "open"}
    assert charged == {ended.overshoot}


def test_usage_above_its_bound_is_charged_to_nobody_where_it_is_not_estimated(served: Served) -> None:
    asked, ended = served.greedy[MODEL]
    assert (ended.result, ended.input_tokens, ended.overshoot) == ("finished", asked.facts.input_bound, 0)
    assert served.answers[MODEL][0] == served.answers[ESTIMATED][0] == 200
