"""A model without weights, and what the tests ask of every answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from inference.ports import FeedTokens, Row
from inference.types import Chunk, FinishReason, GenerationRequest, SamplingParams, Turn

END = 256


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
        assert (chunk.error is not None) == (chunk.finish in (FinishReason.ERROR, FinishReason.CONTEXT))
    assert covered <= asked.max_tokens
    if chunks[-1].finish is FinishReason.LENGTH:
        assert covered == asked.max_tokens
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
    """Bytes for tokens; the next one depends on all that the slot was fed, and on nothing else.

    A prompt starting with ``nan`` gets logits that are no numbers, one with ``boom`` an exception
    for the whole pass. Any feed that skips, repeats or meets another's leftovers fails an assertion.
    """

    def __init__(self, *, slots: int = 4, budget: int = 12, max_context: int = 256, ends: bool = True) -> None:
        self.slots, self.budget, self.max_context, self.end = slots, budget, max_context, END
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.faults: list[str] = []
        self.ends = ends
        self.largest = 0

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        return list(turns[-1].text.encode())

    def piece(self, token: int) -> bytes:
        return bytes([token])

    def logits(self, feeds: Sequence[FeedTokens]) -> list[Row]:
        self.largest = max(self.largest, sum(item.feed.count for item in feeds))
        if len({item.feed.slot for item in feeds}) != len(feeds):
            self.faults.append("a slot was used twice in one step")
        rows = []
        for item in feeds:
            held = self.cache[item.feed.slot]
            if item.feed.start > len(held) or held[item.feed.start :] not in ([], item.tokens):
                self.faults.append(f"slot {item.feed.slot} holds {len(held)}, fed from {item.feed.start}")
            held[item.feed.start :] = item.tokens
            if bytes(held).startswith(b"boom"):
                raise Poison(bytes(held).decode())
            if item.feed.last:
                rows.append(self._row(held))
        return rows

    def release(self, slot: int, length: int) -> None:
        if len(self.cache[slot]) > length:
            self.faults.append(f"slot {slot} keeps {len(self.cache[slot]) - length} tokens")
        self.cache[slot].clear()

    def _row(self, held: list[int]) -> Row:
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
