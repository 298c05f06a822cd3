"""``sluice watermark`` beside a running stack: answers, gathered from the sealed records, are traced to a tenant."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inference.types import SCHEME
from inference.watermark.keys import epoch_of
from pipeline import wiring
from pipeline.cli import main
from pipeline.clickhouse.outcomes import sealed_outcomes
from pipeline.embedded.stack import LocalStack, Ports
from pipeline.embedded.supervisor import free_port
from pipeline.events.records import Outcome
from tests.deployment_site import CACHE
from tests.patience import looks

WORDS = ("zyzzyva", "quixotry", "oxbow", "gnomon", "fjord", "axolotl", "tmesis", "sphinx", "cwm", "umlaut", "iamb")
"""Hardly known to the model, so that it has much to choose from."""
FORMS = ("What is a {}?", "Define {}")
PLANS = {"acme": "enterprise", "globex": "enterprise"}


@dataclass
class Traced:
    """``texts`` by tenant as callers got them; exit code and document of each command, by name."""

    texts: dict[str, list[str]]
    told: dict[str, tuple[int, Any]]
    outcomes: list[Outcome]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    home = tmp_path_factory.mktemp("tracing")
    stack = LocalStack(home / "home", CACHE, Ports(free_port(), free_port(), free_port(), free_port()))
    try:
        stack.start(print)
        texts = asyncio.run(_asked(stack))
        outcomes = _sealed(stack, sum(map(len, texts.values())))
        yield Traced(texts, _commands(stack, home, texts), outcomes)
    finally:
        stack.stop()


async def _asked(stack: LocalStack) -> dict[str, list[str]]:
    keys = {}
    async with wiring.registry(stack.settings) as hand:
        for tenant, plan in PLANS.items():
            await hand.add_tenant(tenant, plan)
            keys[tenant] = await hand.add_key(tenant, f"{tenant}-app")
    async with aiohttp.ClientSession(stack.url) as http:

        async def one(tenant: str, question: str) -> str:
            body = {
                "model": "glossary",
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 60,
                "temperature": 1.5,
            }
            headers = {"Authorization": f"Bearer {keys[tenant]}"}
            async with http.post("/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["choices"][0]["message"]["content"])

        questions = [form.format(word) for word in WORDS for form in FORMS]
        return {tenant: await asyncio.gather(*(one(tenant, question) for question in questions)) for tenant in PLANS}


def _sealed(stack: LocalStack, count: int) -> list[Outcome]:
    with wiring.store(stack.settings) as store:
        for _ in looks():
            found = list(sealed_outcomes(store, 0))
            if len(found) == count:
                break
            time.sleep(0.1)
    return found


def _commands(stack: LocalStack, home: Path, texts: dict[str, list[str]]) -> dict[str, tuple[int, Any]]:
    base, leak, copied = home / "answers.db", home / "leak.txt", home / "copied.txt"
    leak.write_text("\n".join(texts["globex"]))
    copied.write_text("They told me: " + max(texts["acme"], key=len).upper())
    other = home / "other.txt"
    other.write_text("The river rose in the night and by morning the bridge was gone, so we walked around by the mill.")
    commands = {
        "gather": ["gather", str(base)],
        "gather again": ["gather", str(base)],
        "find": ["find", str(base), str(copied)],
        "find other": ["find", str(base), str(other)],
        "detect": ["detect", str(leak), "--epochs", "2"],
        "detect other": ["detect", str(other)],
    }
    return {name: _command(stack.home, *words) for name, words in commands.items()}


def _command(home: Path, *words: str) -> tuple[int, Any]:
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("sys.stdout", type("Sink", (), {"write": said.append, "flush": lambda self: None})())
        code = main(["--home", str(home), "watermark", *words, "--json"])
    return code, json.loads("".join(said))


def test_every_answer_is_gathered_from_the_sealed_records_once(traced: Traced) -> None:
    code, (row,) = traced.told["gather"]
    kept = [outcome for outcome in traced.outcomes if outcome.fingerprints]
    assert (code, row["answers"]) == (0, len(kept))
    assert len(kept) > len(WORDS)
    assert traced.told["gather again"] == (0, [{"answers": 0, "fingerprints": 0}])


def test_a_copied_answer_leads_to_the_sealed_record_of_its_request(traced: Traced) -> None:
    code, rows = traced.told["find"]
    assert code == 1
    records = {outcome.request: outcome for outcome in traced.outcomes}
    assert rows[0]["tenant"] == "acme" == records[rows[0]["name"]].tenant
    assert rows[0]["share"] > 0.5
    assert traced.told["find other"] == (0, [])


def test_a_leaked_collection_is_attributed_to_its_tenant_among_all_in_control(traced: Traced) -> None:
    code, found = traced.told["detect"]
    assert (code, found["attributed"], found["best"]["tenant"]) == (1, True, "globex")
    assert found["tried"] == 2 * len(PLANS)
    code, other = traced.told["detect other"]
    assert (code, other["attributed"]) == (0, False)


def test_the_record_says_what_was_marked_and_in_which_epoch(traced: Traced) -> None:
    marks = [outcome.watermark for outcome in traced.outcomes if outcome.watermark is not None]
    assert len(marks) == len(traced.outcomes)
    now = epoch_of(time.time_ns() // 1_000_000)
    assert {(mark.scheme, mark.skipped) for mark in marks} == {(SCHEME, "")}
    assert {mark.epoch for mark in marks} <= {now - 1, now}
    assert sum(mark.marked for mark in marks) > 100
    assert traced.told["detect"][1]["best"]["epoch"] in {mark.epoch for mark in marks}
