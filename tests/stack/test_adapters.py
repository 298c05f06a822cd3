"""A tenant's adapter over the whole path: asked for by name, loaded from the registry, named in the log; its alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import torch
from safetensors.torch import save_file

from inference.engines.torch import shipped_model
from inference.model.transformer import load_model
from inference.registry.keys import MANIFEST_ALGORITHMS, SigningKey
from inference.registry.manifest import Parent
from inference.registry.opening import read_manifest
from inference.registry.release import RELEASE_KEYS, SHIPPED, ReleaseTerms, sign_folder
from inference.registry.source import PlainFolder
from inference.registry.traffic import WHOLE
from inference.registry.wrapping import TenantRecipient, create_worker
from pipeline import wiring
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.embedded.supervisor import free_port
from pipeline.events.control import Model
from pipeline.events.records import Decision, Outcome
from pipeline.sections import Kafka
from tests.deployment_site import Deployment, furnished
from tests.stack.real_stages import serving, settled

OWN, LOST, FOREIGN = "glossary:acme", "glossary:lost", "glossary:foreign"
QUESTION = "What is a dog?"


@dataclass
class Served:
    """Status with the text or the error's code, by (tenant, model); the models each was told of; what the log says."""

    answers: dict[tuple[str, str], tuple[int, str]]
    told: dict[str, list[str]]
    decisions: list[Decision]
    outcomes: list[Outcome]


def settings(made: Deployment, trust: Path) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap=made.bootstrap, partitions=1),
        keys=Keys(home=made.home / "keys"),
        models=Models(home=made.home / "models", trust=str(trust)),
        gateway=Gateway(port=free_port()),
        generate=Generate(model="glossary"),
    )


def signed_adapter(folder: Path, keys: list[SigningKey], name: str, parent: Parent) -> Path:
    """Loud enough to be heard: it turns the model's answers into others."""
    draw = torch.Generator().manual_seed(3)
    tensors = {}
    for place, module in load_model(shipped_model()).named_modules():
        if place.endswith(("q_proj", "down_proj")):
            outputs, inputs = module.weight.shape
            tensors[f"base_model.model.{place}.lora_A.weight"] = torch.randn((4, inputs), generator=draw) * 0.3
            tensors[f"base_model.model.{place}.lora_B.weight"] = torch.randn((outputs, 4), generator=draw) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    now = int(time.time())
    sign_folder(
        folder,
        keys,
        ReleaseTerms(
            model=name, version=1, licence="MIT", issued=now - 5, expires=now + 3600, kind="adapter", parent=parent
        ),
    )
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("adapters")
    with furnished(home, 1) as made:
        yield asyncio.run(_serve(made, home))


async def _serve(made: Deployment, home: Path) -> Served:
    keys = [SigningKey.generate(name) for name in MANIFEST_ALGORITHMS]
    trust = home / "trust.pem"
    trust.write_bytes(RELEASE_KEYS.read_bytes() + b"".join(key.public.pem for key in keys))
    ours = settings(made, trust)
    manifest, digest = read_manifest(PlainFolder(SHIPPED), wiring.model_trust(ours))
    url = f"http://127.0.0.1:{ours.gateway.port}"
    async with wiring.registry(ours) as hand:
        await hand.apply_policies(
            [
                Model(id=OWN, context=1024, tenant="acme", base="glossary", adapter="acme-tone"),
                Model(id=LOST, context=1024, tenant="acme", base="glossary", adapter="not-there"),
                Model(id=FOREIGN, context=1024, tenant="acme", base="glossary", adapter="of-another-base"),
            ]
        )
    async with serving(ours):
        registry = wiring.models(ours)
        for name, parent in (
            ("acme-tone", Parent("glossary", manifest.version, digest)),
            ("of-another-base", Parent("glossary", manifest.version, "0" * 64)),
        ):
            folder = signed_adapter(home / name, keys, name, parent)
            registry.add(folder, [TenantRecipient(made.keyring), create_worker(ours.keys.worker_key).address])
            registry.rollouts.roll(name, {1: WHOLE})
        answers, told = {}, {}
        async with aiohttp.ClientSession() as session:
            for tenant in ("acme", "globex"):
                headers = {"Authorization": f"Bearer {made.keys[tenant]}"}
                for model in ("glossary", OWN, LOST, FOREIGN):
                    body = {"prompt": QUESTION, "model": model, "max_tokens": 12, "timeout_ms": 120_000}
                    async with session.post(f"{url}/inference", json=body, headers=headers) as got:
                        found = await got.json()
                        said = found["text"] if got.status == 200 else found["error"]["code"]
                        answers[tenant, model] = (got.status, said)
                async with session.get(f"{url}/v1/models", headers=headers) as got:
                    told[tenant] = [entry["id"] for entry in (await got.json())["data"]]
        return Served(answers, told, *await settled(made.bootstrap, 1))


def test_the_owner_is_answered_through_its_adapter(served: Served) -> None:
    (status, text), (_, plain) = served.answers["acme", OWN], served.answers["acme", "glossary"]
    assert status == 200
    assert text
    assert text != plain
    assert served.answers["globex", "glossary"] == (200, plain)


def test_the_outcome_names_the_adapter_and_its_version(served: Served) -> None:
    finished = {outcome.model: outcome for outcome in served.outcomes if outcome.result == "finished"}
    assert (finished[OWN].tenant, finished[OWN].adapter, finished[OWN].version) == ("acme", "acme-tone@1", 1)
    assert finished["glossary"].adapter == ""


def test_for_another_tenant_it_does_not_exist(served: Served) -> None:
    assert {served.answers["globex", model] for model in (OWN, LOST, FOREIGN)} == {(404, "unknown_model")}
    assert OWN in served.told["acme"]
    assert not [name for name in served.told["globex"] if ":" in name]
    refused = [decision for decision in served.decisions if decision.tenant == "globex" and decision.reasons]
    assert {decision.reasons for decision in refused} == {("unknown_model",)}


def test_one_that_cannot_be_loaded_fails_its_own_request_alone(served: Served) -> None:
    for model in (LOST, FOREIGN):
        assert served.answers["acme", model][0] >= 500
    failed = [outcome for outcome in served.outcomes if outcome.result == "failed"]
    assert {outcome.model for outcome in failed} == {LOST, FOREIGN}
    assert {(outcome.input_tokens, outcome.output_tokens) for outcome in failed} == {(0, 0)}
