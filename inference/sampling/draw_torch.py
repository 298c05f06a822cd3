"""Token draws on the device that holds the logits, in torch; ``draw_triton`` does the same faster on CUDA.

Draws by inversion (Devroye, "Non-Uniform Random Variate Generation", 1986, III.2) in two levels. With the weights
``w(x) = exp((logit(x) - max) / T)`` and a uniform number u, the drawn token is the first whose cumulative weight is
beyond ``u * sum(w)``. Weights are summed by chunk first, then the chunk that holds the target is searched: a row is
read once, and nothing as wide as the vocabulary is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.ports import TOURNAMENT_TOP, LogitsQuery, LogitsRow, RowSummary

CHUNK = 1024
"""Tokens whose weights are summed together."""
MIN_TEMPERATURE = 1e-30
"""Below this float32 has no number for a temperature; all but the likeliest token weigh nothing long before."""
BELOW_ONE = 1 - 1e-12
"""Rounding may put a target at the very end of the weights; this keeps it before the end."""
DrawRows = Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]
"""``draw_rows`` of this module or of ``draw_triton``."""


def draw_and_topk(logits: Tensor, queries: Sequence[LogitsQuery], draw: DrawRows) -> list[RowSummary]:
    """Answer one query for each row of ``[rows, vocab]`` logits, with one transfer to the host.

    ``logits`` must stay unchanged while a summary is in use: ``RowSummary.fetch`` reads them.
    """
    k = min(max(query.top for query in queries), logits.shape[1])
    max_logits, argmax = logits.max(-1)
    if all(query.temperature == 0.0 for query in queries):
        # the third column is unused: at temperature 0 no caller reads the sum of weights
        return _summaries(logits, queries, _fetch([argmax[:, None], max_logits[:, None], max_logits[:, None]]), k)
    max_logits = max_logits.float()
    if k:
        top = logits.topk(k, dim=-1)
        top_ids, top_logits = top.indices, top.values.float()
    else:
        top_ids, top_logits = argmax[:, None][:, :0], logits[:, :0].float()
    settings = _send([[query.temperature, query.draw, float(query.top > 0)] for query in queries], logits.device)
    excluded = (top_ids[:, :TOURNAMENT_TOP], top_logits[:, :TOURNAMENT_TOP])
    drawn, exp_sums = draw(logits, max_logits, argmax, excluded, settings)
    columns = [drawn[:, None], max_logits[:, None], exp_sums[:, None], top_ids, top_logits]
    return _summaries(logits, queries, _fetch(columns), k)


def _summaries(logits: Tensor, queries: Sequence[LogitsQuery], table: NDArray[np.float64], k: int) -> list[RowSummary]:
    """Summaries from a table of ``[rows, 3 + 2 * k]``: drawn, max_logit, exp_sum, then ids and logits of the top k."""
    drawn = table[:, 0].astype(np.intp).tolist()
    max_logits = table[:, 1].tolist()
    exp_sums = table[:, 2].tolist()
    top_ids = table[:, 3 : 3 + k].astype(np.intp)
    top_logits = table[:, 3 + k :]
    no_ids, no_logits = top_ids[0, :0], top_logits[0, :0]
    summaries = []
    for row, query in enumerate(queries):
        ids = top_ids[row, : query.top] if query.top else no_ids
        values = top_logits[row, : query.top] if query.top else no_logits
        fetch = partial(fetch_row, logits, row)
        summaries.append(RowSummary(drawn[row], max_logits[row], exp_sums[row], ids, values, fetch))
    return summaries


def fetch_row(logits: Tensor, row: int) -> LogitsRow:
    """Copy one row of ``[rows, vocab]`` logits to the host: float32 ``[vocab]``."""
    copied: LogitsRow = logits[row].float().cpu().numpy()
    return copied


def draw_rows(
    logits: Tensor, max_logits: Tensor, argmax: Tensor, top: tuple[Tensor, Tensor], settings: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw one token from each row: int64 tokens ``[rows]`` and float64 sums of weights ``[rows]``.

    ``logits``: ``[rows, vocab]`` of any float type. ``max_logits``: float32 ``[rows]``. ``argmax``: int64 ``[rows]``.
    ``top``: int64 ids and float32 logits of the likeliest, each ``[rows, k]``. ``settings``: float64 ``[rows, 3]``, the
    temperature T, the uniform number u, and 1 where the ``top`` tokens are left out because they are drawn elsewhere.
    """
    uniforms, leaves_out = settings[:, 1], settings[:, 2] > 0.0
    greedy = settings[:, 0] == 0.0
    temperatures = settings[:, 0].masked_fill(greedy, 1.0).clamp(min=MIN_TEMPERATURE).float()
    top_ids, top_logits = top
    # [rows, k], zero where a row leaves none out
    top_weights = _weights(top_logits, max_logits, temperatures).double() * leaves_out[:, None]
    # [rows, chunks]
    chunk_sums = _chunk_sums(logits, max_logits, temperatures).double()
    exp_sums = chunk_sums.sum(-1)
    chunk_sums = chunk_sums.scatter_add(1, top_ids // CHUNK, -top_weights).clamp(min=0.0)
    chunk_ends = chunk_sums.cumsum(-1)
    # [rows, 1] from here on
    target = (uniforms * exp_sums - top_weights.sum(-1)).clamp(min=0.0)[:, None]
    chunk = _first_beyond(chunk_ends, target)
    target = target - chunk_ends.gather(1, chunk) + chunk_sums.gather(1, chunk)
    weights = _weights_in_chunk(logits, max_logits, temperatures, chunk)
    weights = _without_top(weights, chunk, top_ids, leaves_out)
    ends = weights.cumsum(-1)
    drawn = (chunk * CHUNK + _first_beyond(ends, target))[:, 0]
    return torch.where(greedy | (ends[:, -1] <= 0.0), argmax, drawn), exp_sums


def _weights(logits: Tensor, max_logits: Tensor, temperatures: Tensor) -> Tensor:
    """``exp((logits - max) / T)`` of float32 ``[rows, n]`` logits, maxima ``[rows]`` and temperatures ``[rows]``."""
    return ((logits - max_logits[:, None]) / temperatures[:, None]).exp()


def _chunk_sums(logits: Tensor, max_logits: Tensor, temperatures: Tensor) -> Tensor:
    """Sums of the weights of ``[rows, vocab]`` logits over each ``CHUNK`` tokens: float32 ``[rows, chunks]``."""
    rows, vocab = logits.shape
    padded = functional.pad(logits.float(), (0, -vocab % CHUNK), value=-torch.inf)
    chunks = padded.view(rows, -1, CHUNK)
    return ((chunks - max_logits[:, None, None]) / temperatures[:, None, None]).exp().sum(-1)


def _weights_in_chunk(logits: Tensor, max_logits: Tensor, temperatures: Tensor, chunk: Tensor) -> Tensor:
    """Weights in each row's own ``chunk`` ``[rows, 1]``: float64 ``[rows, CHUNK]``, zero beyond the vocabulary."""
    vocab = logits.shape[1]
    ids = chunk * CHUNK + torch.arange(CHUNK, device=logits.device)
    chunk_logits = logits.gather(1, ids.clamp(max=vocab - 1)).float()
    return _weights(chunk_logits, max_logits, temperatures).double() * (ids < vocab)


def _without_top(weights: Tensor, chunk: Tensor, top_ids: Tensor, leaves_out: Tensor) -> Tensor:
    """``[rows, CHUNK]`` weights of ``chunk`` ``[rows, 1]`` with those of ``top_ids`` ``[rows, k]`` set to zero."""
    columns = (top_ids - chunk * CHUNK).clamp(-1, CHUNK)
    in_chunk = (columns >= 0) & (columns < CHUNK) & leaves_out[:, None]
    # one column more takes the ids that lie in other chunks
    widened = functional.pad(weights, (0, 1))
    return widened.scatter(1, columns.masked_fill(~in_chunk, CHUNK), 0.0)[:, :CHUNK]


def _first_beyond(ends: Tensor, target: Tensor) -> Tensor:
    """Index ``[rows, 1]`` of the first of the cumulative weights ``[rows, n]`` beyond ``target`` ``[rows, 1]``."""
    target = torch.minimum(target, ends[:, -1:] * BELOW_ONE)
    return (ends <= target).sum(-1, keepdim=True).clamp(max=ends.shape[1] - 1)


def _send(rows: list[list[float]], device: torch.device) -> Tensor:
    """Float64 ``[rows, columns]`` on a device."""
    table = torch.tensor(rows, dtype=torch.float64)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def _fetch(columns: list[Tensor]) -> NDArray[np.float64]:
    """Columns ``[rows, n]`` side by side as float64, in one transfer to the host; token ids are exact in it."""
    table = torch.cat([column.double() for column in columns], dim=1)
    if not table.is_cuda:
        return table.numpy()
    host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    host.copy_(table, non_blocking=True)
    torch.cuda.current_stream(table.device).synchronize()
    return host.numpy()
