"""The next tokens of a step's requests, drawn together where that is faster. No torch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import NamedTuple

from inference.batching.draw_summaries import SummaryRow, draw_summaries
from inference.batching.entry import BatchEntry
from inference.batching.isolate import isolate_faults
from inference.ports import LogitsRow, RowSummary
from inference.sampling.choose import adjusted, candidates, choose, is_greedy
from inference.watermark.tournament import MarkedRow, draw_marked


class DrawnToken(NamedTuple):
    """The next token of a request, or the reason why none could be drawn."""

    request_id: str
    token: int | None = None
    error: str | None = None


class _Undrawn(NamedTuple):
    """A row of logits and the request that it is for; ``context`` marks the token, None draws it unmarked."""

    name: str
    entry: BatchEntry
    row: LogitsRow | RowSummary
    context: tuple[int, ...] | None


def draw_tokens(rows: Items[tuple[BatchEntry, LogitsRow | RowSummary]]) -> list[DrawnToken]:
    """Draw the next token of each request; a fault fails the guilty request alone."""
    # contexts are asked for once a token, however often it is drawn
    undrawn = [_Undrawn(entry.request.request_id, entry, row, entry.mark_context()) for entry, row in rows]
    return isolate_faults(undrawn, _draw_all, _failed) if undrawn else []


def _failed(item: _Undrawn, fault: Exception) -> DrawnToken:
    return DrawnToken(item.name, error=f"{type(fault).__name__} while drawing a token of this request")


def _draw_all(items: Items[_Undrawn]) -> list[DrawnToken]:
    """Draw unmarked whole rows one by one, marked ones together, and summaries together."""
    tokens: dict[str, int] = {}
    marked: list[MarkedRow] = []
    summaries: list[SummaryRow] = []
    for item in items:
        if isinstance(item.row, RowSummary):
            if len(item.row.ids):
                summaries.append(_summary_row(item, item.row))
            else:
                tokens[item.name] = item.row.drawn
            continue
        sequence, sampling = item.entry.sequence, item.entry.request.sampling
        row = adjusted(item.row, sampling, sequence.ids, sequence.input_tokens)
        key = item.entry.mark_key
        if item.context is None or key is None:
            draw = 0.0 if is_greedy(sampling) else item.entry.draw
            tokens[item.name] = choose(row, sampling, draw)
        else:
            ids, weights = candidates(row, sampling)
            marked.append(MarkedRow(item.name, ids, weights, item.context, key, item.entry.draw))
    tokens |= draw_marked(marked)
    tokens |= draw_summaries(summaries)
    return [DrawnToken(item.name, tokens[item.name]) for item in items]


def _summary_row(item: _Undrawn, summary: RowSummary) -> SummaryRow:
    sampling, draw = item.entry.request.sampling, item.entry.draw
    if item.context is None:
        return SummaryRow(item.name, summary, sampling, draw)
    return SummaryRow(item.name, summary, sampling, draw, item.context, item.entry.mark_key)
