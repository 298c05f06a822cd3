"""Bad input at both doors of the real stages: a clear answer, a decision, and the good request behind it is served."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from pipeline.config import Gateway, Generate, Keys, Settings
from pipeline.control.registry import Registry
from pipeline.control.table import ControlTable
from pipeline.embedded.supervisor import free_port
from pipeline.events.chain import ChainReader
from pipeline.events.codec import decode, decode_log
from pipeline.events.messages import DeadLetter
from pipeline.events.reasons import REASONS
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.clients import make_producer
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.sections import Kafka
from tests.deployment_site import Deployment
from tests.patience import STUCK_S, looks
from tests.stack.bad_records import DEEP, TURN, Case, Forge, bodies, envelopes, send
from tests.stack.real_stages import serving

CHAT = {"model": "echo", "messages": [TURN], "max_tokens": 8}


def http_cases() -> dict[str, tuple[Any, int, str]]:
    """Body, status and code."""
    long = [{**TURN, "content": "x" * 70_000}]
    slow = [{**TURN, "content": "word " * 60}]
    return {
        "unknown field": ({**CHAT, "colour": 1}, 400, "unknown_parameter"),
        "wrong type": ({**CHAT, "max_tokens": "8"}, 400, "invalid_type"),
        "not a number": (json.dumps({**CHAT, "temperature": float("nan")}), 400, "invalid_json"),
        "invalid utf-8": (b'{"model":"echo","messages":[{"role":"user","content":"\xff"}]}', 400, "invalid_json"),
        "deep": (DEEP, 400, "invalid_type"),
        "ten megabytes": (b"x" * 10_000_000, 413, "input_too_long"),
        "a million tokens": ({**CHAT, "messages": [{**TURN, "content": "1" * 1_000_000}]}, 413, "input_too_long"),
        "empty messages": ({**CHAT, "messages": []}, 400, "invalid_value"),
        "over the plan": ({**CHAT, "messages": long}, 413, "input_too_long"),
        "over the context": ({**CHAT, "messages": [{**TURN, "content": "a " * 20_000}]}, 413, "input_too_long"),
        "too many tokens": ({**CHAT, "max_tokens": 4000}, 400, "max_tokens_exceeded"),
        "unknown model": ({**CHAT, "model": "nothing"}, 404, "unknown_model"),
        "too little time": ({**CHAT, "messages": slow, "max_tokens": 100, "timeout_ms": 100}, 504, "expired"),
    }


@dataclass
class Played:
    """What was sent and what came of it."""

    records: dict[str, tuple[Case, Decision]] = field(default_factory=dict)
    behind: dict[str, str] = field(default_factory=dict)
    """Case name → result of the good request behind it."""
    told: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and error by case: HTTP, or what the gateway tells the producer of a record."""
    answered: dict[str, int] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    log: list[LogRecord] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)

    def decision(self, offset: int) -> Decision:
        return next(r for r in self.log if isinstance(r, Decision) and r.facts.offset == offset)

    def result(self, request: str) -> str:
        return next((r.result for r in self.log if isinstance(r, Outcome) and r.request == request), "")


@pytest.fixture(scope="module")
def played(deployment: Deployment) -> Played:
    return asyncio.run(play(deployment))


async def play(deployment: Deployment) -> Played:
    port, found = free_port(), Played()
    settings = Settings(
        kafka=Kafka(bootstrap=deployment.bootstrap, partitions=1),
        keys=Keys(home=deployment.home / "keys"),
        gateway=Gateway(port=port),
        generate=Generate(model="echo", echo_delay_ms=5),
    )
    keys, cases = await forged(deployment)
    forge = Forge(deployment, "acme", deployment.keys["acme"])
    # idempotence takes the library's own builder of batches, which refuses what is written here
    sizes = {"max_batch_size": 2_000_000, "max_request_size": 2_000_000}
    async with make_producer(deployment.kafka, enable_idempotence=False, **sizes) as producer:
        late = Case("late", "", *forge.good("late", timeout_ms=100))
        found.offsets["late"] = await send(producer, late)
        await asyncio.sleep(0.2)
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(STUCK_S), serving(settings), aiohttp.ClientSession(url) as http:
            goods: dict[str, int] = {}
            for case in cases:
                found.offsets[case.name] = await send(producer, case)
                goods[case.name] = await send(producer, Case("good", "", *forge.good(f"behind {len(goods)}")))
            await beside(deployment, forge, found)
            await over_http(http, deployment, keys, found)
            await told(http, deployment, cases, found)
            await settled(deployment, found)
    found.letters = [decode(DeadLetter, raw) for raw in await read(deployment, "dead_letters")]
    for case in cases:
        found.records[case.name] = (case, found.decision(found.offsets[case.name]))
        found.behind[case.name] = found.result(found.decision(goods[case.name]).request)
    return found


async def forged(deployment: Deployment) -> tuple[dict[str, str], list[Case]]:
    """Keys that no longer work, and every bad record in the order in which they are sent."""
    table = ControlTable(deployment.kafka, deployment.pin)
    await table.start()
    registry = Registry(deployment.kafka, table, deployment.keyring, deployment.signing)
    keys = {
        "revoked_key": await registry.add_key("acme", "acme-app"),
        "expired_key": await registry.add_key("acme", "acme-app", days=-1),
    }
    await registry.revoke_key(keys["revoked_key"])
    await registry.add_tenant("closed", "team")
    keys["suspended"] = await registry.add_key("closed", "closed-app")
    await registry.change_tenant("closed", status="suspended")
    await registry.close()
    await table.close()
    deployment.control_table = table
    forge = Forge(deployment, "globex", deployment.keys["globex"])
    cases = [*envelopes(forge), *bodies(forge)]
    for reason, key in keys.items():
        other = Forge(deployment, "closed" if reason == "suspended" else "acme", key)
        cases.append(Case(reason, reason, *other.good(reason)))
    # sealed for globex, signed by acme
    value, thief = forge.body("stolen"), Forge(deployment, "acme", deployment.keys["acme"])
    cases.append(Case("another tenant's text", "undecryptable", value, thief.signed("stolen", value, session="t")))
    first, second = (forge.good(name, idempotency="once") for name in ("first", "second"))
    return keys, [*cases, Case("once", "", *first), Case("twice", "duplicate", *second)]


async def beside(deployment: Deployment, forge: Forge, found: Played) -> None:
    """Small kept texts with the largest one behind them: together more than one batch of Kafka took."""
    small, large = [{**TURN, "content": "y" * 8000}], [{**TURN, "content": "z" * 770_000}]
    records = [forge.good(f"small-{n}", messages=small) for n in range(40)]
    records.append(forge.good("large", messages=large))
    publisher = Publisher(deployment.kafka)
    sent = await publisher.send_all([("requests", 0, b"k", value, headers) for value, headers in records])  # type: ignore[misc]
    await publisher.close()
    found.offsets |= {"small": sent[0][1], "large": sent[-1][1]}


async def over_http(http: aiohttp.ClientSession, deployment: Deployment, keys: dict[str, str], found: Played) -> None:
    """Each bad body, then a good one."""
    good = deployment.keys["acme"]
    tries = [(name, good, body) for name, (body, _, _) in http_cases().items()]
    for name, key, body in [*tries, *((reason, key, CHAT) for reason, key in keys.items())]:
        status, document = await post(http, key, body)
        found.told[f"http {name}"] = status, document["error"]
        found.answered[name], _ = await post(http, good, CHAT)


async def post(http: aiohttp.ClientSession, key: str, body: Any) -> tuple[int, Any]:
    raw = body if isinstance(body, str | bytes) else json.dumps(body)
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post("/v1/chat/completions", data=raw, headers=headers) as answer:
        return answer.status, await answer.json()


async def told(http: aiohttp.ClientSession, deployment: Deployment, cases: list[Case], found: Played) -> None:
    """What the gateway tells a direct producer of its refused records."""
    headers = {"Authorization": f"Bearer {deployment.keys['globex']}"}
    for case in cases:
        request = next((raw for name, raw in case.headers if name == "sluice-request"), None)
        if request and request.startswith(b"globex-app:") and case.name in ("unknown model", "over the plan", "twice"):
            path = f"/v1/requests/{request.decode()}"
            async with http.get(path, params={"wait_ms": "10000"}, headers=headers) as answer:
                found.told[case.name] = answer.status, (await answer.json())["error"]


async def settled(deployment: Deployment, found: Played) -> None:
    """Until every request is decided and every admitted one has its outcome."""
    for _ in looks():
        chain = ChainReader()
        items = await read_items(deployment, "decisions")
        found.log = [decode_log(entry.value) for item in items for entry in chain.push(item.entry())]
        decided = [r for r in found.log if isinstance(r, Decision)]
        ended = sum(isinstance(r, Outcome) for r in found.log)
        waiting = sum(d.verdict == "admit" and d.facts.kind == "inference" for d in decided) - ended
        if len(decided) == len(await read_items(deployment, "requests")) and not waiting:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{len(decided)} decided, {waiting} without an outcome")


async def read_items(deployment: Deployment, topic: str) -> list[Any]:
    reader = PartitionReader(deployment.kafka, topic, 0)
    try:
        await reader.start(0)
        return await reader.read_to_end()
    finally:
        await reader.close()


async def read(deployment: Deployment, topic: str) -> list[bytes]:
    return [item.value for item in await read_items(deployment, topic)]


def test_every_record_has_its_reason_and_the_next_one_its_answer(played: Played) -> None:
    assert {name: d.reasons for name, (_, d) in played.records.items()} == {
        name: ((case.reason,) if case.reason else ()) for name, (case, _) in played.records.items()
    }
    assert set(played.behind.values()) == {"finished"}
    assert len(played.records) > 40


def test_what_could_not_be_read_leaves_a_dead_letter(played: Played) -> None:
    letters = {letter.offset: letter for letter in played.letters}
    wanted = {d.facts.offset for _, d in played.records.values() if d.facts.fault == "malformed"}
    assert wanted == set(letters)
    case = played.records["garbage"][0]
    assert case.value is not None
    assert letters[played.offsets["garbage"]].size == len(case.value)


def test_unsigned_records_are_charged_to_nobody(played: Played) -> None:
    nobody = [d for _, d in played.records.values() if d.facts.fault in ("malformed", "unsigned", "unknown_key")]
    assert all(not d.charges for d in nobody)
    strangers = [d for d in nobody if not d.facts.key]
    assert len(strangers) == 12
    assert {(d.tenant, d.principal, d.sequence) for d in strangers} == {("", "", 0)}


def test_a_record_past_its_deadline_is_not_run_and_costs_nothing(played: Played) -> None:
    decision = played.decision(played.offsets["late"])
    outcome = next(r for r in played.log if isinstance(r, Outcome) and r.request == decision.request)
    assert (outcome.result, outcome.worker, outcome.output_tokens) == ("expired", "", 0)
    given_back = {charge.cell: charge.amount for charge in outcome.charges}
    tokens = [charge for charge in decision.charges if charge.unit == "tokens" or charge.meter == "open"]
    assert tokens
    assert given_back == {charge.cell: -charge.amount for charge in tokens}


def test_the_largest_text_fits_behind_a_step_of_others(played: Played) -> None:
    assert played.decision(played.offsets["small"]).verdict == "admit"
    large = played.decision(played.offsets["large"])
    assert large.reasons == ("input_too_long",)
    assert len(large.facts.text) > 770_000


@pytest.mark.parametrize("name", http_cases())
def test_http_tells_what_was_wrong(played: Played, name: str) -> None:
    _, status, code = http_cases()[name]
    said, error = played.told[f"http {name}"]
    assert (said, error["code"]) == (status, code)
    assert 20 < len(error["message"]) < 300
    assert played.answered[name] == 200


@pytest.mark.parametrize("reason", ["revoked_key", "expired_key", "suspended"])
def test_http_tells_why_a_key_is_refused(played: Played, reason: str) -> None:
    said, error = played.told[f"http {reason}"]
    assert (said, error["code"], error["message"]) == (REASONS[reason].status, reason, REASONS[reason].message)
    assert played.answered[reason] == 200


@pytest.mark.parametrize("name", ["unknown model", "over the plan", "twice"])
def test_a_direct_producer_is_told_by_the_gateway(played: Played, name: str) -> None:
    case, _ = played.records[name]
    said, error = played.told[name]
    assert (said, error["code"]) == (REASONS[case.reason].status, case.reason)
