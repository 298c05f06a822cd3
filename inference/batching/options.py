"""Settings of an engine that computes its requests in batches."""

from __future__ import annotations

from dataclasses import dataclass

from inference.watermark.marking import Marker

STALL_S = 120.0
"""Far beyond any honest step, which the token budget bounds."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Settings of the queue, the batch and the watermark."""

    max_waiting: int = 1024
    """Requests that may wait beside those that run; more wait only of tenants below their part of the queue."""
    keep_prefixes: bool = True
    """True lets a tenant's later requests reuse the cache blocks of its earlier ones."""
    stall_s: float = STALL_S
    """Seconds after which a step counts as stuck: its requests end with an error, and the engine takes no more."""
    marker: Marker | None = None
    """Gives each request its watermark when it joins; None marks no answer."""
