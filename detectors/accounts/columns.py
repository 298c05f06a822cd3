"""The row of integers that the trees read of an account's state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.accounts.facts import COUNTED, FACTS
from detectors.accounts.state import FACTS_BYTES, AccountState

SHARES = slice(0, len(FACTS))
"""Of each fact the share of all requests that raised it, in thousandths."""
RECENTLY = slice(SHARES.stop, 2 * len(FACTS))
"""Of each fact the number of recent requests that raised it."""
COUNTS = slice(RECENTLY.stop, RECENTLY.stop + len(COUNTED))
"""Of each fact of COUNTED the number of requests that raised it, up to MAX_COUNT."""
REPETITION = slice(COUNTS.stop, COUNTS.stop + 11)
"""The mean distance to the nearest text; three columns each of texts, openings and closings; requests, up to
MAX_REQUESTS."""
COLUMNS = REPETITION.stop
MAX_COUNT, MAX_REQUESTS = 60, 200
_COUNTED = np.array(COUNTED)


def row(state: AccountState) -> npt.NDArray[np.int32]:
    """The columns of one account: shares in thousandths, counts up to a bound."""
    requests = max(1, state.count)
    bits = np.unpackbits(np.frombuffer(state.recent, np.uint8), bitorder="little")
    # eight facts at a time are added, as bytes of one number: RECENT fits into each
    recently = np.add.reduce(bits.view("<u8").reshape(-1, FACTS_BYTES)).view(np.uint8)
    totals = np.frombuffer(state.totals, "<u4").astype(np.int64)
    columns = np.empty(COLUMNS, dtype=np.int32)
    columns[SHARES] = totals * 1000 // requests
    columns[RECENTLY] = recently[: len(FACTS)]
    columns[COUNTS] = np.minimum(totals.take(_COUNTED), MAX_COUNT)
    columns[REPETITION] = [
        state.distance // requests,
        *_repeated(state.texts, requests),
        *_repeated(state.heads, requests),
        *_repeated(state.tails, requests),
        min(state.count, MAX_REQUESTS),
    ]
    return columns


def _repeated(table: tuple[int, ...], requests: int) -> tuple[int, int, int]:
    """The share of the commonest and of the three commonest values, and the count of the first."""
    counts = sorted(table[1::2])
    most = counts[-1] if counts else 0
    return 1000 * most // requests, 1000 * sum(counts[-3:]) // requests, min(most, MAX_COUNT)
