"""What the step loop asks of the arithmetic beneath it. No torch."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.types import Turn

ERASE: Final = -1
"""As the source of a move: fill the destination with zeros."""


Move: TypeAlias = tuple[int, int]
"""(source block or ``ERASE``, destination block)."""


@dataclass(frozen=True, slots=True)
class ScheduledTokens:
    """Compute tokens ``start .. start + count`` of a request; ``blocks`` holds its positions in order.

    ``last`` is set when these reach the end of what is known, so the next token can be drawn.
    """

    request_id: str
    start: int
    count: int
    last: bool
    blocks: tuple[int, ...]


LogitsRow: TypeAlias = NDArray[np.float32]


class LogitsQuery(NamedTuple):
    """What is to be known of a row of logits, so that a device need not hand over all of it.

    ``whole``: all. Else the token on which ``draw`` in [0, 1) falls at ``temperature`` (0: the likeliest), and the
    ``reach`` likeliest. A forward may tell more than is asked.
    """

    whole: bool = True
    temperature: float = 0.0
    draw: float = 0.0
    reach: int = 0


WHOLE = LogitsQuery()


class Shortlist(NamedTuple):
    """What a device tells of a row of logits.

    ``ids`` and ``logits`` ``[reach]``, likeliest first. ``drawn``: with no reach the token that was drawn among all;
    else among those beyond the first ``SHORT``, for the part of the draw that falls there. ``peak``: the largest
    logit; ``total``: the sum over all tokens of ``exp((logit - peak) / temperature)``. ``whole`` fetches the row.
    """

    drawn: int
    peak: float
    total: float
    ids: NDArray[np.intp]
    logits: NDArray[np.float64]
    whole: Callable[[], LogitsRow]


SHORT = 64
"""Likeliest tokens that are told apart from the rest: those that a watermark's tournament takes."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """A planned feed with its token ids, the (tenant, name) of the adapter they go through, and what is asked."""

    feed: ScheduledTokens
    tokens: list[int]
    adapter: tuple[str, str] | None = None
    ask: LogitsQuery = WHOLE


class Forward(Protocol):
    """The arithmetic of an engine; called from the worker thread only, but for ``encode`` and ``lineage``.

    ``slots`` requests at once, ``budget`` tokens a step, ``blocks`` of ``block_size`` positions of cache.
    """

    slots: int
    budget: int
    max_context: int
    end: int
    vocabulary: int
    blocks: int
    block_size: int

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """Token ids of a conversation; ``InvalidRequest`` where it cannot fit. Thread-safe."""

    def lineage(self, tenant: str, adapter: str) -> bytes:
        """Digest of weights, dtype and adapter; ``InvalidRequest`` where the tenant has none such. Thread-safe."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""

    def rearrange(self, moves: Items[Move]) -> None:
        """Copy and erase blocks, in order."""

    def logits(self, feeds: Items[StepInput]) -> Items[LogitsRow | Shortlist]:
        """Compute the feeds; one ``[vocab]`` row for each feed marked ``last``, in order, or what was asked of it.

        Raises ``MemoryError`` where the device has no room for so many at once.
        """
