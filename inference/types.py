"""Values and the engine protocol: all that callers of ``inference`` need, free of torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

SCHEME = "tournament-30/2"


@dataclass(slots=True)
class MarkAccount:
    """The account of an answer's watermark, as it is recorded. Counts are output tokens."""

    scheme: str = SCHEME
    epoch: int = 0
    skipped: str = ""
    """The reason why no token was marked; empty where one was, or could have been."""
    marked: int = 0
    no_context: int = 0
    repeated: int = 0
    code: int = 0


TURN_TOKENS = 2
"""Tokens the chat template adds per turn: the role marker and the end marker."""
REPLY_TOKENS = 1
"""Tokens the chat template adds once: the marker that opens the answer."""
ROLES = ("system", "user", "assistant")
LOGPROB_STEP = 0.1
"""Log-probabilities are rounded to multiples of this."""
IMPOSSIBLE = -9999.0
"""The log-probability of a token that cannot be drawn."""


class InvalidRequest(ValueError):
    """A request that no engine can run; the text names the field and the bound, never content."""


class ContextExceeded(InvalidRequest):
    """Input and output together do not fit the model's context."""


class EngineClosed(RuntimeError):
    """``submit`` came after ``drain`` or ``close``; send the request to another engine."""


class FinishReason(StrEnum):
    """The reason why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    CONTEXT = "context"
    """It never began: input and output together do not fit the model's context."""
    DEADLINE = "deadline"
    """It never began: the queue is too long for its deadline."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of the draw of the next token. ``temperature`` 0 takes the most likely token.

    ``top_k`` 0 means no limit; ``seed`` is mixed with the request id and the position, so equal
    ids, seeds and prompts give equal text. ``stop`` strings end the answer and are not part of it.
    ``min_p`` drops tokens less likely than this times the likeliest. ``repetition_penalty`` looks at
    prompt and output, the two others at the output; ``logit_bias`` adds to the logits of token ids.
    ``logprobs`` is the number of likeliest tokens to tell with each drawn one; it goes with no
    ``logit_bias``, as both together read out the model. Bounds: ``inference.bounds``.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int = 0
    json_mode: bool = False
    """Asked for output that is JSON; refused, as no engine here can promise it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; ``role`` is one of ``ROLES``."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. ``max_tokens`` bounds the output and is enforced exactly.

    ``weight`` is the plan's share of service against 100 for an ordinary one; ``risk``, 0 to 1, lowers
    it. ``deadline_s``: seconds from submission after which the answer is of no use; a request that
    cannot begin by then is refused at once. ``adapter`` names a LoRA adapter of the tenant, empty for none.
    ``estimated``: tokens are counted by another's server, and reported as it counts them, also above ``max_tokens``.
    """

    request_id: str
    tenant: str
    turns: tuple[Turn, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    weight: int = 100
    risk: float = 0.0
    deadline_s: float | None = None
    adapter: str = ""
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithms, rounded to ``LOGPROB_STEP``: the drawn token's, and (id, value) of the likeliest.

    ``pieces``: the bytes of the drawn token, then of each of ``top``, where an engine knows them.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    pieces: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Position of a request: ``position`` 0 is running, 1 the next to run.

    ``eta_s`` is the estimated number of seconds until it runs, None while too little has been measured.
    """

    position: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer.

    ``position`` is the index of the chunk's first output token and ``tokens`` how many it covers;
    the chunks of one answer cover 0..``output_tokens`` without gap or overlap (a chunk whose bytes
    are not a whole character yet waits, so ``tokens`` may exceed one; text and tokens held for a
    possible stop string arrive later). The last chunk, and only it, has ``finish`` set.
    ``input_tokens`` and ``output_tokens`` are totals so far. ``error`` is set iff ``finish`` is
    ``ERROR``, ``CONTEXT`` or ``DEADLINE`` and never contains prompt text.
    """

    request_id: str
    text: str
    position: int
    tokens: int
    finish: FinishReason | None
    input_tokens: int
    output_tokens: int
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of ``tokens`` where the request asked for them."""
    mark: MarkAccount | None = None
    """On the last chunk of an engine that marks: the account of the marked tokens."""
    version: int = 0
    """On the last chunk: the model's version that answered, 0 where it has none."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of one engine. ``batch_fill`` is the mean share of slots used per step, 0..1.

    ``computed`` are tokens that went through the model, ``reused`` prompt tokens that a tenant's own
    earlier request had left in the cache. ``step_s`` is the smoothed time of a step in seconds.
    ``begun`` requests were taken from the queue, after ``waited_s`` seconds in it all together.
    ``stalled`` says that a step hangs: the engine has given up its requests and takes no more.
    """

    running: int
    waiting: int
    tokens_generated: int
    steps: int
    batch_fill: float
    computed: int = 0
    reused: int = 0
    preempted: int = 0
    blocks_held: int = 0
    blocks_total: int = 0
    quarantined: int = 0
    step_s: float = 0.0
    begun: int = 0
    waited_s: float = 0.0
    stalled: bool = False


class InferenceEngine(Protocol):
    """An engine as a pipeline sees it: submit, cancel, drain, close."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models this engine serves."""

    @property
    def max_context(self) -> int:
        """Most tokens (input and output together) of one request."""

    def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Chunks of the answer; exactly one, the last, has ``finish`` set.

        The request joins on the first ``__anext__``. A request that cannot run ends with one
        ``ERROR``, ``CONTEXT`` or ``DEADLINE`` chunk; nothing but ``EngineClosed`` and cancellation is
        raised. Abandoning the iterator (``aclose``, task cancellation) cancels the request.
        """

    def cancel(self, request_id: str) -> bool:
        """Ask for an early end; the stream still ends with a ``CANCELLED`` chunk.

        True if the request was known and not finished.
        """

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """Position of a request in the queue; None where it is not here (any more)."""

    async def drain(self) -> None:
        """Refuse further requests and wait until all accepted ones have finished."""

    def stats(self) -> EngineStats:
        """Counters as of the last finished step."""

    async def close(self) -> None:
        """Cancel the requests that are left and free all resources; idempotent."""


class HasText(Protocol):
    """Anything with a text."""

    @property
    def text(self) -> str: ...


def input_token_bound(turns: Sequence[HasText]) -> int:
    """Upper bound of the input tokens of ``turns`` for any byte-level tokenizer.

    Every token of a byte-level vocabulary stands for at least one byte of UTF-8, and nothing is
    normalised before the split, so tokens <= bytes; the template adds a fixed number.
    """
    text_bytes = 0
    for turn in turns:
        text = turn.text
        text_bytes += len(text if text.isascii() else text.encode("utf-8", "surrogatepass"))
    return text_bytes + TURN_TOKENS * len(turns) + REPLY_TOKENS
