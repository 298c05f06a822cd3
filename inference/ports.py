"""What the step loop asks of the arithmetic beneath it. No torch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.scheduler import Feed
from inference.types import Turn

Row: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeedTokens:
    """A planned feed with its token ids."""

    feed: Feed
    tokens: list[int]


class Forward(Protocol):
    """The arithmetic of an engine; called from the worker thread only, but for ``encode``."""

    slots: int
    budget: int
    max_context: int
    end: int

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """Token ids of a conversation; ``InvalidRequest`` where it cannot fit. Thread-safe."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""

    def logits(self, feeds: Items[FeedTokens]) -> list[Row]:
        """Compute the feeds; one ``[vocab]`` row for each feed marked ``last``, in order."""

    def release(self, slot: int, length: int) -> None:
        """Erase what a slot holds in its first ``length`` positions."""
