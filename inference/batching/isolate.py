"""Work for many requests at once, of which a bad one fails alone. No torch."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import NamedTuple, TypeVar

import numpy as np

from inference.ports import Forward, LogitsRow, RowSummary, ScheduledTokens, StepInput

Item = TypeVar("Item")
Result = TypeVar("Result")


class StepResult(NamedTuple):
    """Result of scheduled tokens: a row, no row while a prompt is not through, or the reason why they failed."""

    scheduled: ScheduledTokens
    row: LogitsRow | RowSummary | None = None
    error: str | None = None


def isolate_faults(
    items: Items[Item],
    act: Callable[[Items[Item]], list[Result]],
    failed: Callable[[Item, Exception], Result],
    *,
    blameless: tuple[type[Exception], ...] = (),
) -> list[Result]:
    """Results of ``act`` on all items; where it raises, on halves of them, so that only the guilty item fails.

    ``act`` must give an item the same result each time and in any company. ``failed`` makes the result of an item that
    fails alone. Exceptions that are ``blameless`` are raised.
    """
    try:
        return act(items)
    except blameless:
        raise
    except Exception as fault:
        if len(items) == 1:
            return [failed(items[0], fault)]
    half = len(items) // 2
    first = isolate_faults(items[:half], act, failed, blameless=blameless)
    return [*first, *isolate_faults(items[half:], act, failed, blameless=blameless)]


def compute(forward: Forward, inputs: Items[StepInput]) -> list[StepResult]:
    """Logits for each input, or the reason why it failed.

    A pass that is computed again writes the same values into the cache again. Raises ``MemoryError``, which is the
    fault of no request.
    """

    def act(some: Items[StepInput]) -> list[StepResult]:
        rows = iter(forward.logits(some))
        plan = [item.scheduled for item in some]
        return [_checked(one, next(rows)) if one.last else StepResult(one) for one in plan]

    return isolate_faults(inputs, act, _failed, blameless=(MemoryError,))


def _failed(item: StepInput, fault: Exception) -> StepResult:
    # the type alone: a message could quote the prompt
    return StepResult(item.scheduled, error=f"{type(fault).__name__} while computing this request")


def _checked(scheduled: ScheduledTokens, row: LogitsRow | RowSummary) -> StepResult:
    # a NaN anywhere is the maximum; so is an infinity, and with nothing but -inf there is nothing to draw
    max_logit = row.max_logit if isinstance(row, RowSummary) else row.max()
    if np.isfinite(max_logit):
        return StepResult(scheduled, row)
    return StepResult(scheduled, error="the model's output for this request was not a number")
