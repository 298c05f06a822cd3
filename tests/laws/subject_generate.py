"""GENERATE as a subject: interleaved streams of an engine through the guard; sealing is replaced by a readable mark."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from detectors.verbatim import ProtectedIndex
from inference.types import Chunk, FinishReason
from pipeline.events.codec import decode
from pipeline.events.messages import Completion, Work
from pipeline.generate.answer import AnswerStream
from pipeline.generate.guard import guard_of
from pipeline.generate.step import Acknowledged, ChunkArrived, Ended, GenerateStage, Leaving, RunEvent, Runs
from pipeline.generate.step import Run as Attempted
from pipeline.stage import InputBatch
from tests.laws.subject import RECORDS, Cuts, Run, Subject
from tests.laws.test_admit_laws import CONTROL

TIME = 1_790_000_000_000
PIECES = ("plain words ", "漢字 ", "call 13812345678 ", "jane@exam", "ple.org ", "4111 1111 1111 1111 ", " ", "é", "")
PROTECTED = ProtectedIndex({"cards": ("call 13812345678 or 4111 1111 1111 1111",)}, 20)
NEXT = {
    "": {"chunk", "completion"},
    "chunk": {"chunk", "completion"},
    "completion": {"rest", "end"},
    "rest": {"end"},
    "end": {"finding"},
}


@dataclass(frozen=True)
class Piece:
    """What the engine said next in one of its runs, as the ``number``-th thing."""

    run: int
    tenant: str
    text: str
    finish: FinishReason | None
    output: str
    number: int = 0


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


class GenerateSubject(Subject):
    resumes = False

    def stage(self, inputs: Sequence[Piece]) -> GenerateStage:
        return GenerateStage(CONTROL, "w")

    def inputs(self) -> st.SearchStrategy[list[Piece]]:
        turns = st.lists(st.integers(0, 9), min_size=1, max_size=12)
        return st.tuples(st.lists(talks, min_size=1, max_size=4), turns).map(interleaved)

    def groups(self, inputs: Sequence[Piece], cuts: Cuts) -> Iterator[Sequence[Piece]]:
        """A cut splits the engine's chunk in two; no successor takes a run up."""
        numbers: Counter[int] = Counter()
        for at, piece in enumerate(inputs):
            half = len(piece.text) // 2 if at in cuts else 0
            for text in (piece.text[:half], piece.text[half:]) if half else (piece.text,):
                yield [replace(piece, text=text, number=numbers[piece.run])]
                numbers[piece.run] += 1

    def batch(self, state: Runs, group: Sequence[Piece]) -> InputBatch[RunEvent]:
        """At every third piece the sender is behind, so its text leaves late."""
        (piece,) = group
        run, number = work(piece), piece.number
        events: list[RunEvent] = []
        if number == 0:
            events.append(Attempted(run, "a1", AnswerStream(run, "a1", "w", seal, guard_of(run, (), PROTECTED))))
        events.append(ChunkArrived(run.request, Chunk("q", piece.text, number, 1, piece.finish, 5, number + 1), 7))
        if number % 3 != 2:
            events.append(Leaving(run.request))
        if piece.finish is not None:
            events += [Ended(run.request, piece.finish), Acknowledged(run.request)]
        return InputBatch(events, TIME)

    def folded(self, inputs: Sequence[Piece], run: Run) -> Iterable[Any]:
        return [*run.records("completions"), *run.records("responses")]

    def view(self, state: Runs) -> set[str]:
        return set(state)

    def due(self, inputs: Sequence[Piece]) -> Counter[Any]:
        return Counter({work(piece).request: 1 for piece in inputs})

    def answers(self, run: Run) -> Counter[Any]:
        return Counter(completion.request for completion in run.records("completions"))

    def essence(self, run: Run) -> Any:
        return [(c.request, c.result, c.text, c.text_digest, c.findings) for c in run.records("completions")]

    def exact(self, run: Run) -> Any:
        return run.written

    def check_life(self, inputs: Sequence[Piece], run: Run) -> None:
        """Each response and report follows on the one before it, and the chunks are the text of the completion."""
        states: dict[str, str] = {}
        positions: dict[str, int] = {}
        texts: dict[str, bytes] = {work(piece).request: b"" for piece in inputs}
        for topic, _, value in run.written:
            record: Any = decode(RECORDS[topic], value)
            after = {"findings": "finding", "completions": "completion"}.get(topic) or record.event
            if after == "chunk":
                assert record.position > positions.get(record.request, -1)
                positions[record.request] = record.position
                mark, _, raw = record.sealed.partition(b"|")
                assert mark == f"{record.attempt}:{record.position}".encode()
                texts[record.request] += raw
                assert record.prefix == hashlib.sha256(texts[record.request]).digest()
                after = "rest" if states.get(record.request) == "completion" else after
            assert after in NEXT[states.get(record.request, "")]
            states[record.request] = after
        assert set(states.values()) <= {"end", "finding"}
        digests = {completion.request: completion.text_digest for completion in completions(run)}
        assert digests == {request: hashlib.sha256(text).digest() for request, text in texts.items()}


def work(piece: Piece) -> Work:
    who = (piece.tenant, piece.tenant, f"{piece.tenant}-1")
    fields = {"keep": "all", "output": piece.output, "verbatim": piece.output}
    return Work(f"g1-0-{piece.run}", 0, *who, f"r{piece.run}", -1, TIME + 60_000, model="m", **fields)  # type: ignore[arg-type]


def seal(name: str, raw: bytes) -> bytes:
    return name.encode() + b"|" + raw


def completions(run: Run) -> list[Completion]:
    return run.records("completions")
