"""Values and the engine protocol: all that callers of ``inference`` need, free of torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from inference.watermark.account import MarkAccount

TURN_TOKENS = 2
"""Tokens the chat template adds per turn: the role marker and the end marker."""
REPLY_TOKENS = 1
"""Tokens the chat template adds once: the marker that opens the answer."""
ROLES = ("system", "user", "assistant")
MAX_TURNS = 256
MAX_STOPS = 8
MAX_STOP_BYTES = 256
MAX_ID_BYTES = 256
MAX_SEED = 2**64 - 1


class InvalidRequest(ValueError):
    """A request that no engine can run; the text names the field and the bound, never content."""


class ContextExceeded(InvalidRequest):
    """Input and output together do not fit the model's context."""


class EngineClosed(RuntimeError):
    """``submit`` came after ``drain`` or ``close``; send the request to another engine."""


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    CONTEXT = "context"
    """It never began: input and output together do not fit the model's context."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is drawn. ``temperature`` 0 takes the most likely token.

    ``top_k`` 0 means no limit; ``seed`` is mixed with the request id and the position, so equal
    ids, seeds and prompts give equal text. ``stop`` strings end the answer and are not part of it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; ``role`` is one of ``ROLES``."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. ``max_tokens`` bounds the output and is enforced exactly."""

    request_id: str
    tenant: str
    turns: tuple[Turn, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer.

    ``position`` is the index of the chunk's first output token and ``tokens`` how many it covers;
    the chunks of one answer cover 0..``output_tokens`` without gap or overlap (a chunk whose bytes
    are not a whole character yet waits, so ``tokens`` may exceed one; text and tokens held for a
    possible stop string arrive later). The last chunk, and only it, has ``finish`` set.
    ``input_tokens`` and ``output_tokens`` are totals so far. ``error`` is set iff ``finish`` is
    ``ERROR`` or ``CONTEXT`` and never contains prompt text.
    """

    request_id: str
    text: str
    position: int
    tokens: int
    finish: FinishReason | None
    input_tokens: int
    output_tokens: int
    error: str | None = None
    mark: MarkAccount | None = None
    """On the last chunk of an engine that marks: what of the answer was marked."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of one engine. ``batch_fill`` is the mean share of slots used per step, 0..1."""

    running: int
    waiting: int
    tokens_generated: int
    steps: int
    batch_fill: float


class InferenceEngine(Protocol):
    """What a pipeline sees of an engine: submit, cancel, drain, close."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models this engine serves."""

    @property
    def max_context(self) -> int:
        """Most tokens (input and output together) of one request."""

    def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Chunks of the answer; exactly one, the last, has ``finish`` set.

        The request joins on the first ``__anext__``. A request that cannot run ends with one
        ``ERROR`` or ``CONTEXT`` chunk; nothing but ``EngineClosed`` and cancellation is raised. Abandoning the
        iterator (``aclose``, task cancellation) cancels the request.
        """

    def cancel(self, request_id: str) -> bool:
        """Ask for an early end; the stream still ends with a ``CANCELLED`` chunk.

        True if the request was known and not finished.
        """

    async def drain(self) -> None:
        """Refuse further requests and wait until all accepted ones have finished."""

    def stats(self) -> EngineStats:
        """Counters as of the last finished step."""

    async def close(self) -> None:
        """Cancel what is left and free all resources; idempotent."""


class Spoken(Protocol):
    """Anything with a text."""

    @property
    def text(self) -> str: ...


def input_token_bound(turns: Sequence[Spoken]) -> int:
    """Upper bound of the input tokens of ``turns`` for any byte-level tokenizer.

    Every token of a byte-level vocabulary stands for at least one byte of UTF-8, and nothing is
    normalised before the split, so tokens <= bytes; the template adds a fixed number.
    """
    text_bytes = 0
    for turn in turns:
        text = turn.text
        text_bytes += len(text if text.isascii() else text.encode("utf-8", "surrogatepass"))
    return text_bytes + TURN_TOKENS * len(turns) + REPLY_TOKENS


def check_request(request: GenerationRequest) -> None:
    """Raise ``InvalidRequest`` unless every field is within its bounds (context length aside)."""
    _require_bytes("request_id", request.request_id, 1, MAX_ID_BYTES)
    _require_bytes("tenant", request.tenant, 0, MAX_ID_BYTES)
    if not 1 <= len(request.turns) <= MAX_TURNS:
        raise InvalidRequest(f"turns: expected 1 to {MAX_TURNS}, got {len(request.turns)}")
    for index, turn in enumerate(request.turns):
        if turn.role not in ROLES:
            raise InvalidRequest(f"turns[{index}].role: expected one of {', '.join(ROLES)}")
        _require_bytes(f"turns[{index}].text", turn.text, 0, None)
    if request.max_tokens < 1:
        raise InvalidRequest(f"max_tokens: expected at least 1, got {request.max_tokens}")
    _check_sampling(request.sampling)


def _check_sampling(sampling: SamplingParams) -> None:
    # Written so that NaN fails each comparison.
    if not 0.0 <= sampling.temperature <= 100.0:
        raise InvalidRequest(f"temperature: expected 0 to 100, got {sampling.temperature}")
    if not 0.0 < sampling.top_p <= 1.0:
        raise InvalidRequest(f"top_p: expected above 0 and at most 1, got {sampling.top_p}")
    if sampling.top_k < 0:
        raise InvalidRequest(f"top_k: expected 0 (no limit) or more, got {sampling.top_k}")
    if sampling.seed is not None and not 0 <= sampling.seed <= MAX_SEED:
        raise InvalidRequest("seed: expected an integer of 64 bits, not negative")
    if len(sampling.stop) > MAX_STOPS:
        raise InvalidRequest(f"stop: expected at most {MAX_STOPS} strings, got {len(sampling.stop)}")
    for index, stop in enumerate(sampling.stop):
        _require_bytes(f"stop[{index}]", stop, 1, MAX_STOP_BYTES)


def _require_bytes(name: str, text: str, low: int, high: int | None) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name}: expected valid Unicode, got a lone surrogate") from None
    if size < low or (high is not None and size > high):
        bound = f"{low} to {high}" if high is not None else f"at least {low}"
        raise InvalidRequest(f"{name}: expected {bound} bytes, got {size}")
