"""Two versions of a model behind the real stages: roll out, roll back and revoke under load; nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inference.registry.content import BUNDLE_FILE, MANIFEST_FILE
from inference.registry.keys import MANIFEST_ALGORITHMS, SigningKey
from inference.registry.release import RELEASE_KEYS, SHIPPED, ReleaseTerms, sign_folder
from inference.registry.traffic import WHOLE
from inference.registry.wrapping import TenantRecipient, create_worker
from pipeline import wiring
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.embedded.supervisor import free_port
from pipeline.events.codec import decode
from pipeline.events.messages import Access
from pipeline.events.records import Decision, Outcome
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.sections import Kafka
from tests.deployment_site import Deployment, furnished
from tests.patience import STUCK_S
from tests.stack.real_stages import serving, settled

CALLERS = 4


@dataclass
class Served:
    """What callers saw and what the log says after two roll-outs and a rollback under load."""

    statuses: list[int]
    decisions: list[Decision]
    outcomes: list[Outcome]
    acts: list[Access]
    places: list[int]


def settings(made: Deployment, trust: Path) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap=made.bootstrap, partitions=1),
        keys=Keys(home=made.home / "keys"),
        models=Models(home=made.home / "models", trust=str(trust)),
        gateway=Gateway(port=free_port()),
        generate=Generate(model="glossary", batch=1),
    )


def second_version(home: Path, trust: Path) -> Path:
    """The shipped weights under a later number, by keys that are trusted beside those of the release."""
    keys = [SigningKey.generate(name) for name in MANIFEST_ALGORITHMS]
    trust.write_bytes(RELEASE_KEYS.read_bytes() + b"".join(key.public.pem for key in keys))
    ignored = shutil.ignore_patterns(MANIFEST_FILE, BUNDLE_FILE)
    folder = shutil.copytree(SHIPPED, home / "second", ignore=ignored)
    now = int(time.time())
    sign_folder(
        folder, keys, ReleaseTerms(model="glossary", version=99, licence="MIT", issued=now - 5, expires=now + 3600)
    )
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("rollout")
    with furnished(home, 1) as made:
        yield asyncio.run(_serve(made, home))


async def _serve(made: Deployment, home: Path) -> Served:
    ours = settings(made, home / "trust.pem")
    folder = second_version(home, home / "trust.pem")
    url = f"http://127.0.0.1:{ours.gateway.port}"
    statuses: list[int] = []
    async with serving(ours):
        registry = wiring.models(ours)
        [first] = registry.versions("glossary")
        registry.add(folder, [TenantRecipient(made.keyring), create_worker(ours.keys.worker_key).address])

        async def operator() -> None:
            # the first answers are those of the first version
            await _more(statuses)
            registry.rollouts.roll("glossary", {first: 5_000, 99: 5_000})
            while not any((event.act, event.version) == ("load", 99) for event in registry.events()):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            await _more(statuses)
            registry.rollouts.roll("glossary", {99: WHOLE})
            await asyncio.sleep(2)
            await _more(statuses)
            registry.rollouts.rollback("glossary")
            await asyncio.sleep(2)
            await _more(statuses)

        headers = {"Authorization": f"Bearer {made.keys['acme']}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            rolling = asyncio.create_task(operator())
            places = asyncio.create_task(_places(made, session, url))
            while not rolling.done():
                await asyncio.gather(*(_ask(session, url, statuses) for _ in range(CALLERS)))
            await rolling
            found = await places
        decisions, outcomes = await settled(made.bootstrap, 1)
    return Served(
        statuses,
        decisions,
        outcomes,
        [decode(Access, value) for value in await _read(made, "access")],
        found,
    )


async def _ask(session: aiohttp.ClientSession, url: str, statuses: list[int]) -> None:
    body = {"prompt": "What is a dog?", "model": "glossary", "max_tokens": 12, "timeout_ms": 300_000}
    async with session.post(f"{url}/inference", json=body) as answer:
        await answer.read()
        statuses.append(answer.status)


async def _more(statuses: list[int]) -> None:
    """Until each caller has got two more answers."""
    wanted = len(statuses) + 2 * CALLERS
    while len(statuses) < wanted:  # noqa: ASYNC110 - callers ring no bell
        await asyncio.sleep(0.1)


async def _places(made: Deployment, session: aiohttp.ClientSession, url: str) -> list[int]:
    """Positions told of the last of many requests at an engine that runs one at a time, by Kafka's door."""
    names = [f"acme-app:place-{n}" for n in range(40)]
    asked: dict[str, Any] = {"model": "glossary", "max_tokens": 24, "timeout_ms": 300_000}
    records = [made.request("acme", name, counter=n + 1, **asked) for n, name in enumerate(names)]
    publisher = Publisher(made.kafka)
    await publisher.send_all([("requests", 0, b"acme", value, headers) for value, headers in records])
    await publisher.close()
    seen: list[int] = []
    async with asyncio.timeout(STUCK_S):
        while True:
            async with session.get(f"{url}/v1/requests/{names[-1]}") as answer:
                told = await answer.json()
                assert answer.status in (200, 202), told
                if answer.status == 200:
                    return seen
                if "queue" in told:
                    seen.append(told["queue"]["position"])
            await asyncio.sleep(0.2)


async def _read(made: Deployment, topic: str) -> list[bytes]:
    reader = PartitionReader(made.kafka, topic, 0)
    await reader.start(0)
    try:
        return [item.value for item in await reader.read_to_end()]
    finally:
        await reader.close()


def test_every_request_is_answered_through_roll_out_and_rollback(served: Served) -> None:
    assert len(served.statuses) >= 6 * CALLERS
    assert set(served.statuses) == {200}
    admitted = Counter(decision.request for decision in served.decisions if decision.verdict == "admit")
    assert Counter(outcome.request for outcome in served.outcomes) == admitted
    assert {outcome.result for outcome in served.outcomes} == {"finished"}


def test_every_outcome_names_the_model_and_the_version_that_answered(served: Served) -> None:
    assert {outcome.model for outcome in served.outcomes} == {"glossary"}
    versions = [outcome.version for outcome in sorted(served.outcomes, key=lambda outcome: outcome.time)]
    assert set(versions) == {1, 99}
    assert versions[0] == 1


def test_acts_on_the_registry_are_in_the_log_in_order(served: Served) -> None:
    acts = [(act.act, act.target) for act in served.acts if act.act.startswith("model.")]
    done = [act for act, _ in acts]
    assert done[:3] == ["model.add", "model.roll", "model.load"], "the first start"
    assert done.count("model.roll") == 3
    assert ("model.load", "glossary@99") in acts
    assert ("model.rollback", "glossary@1") in acts or ("model.rollback", "glossary@99") in acts
    assert len(acts) == len({(act.time, act.act, act.target) for act in served.acts if act.act.startswith("model.")})


def test_who_waits_is_told_a_place_that_comes_nearer(served: Served) -> None:
    assert served.places, "nothing was told"
    assert max(served.places) > 1
    assert min(served.places) < max(served.places)
    assert all(place >= 1 for place in served.places)
