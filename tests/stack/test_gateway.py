"""The gateway on a real broker, through the stock OpenAI client; a small worker plays admit and generate."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import openai
import pytest

from pipeline.config import Gateway, Generate, Keys, Settings
from pipeline.embedded.supervisor import free_port
from pipeline.events.codec import decode
from pipeline.events.messages import Access
from pipeline.gateway.auth import bearer
from pipeline.kafka.reader import PartitionReader
from pipeline.producer import Producer, Refused
from pipeline.sections import Kafka
from pipeline.topics import partition_of
from pipeline.wiring import STAGES
from tests.deployment_site import Deployment
from tests.patience import STUCK_S
from tests.stack.gateway_site import KEY, SECRET, GatewaySite, Worker, answering, client, opened_site, play, said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    with opened_site(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_the_stock_client_gets_whole_answers_and_streams(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        whole = await stock.chat.completions.create(
            model="glossary",
            max_tokens=9,
            temperature=0.5,
            seed=3,
            stop=["x"],
            messages=[{"role": "developer", "content": "be brief"}, *said("alpha béta 漢字")],
            extra_headers={"Idempotency-Key": "once"},
        )
        assert whole.choices[0].message.content == "alpha béta 漢字 "
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (5, 3, 8)
        body = worker.bodies[0]
        assert (body.max_tokens, body.temperature, body.seed, body.stop) == (9, 0.5, 3, ("x",))
        assert body.idempotency == "once"
        assert [m.role for m in worker.messages[0]] == ["system", "user"]

        stream = await stock.chat.completions.create(
            model="glossary", messages=said("one two three"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three "
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 8
        assert [m.id async for m in stock.models.list()] == ["glossary"]

    play(site, test)


def test_records_lie_on_the_organisations_partition_with_rising_counters(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        async def one(number: int) -> str:
            answer = await stock.chat.completions.create(model="glossary", messages=said(f"number {number}"))
            return answer.choices[0].message.content or ""

        texts = await asyncio.gather(*(one(n) for n in range(40)))
        assert texts == [f"number {n} " for n in range(40)]
        counters = [envelope.counter for envelope, _ in worker.seen]
        assert counters == sorted(set(counters))
        assert len({envelope.session for envelope, _ in worker.seen}) == 1
        assert {item.key for _, item in worker.seen} == {b"acme"}

    play(site, test)


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_become_the_right_exception(site: GatewaySite, stream: bool) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        async def refused(text: str) -> openai.APIStatusError:
            with pytest.raises(openai.APIStatusError) as caught:
                await stock.chat.completions.create(model="glossary", messages=said(text), stream=stream)
            return caught.value

        slow = await refused("refuse rate_limited 1500")
        assert isinstance(slow, openai.RateLimitError)
        assert slow.code == "rate_limited"
        assert slow.type == "rate_limit_error"
        assert slow.response.headers["retry-after"] == "2"
        assert slow.response.headers["retry-after-ms"] == "1500"
        assert slow.response.headers["x-sluice-request"].startswith("g1-")
        assert slow.request_id == slow.response.headers["x-sluice-request"]
        assert "t:acme|rpm" in slow.message
        spent = await refused("refuse budget_exhausted 7200000")
        assert spent.response.headers["x-should-retry"] == "false"
        assert isinstance(await refused("refuse injection 0"), openai.PermissionDeniedError)
        assert isinstance(await refused("refuse unknown_model 0"), openai.NotFoundError)
        assert isinstance(await refused("refuse duplicate 0"), openai.ConflictError)
        assert (await refused("refuse busy 100")).status_code == 503
        if not stream:
            assert (await refused("end failed")).code == "failed"
            withheld = await refused("end withheld")
            assert (withheld.code, withheld.status_code) == ("withheld", 403)
            assert "Guard: output.verbatim." in withheld.message
            assert (await refused("end cancelled")).status_code == 499

    play(site, test)


def test_the_simple_route_and_the_plain_ones(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        async with aiohttp.ClientSession(site.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
            async with http.post("/inference", json={"prompt": "simple words"}) as answer:
                found = await answer.json()
                assert answer.headers["x-sluice-request"] == found["request"]
            assert (found["text"], found["result"], found["finish"]) == ("simple words ", "finished", "stop")
            assert found["usage"] == {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
            async with http.post("/inference", json={"prompt": "a b", "stream": True}) as answer:
                lines = (await answer.text()).strip().split("\n\n")
            events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
            assert "".join(e.get("text", "") for e in events) == "a b "
            assert events[-1]["result"] == "finished"
            assert lines[-1] == "data: [DONE]"
            async with http.get("/v1/wire") as answer:
                document = await answer.json()
            assert (document["organisation"], document["partitions"], document["lane"]) == ("acme", 4, -1)
            async with http.get("/metrics") as answer:
                assert 'route="/inference",status="200"} 2.0' in await answer.text()
            async with http.get("/nowhere") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")

    play(site, test)


def test_bodies_that_are_too_large_or_no_json(site: GatewaySite) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        async with aiohttp.ClientSession(site.url, headers={"Authorization": f"Bearer {KEY}"}) as http:

            async def post(body: object, **headers: str) -> tuple[int, str]:
                async with http.post("/v1/chat/completions", data=body, headers=headers) as answer:
                    return answer.status, (await answer.json())["error"]["code"]

            assert await post(b"x" * 10_000_000) == (413, "input_too_long")
            assert await post(chunked()) == (413, "input_too_long")
            bomb = gzip.compress(b" " * 50_000_000)
            assert await post(bomb, **{"Content-Encoding": "gzip"}) == (413, "input_too_long")
            assert await post(b"\xff{}") == (400, "invalid_json")
            assert await post(b"[" * 500_000) == (400, "invalid_type")
            assert await post(b"{}", **{"Idempotency-Key": "x" * 129}) == (400, "invalid_value")
            full = {"model": "glossary", "messages": said("x" * 900_000)}
            assert await post(json.dumps(full)) == (413, "input_too_long")
            fits = await stock.chat.completions.create(model="glossary", messages=said("x" * 300_000))
            assert len(fits.choices[0].message.content or "") == 300_001
        assert len(worker.seen) == 1

    play(site, test)


def test_refused_keys_are_counted_in_access(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        for key in ("sk-other", bearer("k-acme", b"\x08" * 32), bearer("k-revoked", SECRET), bearer("k-none", SECRET)):
            async with client(site, key) as wrong:
                for _ in range(2):
                    with pytest.raises(openai.AuthenticationError):
                        await wrong.models.list()

    play(site, test)
    rows = asyncio.run(access_rows(site))
    found = {(r.actor, r.tenant, r.target): r.count for r in rows if r.target in ("unknown_key", "revoked_key")}
    assert found == {
        ("unknown", "", "unknown_key"): 4,
        ("k-acme", "acme", "unknown_key"): 2,
        ("k-revoked", "acme", "revoked_key"): 2,
    }


async def access_rows(site: GatewaySite) -> list[Access]:
    rows = []
    for key in (b"acme", b"unknown"):
        reader = PartitionReader(site.kafka, "access", partition_of(key, 4))
        await reader.start()
        rows += [decode(Access, item.value) for item in await reader.read_to_end()]
        await reader.close()
    return rows


async def ask_over_http(url: str, key: str) -> None:
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=9) as stock:
        stream = await stock.chat.completions.create(
            model="echo", messages=said("What is a dog?"), stream=True, extra_headers={"Idempotency-Key": "once"}
        )
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "What is a dog?"
        with pytest.raises(openai.ConflictError) as repeated:
            await stock.chat.completions.create(
                model="echo", messages=said("again"), extra_headers={"Idempotency-Key": "once"}
            )
        first = stream.response.headers["x-sluice-request"]
        assert repeated.value.response.headers["x-sluice-first-request"] == first
        assert isinstance(repeated.value.body, dict)
        assert repeated.value.body["first_request"] == first
        with pytest.raises(openai.NotFoundError):
            await stock.chat.completions.create(model="nothing", messages=said("a"))


async def ask_directly(url: str, key: str) -> None:
    async with Producer(url, key) as producer:
        answer = await (await producer.submit("said directly", model="echo", max_tokens=9)).result()
        assert answer.text == "said directly"
        ticket = await producer.submit("said once", model="echo", max_tokens=9, idempotency="once")
        again = await producer.submit("said twice", model="echo", max_tokens=9, idempotency="once")
        with pytest.raises(Refused) as refused:
            await again.result()
        assert (refused.value.code, refused.value.first_request) == ("duplicate", ticket.request)
        assert (await producer.answer(ticket.request, STUCK_S)).client_request == ticket.client_request


def test_the_whole_path_with_the_real_stages(deployment: Deployment) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = Settings(
        kafka=Kafka(bootstrap=deployment.bootstrap, partitions=1),
        keys=Keys(home=deployment.home / "keys"),
        gateway=Gateway(port=port),
        generate=Generate(model="echo"),
    )

    async def job() -> None:
        stop = asyncio.Event()
        stages = [asyncio.create_task(STAGES[name](settings, stop)) for name in ("admit", "generate", "gateway")]
        try:
            async with asyncio.timeout(STUCK_S):
                await answering(url)
                await ask_over_http(url, deployment.keys["acme"])
                await ask_directly(url, deployment.keys["globex"])
        finally:
            stop.set()
            await asyncio.gather(*stages)

    asyncio.run(job())
