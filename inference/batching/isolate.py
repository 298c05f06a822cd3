"""One pass for many requests, of which a bad one fails alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TypeAlias

import numpy as np

from inference.ports import Forward, LogitsRow, ScheduledTokens, Shortlist, StepInput

Outcome: TypeAlias = tuple[ScheduledTokens, "LogitsRow | Shortlist | str | None"]
"""A feed with its logits, with None where its prompt is not through, or with why it failed."""


def compute(forward: Forward, batch: Items[StepInput]) -> list[Outcome]:
    """Logits for each feed, or why it failed.

    A fault in a shared pass is hunted down by halving, so only the guilty request fails; computing the others again
    writes the same values again. ``MemoryError`` is nobody's fault and is raised.
    """
    try:
        rows = iter(forward.logits(batch))
        return [(item.feed, _finite(next(rows)) if item.feed.last else None) for item in batch]
    except MemoryError:
        raise
    except Exception as fault:
        if len(batch) == 1:
            # The type alone: a message could quote the prompt.
            return [(batch[0].feed, f"{type(fault).__name__} while computing this request")]
        half = len(batch) // 2
        return [*compute(forward, batch[:half]), *compute(forward, batch[half:])]


def _finite(row: LogitsRow | Shortlist) -> LogitsRow | Shortlist | str:
    # a NaN anywhere is the maximum; so is an infinity, and with nothing but -inf there is nothing to draw
    peak = row.peak if isinstance(row, Shortlist) else row.max()
    if not np.isfinite(peak):
        return "the model's output for this request was not a number"
    return row
