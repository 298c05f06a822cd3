"""GENERATE as a subject: interleaved streams of an engine through the guard; sealing is replaced by a readable mark."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hypothesis import strategies as st

from detectors.verbatim import ProtectedIndex
from inference.types import Chunk, FinishReason
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Completion, FindingEvent, Response, Work
from pipeline.generate import answer as generate
from pipeline.generate.guard import guard_of
from tests.laws.subject import Cuts, Run, Written

TIME = 1_790_000_000_000
PIECES = ("plain words ", "漢字 ", "call 13812345678 ", "jane@exam", "ple.org ", "4111 1111 1111 1111 ", " ", "é", "")
PROTECTED = ProtectedIndex({"cards": ("call 13812345678 or 4111 1111 1111 1111",)}, 20)
NEXT = {"": {"chunk", "completion"}, "chunk": {"chunk", "completion"}, "completion": {"end"}, "end": {"finding"}}


@dataclass(frozen=True)
class Piece:
    """What the engine said next in one of its runs."""

    run: int
    tenant: str
    text: str
    finish: FinishReason | None
    output: Literal["release", "redact", "withhold", "review"]


talks = st.tuples(
    st.sampled_from(("acme", "beta")),
    st.lists(st.sampled_from(PIECES), max_size=6),
    st.sampled_from(tuple(FinishReason)),
    st.sampled_from(("release", "redact", "withhold", "review")),
)


def interleaved(drawn: tuple[list[Any], list[int]]) -> list[Piece]:
    waiting = []
    for run, (tenant, texts, finish, output) in enumerate(drawn[0]):
        last = Piece(run, tenant, "", finish, output)
        waiting.append([*(Piece(run, tenant, text, None, output) for text in texts), last])
    found, turn = [], 0
    while any(waiting):
        lanes = [lane for lane in waiting if lane]
        found.append(lanes[drawn[1][turn % len(drawn[1])] % len(lanes)].pop(0))
        turn += 1
    return found


def work(piece: Piece) -> Work:
    who = (piece.tenant, piece.tenant, f"{piece.tenant}-1")
    return Work(
        f"g1-0-{piece.run}",
        0,
        *who,
        f"r{piece.run}",
        -1,
        TIME + 60_000,
        model="m",
        keep="all",
        output=piece.output,
        verbatim=piece.output,
    )


def seal(name: str, raw: bytes) -> bytes:
    return name.encode() + b"|" + raw


def taken(piece: Piece, answer: generate.AnswerStream) -> list[Written]:
    response = answer.take()
    return [] if response is None else [Written("responses", piece.tenant, encode(response))]


class GenerateSubject:
    name = "generate"
    writes: ClassVar[dict[str, Any]] = {"completions": Completion, "responses": Response, "findings": FindingEvent}

    def inputs(self) -> st.SearchStrategy[list[Piece]]:
        turns = st.lists(st.integers(0, 9), min_size=1, max_size=12)
        return st.tuples(st.lists(talks, min_size=1, max_size=4), turns).map(interleaved)

    def tenant(self, item: Piece) -> str:
        return item.tenant

    def run(self, inputs: Sequence[Piece], cuts: Cuts) -> Run:
        """A cut splits the engine's chunk in two; at every third the sender is behind, so its text leaves late."""
        answers: dict[int, generate.AnswerStream] = {}
        positions: Counter[int] = Counter()
        written, digests = list[Written](), dict[str, bytes]()
        for at, piece in enumerate(inputs):
            guard = guard_of(work(piece), (), PROTECTED)
            answer = answers.setdefault(piece.run, generate.AnswerStream(work(piece), "a1", "w", seal, guard))
            half = len(piece.text) // 2 if at in cuts else 0
            for text in (piece.text[:half], piece.text[half:]) if half else (piece.text,):
                finish = piece.finish
                made = Chunk("q", text, positions[piece.run], 1, finish, 5, positions[piece.run] + 1)
                positions[piece.run] += 1
                answer.push(made, 7)
                if positions[piece.run] % 3:
                    written += taken(piece, answer)
            if piece.finish is not None:
                completion = answer.completion(piece.finish)
                written += taken(piece, answer)
                digests[completion.request] = completion.text_digest
                written += ended(work(piece), completion)
        return Run(written, digests)

    def fold(self, inputs: Sequence[Piece], run: Run) -> dict[str, bytes]:
        """Digest of the text out of the chunks alone."""
        texts = {work(piece).request: b"" for piece in inputs}
        for response in responses(run):
            if response.event == "chunk":
                mark, _, raw = response.sealed.partition(b"|")
                assert mark == f"{response.attempt}:{response.position}".encode()
                texts[response.request] += raw
                assert response.prefix == hashlib.sha256(texts[response.request]).digest()
        return {request: hashlib.sha256(text).digest() for request, text in texts.items()}

    def due(self, inputs: Sequence[Piece]) -> Counter[Any]:
        return Counter({work(piece).request: 1 for piece in inputs})

    def answers(self, run: Run) -> Counter[Any]:
        return Counter(completion.request for completion in completions(run))

    def essence(self, run: Run) -> Any:
        return [(c.request, c.result, c.text, c.text_digest, c.findings) for c in completions(run)]

    def exact(self, run: Run) -> Any:
        return run.written, run.state

    def check_life(self, inputs: Sequence[Piece], run: Run) -> None:
        states: dict[str, str] = {}
        at: dict[str, int] = {}
        for topic, _, value in run.written:
            if topic == "responses":
                response = decode(Response, value)
                request = response.request
                after: str = response.event
                if after == "chunk":
                    assert response.position > at.get(request, -1)
                    at[request] = response.position
            else:
                kind: Any = self.writes[topic]
                request = decode(kind, value).request
                after = {"findings": "finding"}.get(topic, "completion")
            assert after in NEXT[states.get(request, "")]
            states[request] = after
        assert set(states.values()) <= {"end", "finding"}


def ended(work: Work, completion: Completion) -> list[Written]:
    written = encode(completion)
    found = [Written("completions", work.tenant, written)]
    found.append(Written("responses", work.tenant, encode(generate.end(work, completion, written))))
    event = generate.finding(work, completion, TIME)
    return found if event is None else [*found, Written("findings", work.tenant, event)]


def responses(run: Run) -> list[Response]:
    return [decode(Response, w.value) for w in run.written if w.topic == "responses"]


def completions(run: Run) -> list[Completion]:
    return [decode(Completion, w.value) for w in run.written if w.topic == "completions"]
