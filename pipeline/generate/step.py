"""GENERATE steps through a partition's runs: what the engine says goes in, responses and completions come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from inference.types import Chunk, FinishReason, QueuePosition
from pipeline.events.codec import encode
from pipeline.events.control import Control
from pipeline.events.emission import Emission, lane_partition
from pipeline.events.ids import GRACE_MS
from pipeline.events.messages import Completion, Response, Work
from pipeline.generate.answer import AnswerStream, end, failed, finding, position_response
from pipeline.stage import InputBatch, Step

TEXT_WAITS = "text_waits"
"""Text of a run may leave, where none was waiting before."""


@dataclass(slots=True)
class Run:
    """One attempt is made at one request."""

    work: Work
    attempt: str
    answer: AnswerStream | None = None
    """None where the request could not be opened, and once the run has failed."""
    announced: QueuePosition | None = None
    """The position that was told last."""
    completion: Completion | None = None
    rest: Response | None = None
    """Text that leaves with the end."""
    logprobs: bytes = b""
    quota_told: bool = False
    """A response has said what the decision left of the caller's limits."""


Runs = dict[str, Run]
"""The runs under way, by request."""


class Queued(NamedTuple):
    """The request waits for the engine at a position; None where that is not known."""

    request: str
    position: QueuePosition | None


class ChunkArrived(NamedTuple):
    """The engine gave a chunk, so long after the run began."""

    request: str
    chunk: Chunk
    elapsed_ms: int


class Leaving(NamedTuple):
    """A batch of responses leaves and takes along all text of the run that may leave by now."""

    request: str


class Ended(NamedTuple):
    """The engine is done; ``finish`` None says that the deadline came first."""

    request: str
    finish: FinishReason | None
    adapter: str = ""


class Failed(NamedTuple):
    """The run met a fault; nothing more of its answer leaves."""

    request: str


class Acknowledged(NamedTuple):
    """The run's completion is written, so its end may be told."""

    request: str


RunEvent = Run | Queued | ChunkArrived | Leaving | Ended | Failed | Acknowledged
"""A ``Run`` begins."""


class GenerateStage:
    """Answers requests; its state is the runs under way. Nothing outlives a run: one that is lost is run again."""

    name = "generate"
    reads = ("work", "control")
    writes = ("completions", "responses", "findings", "access")
    signals = (TEXT_WAITS,)

    def __init__(self, control: Control, worker: str) -> None:
        self._control = control
        self._worker = worker

    def start(self) -> Runs:
        """Give no runs."""
        return {}

    def fold(self, runs: Runs, records: Iterable[Response | Completion]) -> Runs:
        """Give the runs as they are: no attempt is taken up by another worker."""
        return runs

    def step(self, runs: Runs, batch: InputBatch[RunEvent]) -> Step[Runs]:
        """Take in what happened to runs, each event in its turn; one that comes after the end changes nothing."""
        step = Step(runs, consumed=len(batch.items))
        for event in batch.items:
            if isinstance(event, Run):
                runs[event.work.request] = event
            elif event.request in runs:
                self._take(step, runs[event.request], event, batch.now)
        return step

    def _take(self, step: Step[Runs], run: Run, event: RunEvent, now: int) -> None:
        answer = run.answer
        match event:
            case ChunkArrived(_, chunk, elapsed_ms):
                if answer is not None and answer.push(chunk, elapsed_ms):
                    step.signal(TEXT_WAITS)
            case Leaving():
                self._respond(step, run, None if answer is None else answer.take())
            case Ended(_, finish, adapter):
                assert answer is not None
                completion = msgspec.structs.replace(answer.completion(finish), adapter=adapter)
                run.rest = answer.take()
                run.logprobs = answer.logprobs_payload()
                self._complete(step, run, completion)
            case Failed():
                run.answer = run.rest = None
                run.logprobs = b""
                self._complete(step, run, failed(run.work, run.attempt, self._worker))
            case Acknowledged(request):
                self._close(step, run, now)
                del step.state[request]
            case Queued(_, position):
                if position is not None and position.position and position != run.announced:
                    self._respond(step, run, position_response(run.work, run.attempt, position))
                run.announced = position

    def _complete(self, step: Step[Runs], run: Run, completion: Completion) -> None:
        run.completion = completion
        work, value = run.work, encode(completion)
        step.emissions.append(Emission("completions", work.partition, work.organisation.encode(), value))

    def _close(self, step: Step[Runs], run: Run, now: int) -> None:
        """Send the rest of the text, the end and the findings."""
        work, completion = run.work, run.completion
        assert completion is not None
        self._respond(step, run, run.rest)
        if now < work.deadline + GRACE_MS:
            # later it may have expired already, and admit is the one to say so
            self._respond(step, run, end(work, completion, encode(completion), run.logprobs))
        event = finding(work, completion, now)
        if event is not None:
            step.emissions.append(Emission("findings", work.partition, work.organisation.encode(), event))

    def _respond(self, step: Step[Runs], run: Run, response: Response | None) -> None:
        if response is not None:
            if run.work.quota is not None and not run.quota_told and response.event != "place":
                run.quota_told = True
                response = msgspec.structs.replace(response, quota=run.work.quota)
            partition = lane_partition(run.work.lane, self._control.require_deployment().partitions)
            step.emissions.append(Emission("responses", partition, run.work.request.encode(), encode(response)))
