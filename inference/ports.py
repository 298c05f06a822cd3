"""The port between the step loop and the arithmetic beneath it. No torch."""

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
    """Tokens ``start .. start + count`` of a request, to be computed in the next step.

    ``blocks`` hold the request's positions in order. ``last`` is set when these tokens reach the end of the known
    ones, so that the next token can be drawn.
    """

    request_id: str
    start: int
    count: int
    last: bool
    blocks: tuple[int, ...]


LogitsRow: TypeAlias = NDArray[np.float32]
"""Logits of one row, ``[vocab]``."""


class LogitsQuery(NamedTuple):
    """The part of a row of logits that a caller needs, so that a device need not hand over all of it.

    With ``whole`` the caller needs all. Else it needs the token on which ``draw``, a uniform number in [0, 1), falls at
    ``temperature`` (0 takes the likeliest), and the ``top`` likeliest tokens. A forward may give more than is asked.
    """

    whole: bool = True
    temperature: float = 0.0
    draw: float = 0.0
    top: int = 0


WHOLE_ROW = LogitsQuery()


class RowSummary(NamedTuple):
    """Summary of one row of logits that stays on its device.

    ``drawn`` is the token drawn on the device: among all tokens where ``top`` is 0, else among those beyond the first
    ``TOURNAMENT_TOP``, for the part of the draw that falls there. ``max_logit`` is the largest logit, ``exp_sum`` the
    sum over all tokens of ``exp((logit - max_logit) / temperature)``. ``ids`` and ``logits``, both ``[top]``, are the
    likeliest tokens, likeliest first. ``fetch`` copies the whole row.
    """

    drawn: int
    max_logit: float
    exp_sum: float
    ids: NDArray[np.intp]
    logits: NDArray[np.float64]
    fetch: Callable[[], LogitsRow]


TOURNAMENT_TOP = 64
"""Likeliest tokens that compete in a watermark's tournament; the device draws among the others."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """Scheduled tokens with their ids, the (tenant, name) of their adapter, and the logits that are needed."""

    scheduled: ScheduledTokens
    tokens: list[int]
    adapter: tuple[str, str] | None = None
    query: LogitsQuery = WHOLE_ROW


class Forward(Protocol):
    """The arithmetic of an engine; called from the worker thread only, but for ``encode`` and ``lineage``.

    ``slots`` requests run at once, a step computes at most ``budget`` tokens, and the cache has ``blocks`` blocks of
    ``block_size`` positions.
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

    def logits(self, inputs: Items[StepInput]) -> Items[LogitsRow | RowSummary]:
        """Compute the inputs and answer their queries: one row or summary for each input marked ``last``, in order.

        Raises ``MemoryError`` where the device has no room for so many at once.
        """
