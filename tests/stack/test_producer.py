"""Direct producers on a real broker: their own records in, outcomes through the gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pipeline.clock import now_ms
from pipeline.errors import ConfigError, Malformed, Retryable
from pipeline.gateway.auth import bearer
from pipeline.producer import NoAnswer, Producer, Refused, SyncProducer
from pipeline.topics import partition_of
from tests.patience import STUCK_S
from tests.stack.gateway_site import KEY, PARTITIONS, SECRET, GatewaySite, Worker, opened_site, serving


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    with opened_site(tmp_path_factory.mktemp("site")) as found:
        yield found


def play(site: GatewaySite, test: Callable[[Producer, Worker], Awaitable[None]], lane: int = 0) -> None:
    async def job() -> None:
        async with (
            asyncio.timeout(STUCK_S),
            serving(site, lane),
            Worker(site) as worker,
            Producer(site.url, KEY) as producer,
        ):
            await test(producer, worker)

    asyncio.run(job())


@pytest.mark.parametrize("lane", [0, PARTITIONS - 1], ids=["lane of its own", "shared lane"])
def test_a_request_and_its_answer(site: GatewaySite, lane: int) -> None:
    async def test(producer: Producer, worker: Worker) -> None:
        ticket = await producer.submit("direct words", temperature=0.25, seed=4, idempotency="once")
        answer = await ticket.result()
        assert (answer.text, answer.result, answer.finish) == ("direct words ", "finished", "stop")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 2)
        assert answer.request == ticket.request
        envelope, item = worker.seen[0]
        assert envelope.lane == -1
        assert envelope.wrap
        assert ticket.client_request == envelope.request
        assert ticket.request == f"g1-{partition_of(b'acme', PARTITIONS)}-{item.offset}"
        body = worker.bodies[0]
        assert (body.model, body.max_tokens, body.temperature, body.seed) == ("glossary", 64, 0.25, 4)
        again = await ticket.result()
        assert again == answer

    play(site, test, lane)


def test_many_at_once_keep_their_counters_in_order(site: GatewaySite) -> None:
    async def test(producer: Producer, worker: Worker) -> None:
        tickets = await asyncio.gather(*(producer.submit(f"number {n}", max_tokens=5) for n in range(100)))
        answers = await asyncio.gather(*(ticket.result() for ticket in tickets))
        assert [a.text for a in answers] == [f"number {n} " for n in range(100)]
        assert [envelope.counter for envelope, _ in worker.seen] == list(range(1, 101))

    play(site, test)


def test_refusals_and_early_ends(site: GatewaySite) -> None:
    async def test(producer: Producer, worker: Worker) -> None:
        with pytest.raises(Refused) as slow:
            await (await producer.submit("refuse rate_limited 1500")).result()
        assert (slow.value.status, slow.value.code, slow.value.retry_after_s) == (429, "rate_limited", 2.0)
        with pytest.raises(Refused) as withheld:
            await (await producer.submit("end withheld")).result()
        assert withheld.value.code == "withheld"
        silent = await producer.submit("silence")
        with pytest.raises(NoAnswer):
            await silent.result(0.2)
        await silent.cancel()
        await worker.until(lambda: worker.cancelled)
        assert worker.cancelled == [silent.client_request]
        with pytest.raises(Malformed, match="temperature"):
            await producer.submit("x", temperature=9)
        with pytest.raises(Malformed, match="messages"):
            await producer.submit([])

    play(site, test)


def test_another_principal_of_the_tenant_reads_nothing(site: GatewaySite) -> None:
    async def test(producer: Producer, worker: Worker) -> None:
        ticket = await producer.submit("private words")
        await ticket.result()
        async with Producer(site.url, bearer("k-second", SECRET)) as other:
            with pytest.raises(Refused) as caught:
                await other.answer(ticket.client_request, 1)
            assert caught.value.code == "no_such_request"

    play(site, test)


def test_a_clock_that_is_off_is_taken_from_the_gateway(site: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(producer: Producer, worker: Worker) -> None:
        import pipeline.producer.client as client

        monkeypatch.setattr(client, "now_ms", lambda: now_ms() + 3_600_000)
        async with Producer(site.url, KEY) as late:
            await (await late.submit("hello")).result()
        envelope, item = worker.seen[0]
        assert abs(envelope.time - item.time) < 60_000

    play(site, test)


def test_the_blocking_form(site: GatewaySite) -> None:
    started, done = threading.Event(), threading.Event()

    async def stages() -> None:
        async with serving(site), Worker(site):
            started.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(stages()))
    thread.start()
    try:
        assert started.wait(30)
        with SyncProducer(site.url, KEY) as producer:
            ticket = producer.submit([{"role": "system", "content": "s"}, {"role": "user", "content": "plain words"}])
            assert ticket.result(20).text == "plain words "
            producer.submit("silence").cancel()
    finally:
        done.set()
        thread.join()


def test_what_cannot_start_says_why(site: GatewaySite) -> None:
    async def job() -> None:
        with pytest.raises(ConfigError, match="sk-sluice"):
            Producer(site.url, "sk-other")
        with pytest.raises(Retryable, match="gateway"):
            async with Producer(site.url, KEY):
                pass
        async with serving(site):
            with pytest.raises(Refused) as caught:
                async with Producer(site.url, bearer("k-none", SECRET)):
                    pass
            assert caught.value.status == 401
            with pytest.raises(Retryable, match="no broker"):
                async with Producer(site.url, KEY, bootstrap="127.0.0.1:9"):
                    pass

    asyncio.run(job())
