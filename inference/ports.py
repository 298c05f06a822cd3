"""What the step loop asks of the arithmetic beneath it. No torch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.blocks import Move
from inference.scheduler import Feed
from inference.types import Turn

Row: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeedTokens:
    """A planned feed with its token ids and the (tenant, name) of the adapter they go through."""

    feed: Feed
    tokens: list[int]
    adapter: tuple[str, str] | None = None


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

    def logits(self, feeds: Items[FeedTokens]) -> list[Row]:
        """Compute the feeds; one ``[vocab]`` row for each feed marked ``last``, in order.

        Raises ``MemoryError`` where the device has no room for so many at once.
        """
