"""Hostile requests in every order: whatever they ask, cancel or starve, each answer is what it would be alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Items
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.batching.sequence import Sequence
from inference.bounds import MAX_BIAS, MAX_BIASES, MAX_SEED, MAX_STOP_BYTES, MAX_STOPS, check_request
from inference.ports import LogitsRow, StepInput
from inference.types import Chunk, FinishReason, GenerationRequest, SamplingParams, Turn
from tests.unit.inference.batching.batches import Clock, finish, make_batch, run_batch
from tests.unit.inference.doubles import END, HashForward, check_answer

BIASES = st.sampled_from(
    [
        (),
        tuple((97 + n % 26, -MAX_BIAS) for n in range(MAX_BIASES)),
        tuple((n, MAX_BIAS) for n in range(97, 123)),
        ((256, MAX_BIAS),),
        ((256, -MAX_BIAS),),
    ]
)
STOPS = st.sampled_from(
    [(), ("e",), ("aaaa", "aaab", "b"), tuple("x" * (MAX_STOP_BYTES - n) for n in range(MAX_STOPS))]
)
SAMPLING = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 5e-324, 1e-9, 1.0, 100.0]),
    top_p=st.sampled_from([5e-324, 0.5, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 10**30]),
    seed=st.sampled_from([None, 0, MAX_SEED]),
    stop=STOPS,
    min_p=st.sampled_from([0.0, 5e-324, 1.0]),
    repetition_penalty=st.sampled_from([0.1, 1.0, 10.0]),
    presence_penalty=st.sampled_from([-2.0, 0.0, 2.0]),
    frequency_penalty=st.sampled_from([-2.0, 0.0, 2.0]),
    logit_bias=BIASES,
)
TEXTS = st.builds(
    lambda start, letter, size: start + letter * size,
    st.sampled_from(["", "", "", "boom", "nan"]),
    st.sampled_from("xyz"),
    st.integers(1, 40),
)
REQUESTS = st.builds(
    lambda text, tenant, limit, sampling, weight, deadline, risk: GenerationRequest(
        "r", tenant, (Turn("user", text),), limit, sampling, weight, risk, deadline
    ),
    TEXTS,
    st.sampled_from("abc"),
    st.sampled_from([1, 2, 7, 20]),
    SAMPLING,
    st.sampled_from([1, 100, 10_000]),
    st.sampled_from([None, None, 0.0, 5e-324, 86_400.0]),
    st.sampled_from([0.0, 1.0]),
)
READOUT = st.integers(0, 5)


class Scarce(HashForward):
    """A device whose memory runs out for more than one request whenever a test says so."""

    scarce = False

    def piece(self, token: int) -> bytes:
        return b"" if token == END else super().piece(token)

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        if self.scarce and len(inputs) > 1:
            raise MemoryError
        return super().logits(inputs)


class Hostile(RuleBasedStateMachine):
    """Joins, cancels, steps and want of memory; few slots and blocks, so that requests are put back all the time."""

    alone: ClassVar[dict[GenerationRequest, list[Chunk]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.forward, self.clock = Scarce(slots=3, budget=7, max_context=64, spare=4), Clock()
        self.batch = make_batch(self.forward, clock=self.clock)
        self.asked: dict[str, GenerationRequest] = {}
        self.chunks: dict[str, list[Chunk]] = {}

    @rule(asked=REQUESTS, told=READOUT)
    def join(self, asked: GenerationRequest, told: int) -> None:
        name = f"r{len(self.asked)}"
        sampling = asked.sampling if asked.sampling.logit_bias else dataclasses.replace(asked.sampling, logprobs=told)
        asked = dataclasses.replace(asked, request_id=name, sampling=sampling)
        check_request(asked)
        self.asked[name], self.chunks[name] = asked, []
        self._take([self.batch.join(Sequence(asked, self.forward.encode(asked.turns)))])

    @rule(which=st.integers(0, 60))
    def cancel(self, which: int) -> None:
        known = bool(self.chunks.get(f"r{which}", [])) and self.chunks[f"r{which}"][-1].finish is not None
        chunk = self.batch.leave(f"r{which}")
        assert (chunk is None) == (known or f"r{which}" not in self.asked)
        self._take([chunk])

    @rule(count=st.integers(1, 6), seconds=st.sampled_from([0.0, 1.0, 1e6]))
    def step(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.clock.now += seconds
            self._take(self.batch.step())

    @rule()
    def memory(self) -> None:
        self.forward.scarce = not self.forward.scarce

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 60))
    def queue_position(self, which: int) -> None:
        name = f"r{which}"
        found, stats = self.batch.queue_position(name), self.batch.stats()
        open_ = name in self.asked and not (self.chunks[name] and self.chunks[name][-1].finish)
        assert (found is not None) == open_
        assert found is None or 0 <= found.position <= stats.waiting

    def _take(self, chunks: Items[Chunk | None]) -> None:
        for chunk in chunks:
            if chunk is not None:
                self.chunks[chunk.request_id].append(chunk)

    @invariant()
    def counters_agree(self) -> None:
        stats = self.batch.stats()
        open_ = [name for name, chunks in self.chunks.items() if not (chunks and chunks[-1].finish)]
        assert stats.running + stats.waiting == len(open_)
        assert stats.running <= self.forward.slots
        assert 0 <= stats.blocks_held <= stats.blocks_total
        assert 0.0 <= stats.batch_fill <= 1.0
        assert stats.tokens_generated == sum(
            self.batch._entries[name].sequence.output_tokens if name in open_ else self.chunks[name][-1].output_tokens
            for name in self.asked
        )
        assert self.forward.faults == []

    def teardown(self) -> None:
        finish(self.batch, self.chunks)
        assert self.batch.stats().blocks_held == 0
        assert not self.batch._entries
        assert not self.batch._scheduler._jobs
        # nothing of anybody is left in a block that is not named for its tenant
        assert sum(block != [None] * 4 for block in self.forward.cache) == self.batch._pool.named
        for name, asked in self.asked.items():
            self._as_alone(asked, self.chunks[name])

    def _as_alone(self, asked: GenerationRequest, chunks: list[Chunk]) -> None:
        text = check_answer(chunks, asked)
        end = chunks[-1]
        if end.finish is FinishReason.DEADLINE:
            assert (end.output_tokens, text) == (0, "")
            return
        if asked not in self.alone:
            patient = dataclasses.replace(asked, deadline_s=None)
            self.alone[asked] = run_batch([(0, patient)], Scarce(slots=1, budget=50))[asked.request_id]
        expected = self.alone[asked]
        if end.finish is FinishReason.CANCELLED:
            whole = "".join(chunk.text for chunk in expected)
            # what was held for a stop string that did not come is set free by the end
            assert whole.startswith(text) or asked.sampling.stop
            assert chunks[:-1] == expected[: len(chunks) - 1]
            return
        assert chunks == expected


Hostile.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestHostile = Hostile.TestCase
