"""What is marked, what is not, and that the account says so; engines that mark."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from inference.batching import draw as draw_module
from inference.batching.batch import Batch
from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.batching.sequence import Sequence as Answer
from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.ports import LogitsRow, Move, StepInput
from inference.sampling.choose import candidates
from inference.types import SCHEME, Chunk, FinishReason, GenerationRequest, SamplingParams, Turn
from inference.watermark.detect import detect
from inference.watermark.keys import MarkKey
from inference.watermark.marking import AnswerMark, CodeFence, MarkPolicy, TenantMarker, skipped
from inference.watermark.secrets import SECRET_BYTES, of_master

MASTER = bytes(range(SECRET_BYTES))


@pytest.mark.parametrize(
    ("policy", "asked", "why"),
    [
        (MarkPolicy(), {}, None),
        (MarkPolicy(enabled=False), {}, "off"),
        (MarkPolicy(opted_out=True), {}, "opted_out"),
        (MarkPolicy(), {"temperature": 0.0}, "temperature_zero"),
        (MarkPolicy(), {"top_k": 1}, "single_candidate"),
        (MarkPolicy(), {"form": "json"}, "json"),
        (MarkPolicy(), {"form": "code"}, "code"),
    ],
)
def test_policy_says_what_is_marked(policy: MarkPolicy, asked: dict[str, Any], why: str | None) -> None:
    assert skipped(policy, **{"temperature": 1.0, "top_k": 0, "form": "text", **asked}) == why


@pytest.mark.parametrize(
    ("pieces", "inside"),
    [
        ([b"a", b"```py\n", b"x"], True),
        ([b"`", b"``", b"x"], True),
        ([b"``", b" `"], False),
        ([b"```x```"], False),
        ([b"``", b"`x`", b"``", b" y"], False),
        ([b"````"], True),
    ],
)
def test_a_fence_is_seen_across_tokens(pieces: list[bytes], inside: bool) -> None:
    fence = CodeFence()
    for piece in pieces:
        fence.push(piece)
    assert fence.inside is inside


def test_a_context_marks_once_and_code_never() -> None:
    mark = AnswerMark(MarkKey(MASTER, "t", 5))
    output = [1, 2, 3, 4, 1, 2, 3, 4, 9]
    found = [mark.context(output[:count]) for count in range(len(output) + 1)]
    assert found[:4] == [None] * 4
    assert found[4:] == [(1, 2, 3, 4), (2, 3, 4, 1), (3, 4, 1, 2), (4, 1, 2, 3), None, (2, 3, 4, 9)]
    mark.accept(b"```")
    assert mark.context([7, 7, 7, 7]) is None
    account = mark.account
    assert (account.scheme, account.epoch) == (SCHEME, 5)
    assert (account.marked, account.no_context, account.repeated, account.code) == (5, 4, 1, 1)


class Noise:
    """A model that finds 50 tokens equally likely, whatever came before."""

    slots, budget, max_context, end = 4, 64, 4096, 256
    vocabulary, blocks, block_size = 257, 512, 16

    def lineage(self, tenant: str, adapter: str) -> bytes:
        return b""

    def rearrange(self, moves: Sequence[Move]) -> None: ...

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        return list(turns[-1].text.encode())

    def piece(self, token: int) -> bytes:
        return bytes([token])

    def logits(self, inputs: Sequence[StepInput]) -> list[LogitsRow]:
        import numpy as np

        row = np.full(257, -np.inf, dtype=np.float32)
        row[60:110] = 0.0
        return [row.copy() for item in inputs if item.scheduled.last]


def answers(requests: list[GenerationRequest]) -> dict[str, tuple[str, Chunk]]:
    """Texts and last chunks of a batch that marks for all but tenant ``out``."""
    marker = TenantMarker(
        lambda tenant: MASTER, lambda tenant: MarkPolicy(opted_out=tenant == "out"), lambda: 30 * 86_400_000
    )
    batch = Batch(Noise(), BatchOptions(max_waiting=10, marker=marker), clock=lambda: 0.0)
    texts = {request.request_id: "" for request in requests}
    last: dict[str, Chunk] = {}
    for request in requests:
        batch.join(Answer(request, batch._forward.encode(request.turns)))
    while len(last) < len(requests):
        for chunk in batch.step():
            texts[chunk.request_id] += chunk.text
            if chunk.finish is not None:
                last[chunk.request_id] = chunk
    return {name: (texts[name], last[name]) for name in texts}


def ask(name: str, tenant: str, temperature: float = 1.0) -> GenerationRequest:
    return GenerationRequest(name, tenant, (Turn("user", "hello"),), 120, SamplingParams(temperature))


def test_a_batch_marks_each_tenant_with_its_own_key_and_says_so() -> None:
    found = answers([ask("a", "acme"), ask("b", "beta"), ask("o", "out"), ask("g", "acme", 0.0)])
    keys = [MarkKey(MASTER, tenant, 1) for tenant in ("acme", "beta", "out")]
    for name, tenant in (("a", "acme"), ("b", "beta")):
        detection = detect(list(found[name][0].encode()), keys)
        assert detection.best is not None
        assert (detection.best.tenant, detection.attributed) == (tenant, True)
        account = found[name][1].mark
        assert account is not None
        assert (account.epoch, account.skipped, account.no_context) == (1, "", 4)
        assert account.marked + account.repeated == 116
    assert not detect(list(found["o"][0].encode()), keys).attributed
    for name, why in (("o", "opted_out"), ("g", "temperature_zero")):
        account = found[name][1].mark
        assert account is not None
        assert (account.skipped, account.marked) == (why, 0)


def test_a_marked_answer_is_the_same_in_any_company() -> None:
    requests = [ask(f"r{n}", f"t{n % 2}") for n in range(4)]
    together = answers(requests)
    for request in requests:
        assert answers([request])[request.request_id][0] == together[request.request_id][0]


def test_an_engine_without_a_marker_says_nothing_of_marks() -> None:
    batch = Batch(Noise(), BatchOptions(max_waiting=1), clock=lambda: 0.0)
    batch.join(Answer(ask("r", "t"), [1]))
    assert {chunk.mark for _ in range(125) for chunk in batch.step()} == {None}


def test_the_torch_engine_marks() -> None:
    marker = TenantMarker(lambda tenant: MASTER, lambda tenant: MarkPolicy(), lambda: 0)

    async def run() -> Chunk:
        engine = TorchEngine(shipped_model(), TorchOptions(max_batch=1, threads=1, marker=marker))
        request = GenerationRequest("r", "t", (Turn("user", "What is a dog?"),), 12, SamplingParams(3.0))
        chunks = [chunk async for chunk in engine.submit(request)]
        await engine.close()
        return chunks[-1]

    account = asyncio.run(run()).mark
    assert account is not None
    assert account.marked > 0


def test_a_fault_while_drawing_is_the_guilty_requests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [ask(f"r{n}", "out" if n % 2 else "acme") for n in range(4)]
    before = answers(requests)

    def break_at(row: LogitsRow, sampling: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
        if sampling.seed == 13:
            raise FloatingPointError
        return candidates(row, sampling)

    monkeypatch.setattr(draw_module, "candidates", break_at)
    poisoned = GenerationRequest("bad", "bad", (Turn("user", "hello"),), 120, SamplingParams(1.0, seed=13))
    after = answers([*requests[:2], poisoned, *requests[2:]])
    text, end = after.pop("bad")
    assert after == before, "neither text nor account of the others changes"
    assert (end.finish, end.error) == (FinishReason.ERROR, "FloatingPointError while drawing a token of this request")
    assert end.output_tokens == len(text) == 4, "the first four are drawn unmarked, whole"


def test_a_tenant_whose_key_is_not_here_fails_alone_and_is_not_answered_unmarked() -> None:
    granted = of_master(MASTER)

    def mark(tenant: str) -> bytes:
        if tenant == "other":
            raise ValueError("not granted to this worker")
        return granted.mark(tenant)

    async def run() -> list[list[Chunk]]:
        marker = TenantMarker(mark, lambda tenant: MarkPolicy(), lambda: 0)
        engine = BatchingEngine(Noise(), ("m",), BatchOptions(marker=marker))
        found = await asyncio.gather(*(collected(engine, name) for name in ("acme", "other", "acme", "other")))
        await engine.close()
        return found

    async def collected(engine: BatchingEngine, tenant: str) -> list[Chunk]:
        asked.append(f"r{len(asked)}")
        return [chunk async for chunk in engine.submit(ask(asked[-1], tenant))]

    asked: list[str] = []
    ends = [chunks[-1] for chunks in asyncio.run(run())]
    assert [end.finish for end in ends] == [FinishReason.LENGTH, FinishReason.ERROR] * 2
    assert [end.output_tokens for end in ends] == [120, 0] * 2
    assert "watermark" in str(ends[1].error)
