"""What breaks stays small: a bad request, a bad tenant, too little memory, a step that hangs, a deadline too near."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Sequence as Items

import pytest

from inference.batching.batch import Batch
from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.batching.quarantine import MAX_TENANTS, Quarantine
from inference.batching.sequence import Sequence
from inference.batching.step_times import WARM, StepTimes
from inference.ports import LogitsRow, StepInput
from inference.types import Chunk, FinishReason, GenerationRequest, SamplingParams, Turn
from tests.unit.inference.batching.batches import Clock, finish, make_batch, run_batch
from tests.unit.inference.doubles import HashForward, check_answer, collect, request, until


def join(batch: Batch, asked: GenerationRequest) -> Chunk | None:
    return batch.join(Sequence(asked, list(asked.turns[0].text.encode())))


def test_three_strikes_keep_a_tenant_out_for_a_while_and_nobody_else() -> None:
    clock, forward = Clock(), HashForward()
    batch = make_batch(forward, clock=clock, strikes=3)
    answers: dict[str, list[Chunk]] = {}
    for number in range(3):
        assert join(batch, request(f"bad{number}", "boom", tenant="bad")) is None
        assert join(batch, request(f"good{number}", "fine", tenant="good", limit=3)) is None
        finish(batch, answers)
    assert [answers[f"good{n}"][-1].finish is FinishReason.ERROR for n in range(3)] == [False] * 3
    refused = join(batch, request("bad3", "harmless", tenant="bad"))
    assert refused is not None
    assert (refused.finish, batch.stats().quarantined) == (FinishReason.ERROR, 1)
    assert "600 s" in str(refused.error)
    assert join(batch, request("good3", "fine", tenant="good", limit=3)) is None
    clock.now += 601
    assert join(batch, request("bad4", "harmless", tenant="bad", limit=1)) is None


def test_strikes_far_apart_do_not_add_up_and_memory_is_bounded() -> None:
    quarantine = Quarantine(strikes=2, window_s=10)
    quarantine.strike("t", 0.0)
    quarantine.strike("t", 11.0)
    assert quarantine.left("t", 11.0) == 0
    quarantine.strike("t", 12.0)
    assert quarantine.left("t", 12.0) > 0
    for number in range(3 * MAX_TENANTS):
        quarantine.strike(f"t{number}", 0.0)
    assert len(quarantine._faults) <= MAX_TENANTS


class Tight(HashForward):
    """A device that has room for a few tokens at once only, for a while."""

    room = 3
    refusals = 0

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        if sum(item.scheduled.count for item in inputs) > self.room:
            self.refusals += 1
            raise MemoryError
        return super().logits(inputs)


def test_too_little_memory_shrinks_the_batch_and_changes_no_answer() -> None:
    arrivals = [(0, request(f"r{n}", f"text number {n}", limit=6)) for n in range(6)]
    forward = Tight(slots=4)
    answers = run_batch(arrivals, forward)
    assert forward.refusals > 0
    for _, asked in arrivals:
        assert answers[asked.request_id] == run_batch([(0, asked)], HashForward())[asked.request_id]


def test_what_does_not_fit_alone_fails_without_a_strike() -> None:
    forward = Tight()
    forward.room = 0
    batch = make_batch(forward, strikes=1)
    answers: dict[str, list[Chunk]] = {}
    join(batch, request("r", "text"))
    finish(batch, answers)
    assert answers["r"][-1].finish is FinishReason.ERROR
    assert "out of memory" in str(answers["r"][-1].error)
    assert batch.stats().quarantined == 0


class Stuck(HashForward):
    """A forward pass that comes back when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        self.go.wait(30)
        return super().logits(inputs)


def test_a_step_that_hangs_is_noticed_and_nobody_waits_for_it() -> None:
    async def run() -> None:
        forward = Stuck()
        engine = BatchingEngine(forward, ("m",), BatchOptions(stall_s=0.05))
        asked = request("r", "text", limit=3)
        chunks = await collect(engine.submit(asked))
        check_answer(chunks, asked)
        assert "has not come back" in str(chunks[-1].error)
        assert engine.stats().stalled
        await engine.drain()
        await engine.close()
        forward.go.set()
        await asyncio.to_thread(engine._worker.join)
        assert engine.stats().stalled

    asyncio.run(run())


def test_closing_waits_for_no_step_that_hangs() -> None:
    async def run() -> None:
        forward = Stuck()
        engine = BatchingEngine(forward, ("m",), BatchOptions(stall_s=0.2))
        asked = asyncio.create_task(collect(engine.submit(request("r", "text", limit=3))))
        try:
            await until(lambda: engine._step_began is not None)
            async with asyncio.timeout(20):
                await engine.close()
                chunks = await asked
        finally:
            forward.go.set()
        assert chunks[-1].finish is FinishReason.ERROR
        assert engine.stats().stalled

    asyncio.run(run())


def test_a_closed_engine_leaves_no_thread_that_could_wake_as_the_process_ends() -> None:
    async def run() -> None:
        for _ in range(30):
            engine = BatchingEngine(HashForward(), ("m",))
            await engine.close()
            assert ours() <= before

    def ours() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("inference")}

    before = ours()  # other tests leave an engine open
    asyncio.run(run())


class Foreign(HashForward):
    """A tokenizer that does not fit its model."""

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        return {"high": [5, 257], "low": [-1], "empty": []}[turns[0].text]


@pytest.mark.parametrize("text", ["high", "low", "empty"])
def test_ids_out_of_range_never_reach_the_model(text: str) -> None:
    async def run() -> None:
        forward = Foreign()
        engine = BatchingEngine(forward, ("m",))
        chunks = await collect(engine.submit(request("r", text)))
        assert [chunk.finish for chunk in chunks] == [FinishReason.ERROR]
        assert forward.computed == 0
        await engine.close()

    asyncio.run(run())


def test_a_bias_on_an_id_out_of_range_is_refused() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(), ("m",))
        chunks = await collect(engine.submit(request("r", sampling=SamplingParams(logit_bias=((257, 1.0),)))))
        assert "below 257" in str(chunks[-1].error)
        await engine.close()

    asyncio.run(run())


class Slow(HashForward):
    """Each step takes a second of the test's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(slots=1, ends=False)
        self.clock = clock

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        self.clock.now += 1.0
        return super().logits(inputs)


def test_a_request_that_cannot_begin_in_time_is_refused_at_once() -> None:
    clock = Clock()
    batch = make_batch(Slow(clock), clock=clock)
    answers: dict[str, list[Chunk]] = {}
    for number in range(2):
        join(batch, request(f"warm{number}", "warm", limit=10))
    finish(batch, answers)
    for number in range(4):
        assert join(batch, request(f"queue{number}", "wait", limit=10)) is None
    batch.step()
    place = batch.queue_position("queue3")
    assert place is not None
    assert place.position == 3
    assert place.eta_s == pytest.approx(30, abs=5)
    running = batch.queue_position("queue0")
    assert running is not None
    assert running.position == 0
    late = join(batch, dataclasses.replace(request("late", "soon"), deadline_s=5.0))
    assert late is not None
    assert late.finish is FinishReason.DEADLINE
    assert join(batch, dataclasses.replace(request("patient", "later", limit=1), deadline_s=600.0)) is None
    finish(batch, answers)
    assert answers["patient"][-1].finish is FinishReason.LENGTH
    assert batch.queue_position("late") is None


def test_no_estimate_is_given_before_anything_is_measured() -> None:
    pace = StepTimes()
    assert pace.wait_s(5, 1, 0) is None
    for _ in range(WARM):
        pace.step(0.5)
    pace.stay(10)
    assert pace.wait_s(0, 4, 1) == 0.0
    assert pace.wait_s(7, 4, 0) == pytest.approx(10.0)


def test_a_caller_is_told_where_its_request_stands() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(slots=1, ends=False), ("m",))
        streams = [engine.submit(request(f"r{n}", "x", limit=60)) for n in range(2)]
        first = await anext(streams[0])
        second = asyncio.create_task(collect(streams[1]))
        while (place := await engine.queue_position("r1")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert place.position in (0, 1)
        assert await engine.queue_position("nobody") is None
        await collect(streams[0])
        assert first.request_id == "r0"
        await second
        assert await engine.queue_position("r1") is None
        await engine.close()

    asyncio.run(run())
