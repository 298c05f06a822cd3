"""A model without weights, and what the tests ask of every answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from inference.ports import ERASE, LogitsRow, Move, StepInput
from inference.types import Chunk, FinishReason, GenerationRequest, SamplingParams, Turn

END = 256
FAILED = (FinishReason.ERROR, FinishReason.CONTEXT, FinishReason.DEADLINE)


def request(
    name: str, text: str = "hello", *, tenant: str = "t", limit: int = 16, sampling: SamplingParams | None = None
) -> GenerationRequest:
    return GenerationRequest(name, tenant, (Turn("user", text),), limit, sampling or SamplingParams())


def check_answer(chunks: Sequence[Chunk], asked: GenerationRequest) -> str:
    """The text of an answer whose chunks keep the promises of ``Chunk``."""
    assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    covered = 0
    for chunk in chunks:
        assert chunk.request_id == asked.request_id
        assert chunk.position == covered
        covered += chunk.tokens
        assert chunk.output_tokens == covered
        assert chunk.input_tokens == chunks[-1].input_tokens
        assert (chunk.error is not None) == (chunk.finish in FAILED)
    assert covered <= asked.max_tokens or asked.estimated
    if chunks[-1].finish is FinishReason.LENGTH:
        assert covered == asked.max_tokens or asked.estimated
    return "".join(chunk.text for chunk in chunks)


async def collect(stream: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in stream]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what an engine's thread brings about; it has no event to wait for."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.0005)


class Poison(Exception):
    """What the double raises for a prompt that starts with ``boom``."""


class HashForward:
    """Bytes for tokens; the next one depends on all that the request's blocks hold, and on nothing else.

    A prompt starting with ``nan`` gets logits that are no numbers, one with ``boom`` an exception for the whole pass.
    Any feed that skips, repeats or meets another's leftovers is a fault; so is a block taken unerased.
    """

    def __init__(
        self, *, slots: int = 4, budget: int = 12, max_context: int = 256, ends: bool = True, spare: int = 40
    ) -> None:
        self.slots, self.budget, self.max_context, self.end = slots, budget, max_context, END
        self.vocabulary, self.block_size = END + 1, 4
        self.blocks = -(-max_context // self.block_size) + spare
        self.cache: list[list[int | None]] = [[None] * self.block_size for _ in range(self.blocks)]
        self.faults: list[str] = []
        self.ends = ends
        self.largest = self.computed = 0

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        return list(turns[-1].text.encode())

    def lineage(self, tenant: str, adapter: str) -> bytes:
        return adapter.encode()

    def piece(self, token: int) -> bytes:
        return bytes([token])

    def rearrange(self, moves: Sequence[Move]) -> None:
        for source, target in moves:
            self.cache[target] = [None] * self.block_size if source == ERASE else list(self.cache[source])

    def logits(self, inputs: Sequence[StepInput]) -> list[LogitsRow]:
        self.computed += sum(item.scheduled.count for item in inputs)
        self.largest = max(self.largest, sum(item.scheduled.count for item in inputs))
        rows = []
        for item in inputs:
            held = self._held(item)
            if held.startswith(b"boom"):
                raise Poison(held.decode())
            if item.scheduled.last:
                rows.append(self._row(list(held)))
        return rows

    def _held(self, item: StepInput) -> bytes:
        """What the request's blocks hold once its tokens are written."""
        start, size = item.scheduled.start, self.block_size
        for position, token in enumerate(item.tokens, start):
            place = self.cache[item.scheduled.blocks[position // size]]
            place[position % size] = token
        held = [token for block in item.scheduled.blocks for token in self.cache[block]]
        known = held[: start + item.scheduled.count]
        if None in known:
            self.faults.append(f"{item.scheduled.request_id} skips a position before {start + item.scheduled.count}")
        return bytes(token for token in known if token is not None)

    def _row(self, held: list[int]) -> LogitsRow:
        row = np.full(257, -10.0, dtype=np.float32)
        digest = hashlib.sha256(bytes(held)).digest()
        for rank, byte in enumerate(digest[:6]):
            row[97 + byte % 26] = 3.0 - 0.5 * rank
        if not self.ends:
            row[END] = -np.inf
        elif digest[6] < 12:
            row[END] = 4.0
        if bytes(held).startswith(b"nan"):
            row[digest[7]] = np.nan
        return row
