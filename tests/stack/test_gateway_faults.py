"""The gateway when clients, workers or the broker go away: what is told, what is cancelled, what goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.patience import STUCK_S
from tests.stack.gateway_site import GatewaySite, Worker, client, opened_site, play, said, serving


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    with opened_site(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_a_stream_that_breaks_off_says_so(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        stream = await stock.chat.completions.create(model="glossary", messages=said("end failed"), stream=True)
        with pytest.raises(openai.APIError, match="model failed"):
            [chunk async for chunk in stream]
        stream = await stock.chat.completions.create(model="glossary", messages=said("end withheld"), stream=True)
        chunks = [chunk async for chunk in stream]
        ended = chunks[-1].choices[0]
        assert ended.finish_reason == "content_filter"
        assert ended.model_dump()["content_filter"] == {"code": "withheld", "reason": "output.verbatim"}

    play(site, test)


def test_another_attempt_takes_over_without_repeating_text(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        stream = await stock.chat.completions.create(model="glossary", messages=said("two attempts"), stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "one two three"

    play(site, test)


def test_a_replayed_copy_does_not_end_the_request(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        answer = await stock.chat.completions.create(model="glossary", messages=said("replayed copy"))
        assert answer.choices[0].message.content == "fine"

    play(site, test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_cancelled(site: GatewaySite, stream: bool) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        if stream:
            found = await stock.chat.completions.create(model="glossary", messages=said("hang"), stream=True)
            async for chunk in found:
                if chunk.choices[0].delta.content:
                    break
            await found.close()
        else:
            asking = asyncio.create_task(stock.chat.completions.create(model="glossary", messages=said("silence")))
            await worker.until(lambda: worker.seen)
            asking.cancel()
        await worker.until(lambda: worker.cancelled)
        assert worker.cancelled == [worker.seen[0][0].request]

    play(site, test)


def test_no_answer_by_the_deadline_is_a_504(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            await stock.chat.completions.create(
                model="glossary", messages=said("silence"), extra_body={"timeout_ms": 100}
            )
        assert caught.value.status_code == 504

    play(site, test, grace_ms=50)


def freeze(pid: int) -> None:
    """Stop a process; the kernel reaches its threads one by one, and until then they go on answering."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while {stat.read_text().rpartition(")")[2].split()[0] for stat in threads.glob("*/stat")} != {"T"}:
        time.sleep(0.001)


def test_a_write_that_is_not_confirmed_is_a_503_and_passes(site: GatewaySite) -> None:
    async def test(stock: openai.AsyncOpenAI, worker: Worker) -> None:
        async def ask(**headers: str) -> openai.APIStatusError:
            with pytest.raises(openai.APIStatusError) as caught:
                await stock.chat.completions.create(model="glossary", messages=said("a"), extra_headers=headers)
            return caught.value

        await stock.chat.completions.create(model="glossary", messages=said("before"))
        await asyncio.to_thread(freeze, site.broker.pid)
        try:
            safe, unsafe = await asyncio.gather(ask(**{"Idempotency-Key": "k"}), ask())
            later = await ask()
        finally:
            os.kill(site.broker.pid, signal.SIGCONT)
        for unknown in (safe, unsafe):
            assert (unknown.status_code, unknown.code) == (503, "unknown_result")
            assert unknown.response.headers["x-sluice-client-request"].startswith("acme-1:")
        assert safe.response.headers["x-should-retry"] == "true"
        assert unsafe.response.headers["x-should-retry"] == "false"
        assert (later.status_code, later.code) == (503, "busy")
        after = None
        while after is None:
            # the first tries may meet the broker while it wakes
            with contextlib.suppress(openai.APIStatusError):
                after = await stock.chat.completions.create(model="glossary", messages=said("after"))
        assert after.choices[0].message.content == "after "

    play(site, test, write_ms=1000)


def test_a_broker_that_comes_back_is_used_again(site: GatewaySite) -> None:
    async def job() -> None:
        async with asyncio.timeout(STUCK_S), serving(site, write_ms=3000), client(site) as stock:
            await asyncio.to_thread(site.broker.kill)
            await asyncio.to_thread(site.broker.start)
            async with Worker(site):
                answer = None
                while answer is None:
                    with contextlib.suppress(openai.APIStatusError):
                        answer = await stock.chat.completions.create(
                            model="glossary", messages=said("again"), extra_body={"timeout_ms": 1000}
                        )
                assert answer.choices[0].message.content == "again "

    asyncio.run(job())


def test_an_open_answer_ends_before_the_gateway_does(site: GatewaySite) -> None:
    async def job() -> None:
        async with (
            asyncio.timeout(STUCK_S),
            Worker(site) as worker,
            serving(site, drain_s=20.0) as stop,
            client(site) as stock,
        ):
            asking = asyncio.create_task(stock.chat.completions.create(model="glossary", messages=said("late one")))
            await worker.until(lambda: worker.seen)
            stop.set()
            answer = await asking
            assert answer.choices[0].message.content == "late one "

    asyncio.run(job())
