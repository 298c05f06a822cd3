"""A reader that has not read of a newer key yet reads on before it answers: no genuine request is refused for that."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.admit.clocks import Clocks
from pipeline.admit.drafts import DecryptedBatch, Raw
from pipeline.admit.intake import RequestReader
from pipeline.errors import Malformed, Retryable
from pipeline.events import wire
from pipeline.events.control import Key
from pipeline.events.messages import Response, Work
from pipeline.gateway.auth import authenticate, bearer
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.state import GatewayState
from pipeline.generate.opened_work import opened_messages
from pipeline.keys import encryption
from pipeline.keys.keyring import GrantedKeys
from pipeline.keys.rotation import SecretKind, rewrapped_key, rotated
from pipeline.keys.vault import Vault
from tests.unit.pipeline.keys.key_world import BOUND, SECRET, KeyReader, KeyWorld

MESSAGES = msgspec.json.encode([{"role": "user", "content": "What is a dog?"}])
NOW = int(time.time() * 1000)
CLOCKS = Clocks(NOW, NOW, NOW)


@pytest.fixture
def world(tmp_path: Path) -> KeyWorld:
    return KeyWorld(tmp_path / "keyring.json")


def replace(world: KeyWorld, kind: SecretKind) -> None:
    world.put(rotated(world.kms, world.tenant, kind, NOW))


def record(world: KeyWorld, offset: int, *, direct: bool = False) -> Raw:
    """One request as the gateway writes it, or a direct producer, with the keys of now."""
    bound = encryption.associated_data("g1", "acme", *BOUND)
    if direct:
        content = os.urandom(32)
        wrap = encryption.wrap_content_key(base64.b64decode(world.tenant.hpke_public), content)
        sealed = encryption.encrypt_text(content, bound, MESSAGES, os.urandom)
    else:
        sealed, wrap = world.seal(MESSAGES), b""
    value = msgspec.json.encode(wire.InferenceBody(model="echo", max_tokens=8, sealed=sealed))
    signed = {"time": NOW, "session": "s", "counter": offset + 1, "wrap": wrap}
    return Raw(offset, NOW, value, wire.sign(SECRET, "k1", "r1", "inference", value, **signed))  # type: ignore[arg-type]


def read(reader: KeyReader, *raws: Raw) -> tuple[list[str], KeyReader]:
    """Faults of the records as admit reads them."""
    requests = RequestReader(reader.control, reader.vault, 0, reader.caught_up)
    opened = requests.open(raws, CLOCKS)
    asyncio.run(requests.learn_keys(opened))
    return faults(opened), reader


def faults(opened: DecryptedBatch) -> list[str]:
    return [draft.fault for draft in opened._drafts]


@pytest.mark.parametrize("direct", [False, True])
def test_admit_reads_on_once_for_a_batch_and_opens_all_of_it(world: KeyWorld, direct: bool) -> None:
    before, behind = record(world, 0, direct=direct), world.behind()
    replace(world, "hpke" if direct else "data")
    found, reader = read(behind, before, *(record(world, at, direct=direct) for at in range(1, 9)))
    assert found == [""] * 9
    assert reader.looks == 1


def test_admit_looks_for_no_key_where_all_are_known(world: KeyWorld) -> None:
    found, reader = read(world.behind(), record(world, 0), record(world, 1, direct=True))
    assert (found, reader.looks) == (["", ""], 0)


def test_a_wrap_that_no_key_opens_is_refused_after_one_look(world: KeyWorld) -> None:
    other = KeyWorld(world.path.with_name("other.json"))
    found, reader = read(world.behind(), record(other, 0, direct=True), record(world, 1))
    assert (found, reader.looks) == (["undecryptable", ""], 1)


def test_nothing_is_refused_while_control_cannot_be_read(world: KeyWorld) -> None:
    behind = world.behind()
    replace(world, "data")
    behind.reachable = False
    with pytest.raises(Retryable, match="control could not be read"):
        read(behind, record(world, 0))


def work(world: KeyWorld) -> Work:
    made: dict[str, Any] = {field.name: "" for field in msgspec.structs.fields(Work) if field.required}
    made |= {"tenant": "acme", "client_request": "r1", "sealed": world.seal(MESSAGES)}
    return Work(**{**made, "deadline": int(time.time() * 1000) + 30_000})


def test_a_worker_reads_on_before_it_calls_work_unreadable(world: KeyWorld) -> None:
    behind = world.behind()
    replace(world, "data")
    table: Any = behind
    [message] = asyncio.run(opened_messages(table, behind.vault, work(world)))
    assert (message.content, behind.looks) == ("What is a dog?", 1)
    with pytest.raises(Malformed):
        asyncio.run(opened_messages(table, behind.vault, work(KeyWorld(world.path.with_name("other.json")))))


def test_a_tenants_own_worker_waits_until_it_is_granted_the_key(world: KeyWorld, tmp_path: Path) -> None:
    path = tmp_path / "granted.json"
    GrantedKeys.write(path, world.kms, {"data/acme": world.tenant.data_key})
    vault = Vault(GrantedKeys(path), world.control)
    replace(world, "data")
    table: Any = world.behind()

    async def scene() -> str:
        waiting = asyncio.create_task(opened_messages(table, vault, work(world)))
        await asyncio.sleep(0)
        assert not waiting.done()
        GrantedKeys.write(path, world.kms, {"data/acme": world.tenant.data_key})
        return (await waiting)[0].content

    assert asyncio.run(scene()) == "What is a dog?"


def test_a_gateway_reads_on_before_it_delivers_an_answer(world: KeyWorld) -> None:
    behind = world.behind()
    old, told = world.seal(), SimpleNamespace(control=behind.control, vault=behind.vault)
    told._caught_up = behind.caught_up
    replace(world, "data")
    answers = [Response("g1-0-0", "r1", "acme", "chunk", sealed=sealed) for sealed in (old, world.seal(), world.seal())]
    gateway: Any = told
    asyncio.run(GatewayState._learn_keys(gateway, answers[:1]))
    assert behind.looks == 0
    asyncio.run(GatewayState._learn_keys(gateway, answers))
    assert behind.looks == 1
    assert behind.vault.decrypt("acme", *BOUND, answers[2].sealed) == b"text"


def test_a_key_document_with_another_keys_secret_lets_nobody_in(world: KeyWorld) -> None:
    bound = rewrapped_key(world.kms, world.control.keys["k1"], "acme", world.kms.current)
    world.put(Key(id="k2", principal="app", secret=bound.secret, bound=True))
    for key, good in (("k1", True), ("k2", False)):
        header = f"Bearer {bearer(key, SECRET)}"
        if good:
            assert authenticate(world.control, world.vault, header, NOW).key == key
            continue
        with pytest.raises(Refusal, match="No such key"):
            authenticate(world.control, world.vault, header, NOW)
    value = b"{}"
    headers = wire.sign(SECRET, "k2", "r1", "inference", value, time=NOW, session="s", counter=1)
    assert read(world.behind(), Raw(0, NOW, value, headers))[0] == ["unsigned"]
