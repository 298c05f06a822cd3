"""Thresholds, placed so that no source of benign rows places it alone.

Each source counts at most as MOST rows, and its share of what lies above a threshold at most as a tenth, or as two
sources' share where there are fewer than twenty. A language of few sources has the threshold of all. The share that is
let above is chosen by what the other sources' threshold does to each source that is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.prompts.training.folds import Wide, group
from detectors.prompts.training.rows import LabelledText

MOST = 600
"""Rows that a source counts as, at most."""
_TENTH, _FEW = 0.1, 2
FEWEST, LEAST_ROWS = 10, 20
"""A language with fewer sources, of so many rows each, has the threshold of all languages together."""
GRID = 1_500
"""Of the highest values, so many are thresholds that are tried, and of all values two hundred."""
SHARES = (0.0002, 0.0004, 0.0008, 0.0015, 0.0025, 0.004, 0.006, 0.008, 0.011, 0.015, 0.02, 0.03, 0.045, 0.07)
"""Shares that are tried at home, for the one that comes nearest to the aim abroad."""
_WIDTH = 1.96


class Sources(NamedTuple):
    """Benign rows by source: what each one counts, and the share of its rows above each value of a grid."""

    names: tuple[str, ...]
    weight: Wide
    grid: Wide
    above: Wide

    @staticmethod
    def of(rows: Sequence[LabelledText], odds: Wide, chosen: npt.NDArray[np.bool_]) -> Sources:
        """The chosen rows."""
        held: dict[str, list[float]] = defaultdict(list)
        for at in np.flatnonzero(chosen).tolist():
            held[f"{group(rows[at].source)} {rows[at].language}"].append(float(odds[at]))
        # a handful of rows says nothing of a tail
        held = {name: values for name, values in held.items() if len(values) >= LEAST_ROWS} or dict(held)
        # a threshold lies among the highest; the rest is there where a few rows are all
        high = np.unique(odds[chosen])
        grid = np.unique(np.append(high[:: max(1, len(high) // 200)], high[-GRID:]))
        each = [np.sort(np.array(values)) for values in held.values()]
        above = [1 - np.searchsorted(values, grid, side="right") / len(values) for values in each]
        weight = np.array([float(min(len(values), MOST)) for values in each])
        return Sources(tuple(held), weight, grid, np.array(above).T.reshape(len(grid), len(each)))

    def without(self, name: str) -> Sources:
        kept = [at for at, each in enumerate(self.names) if each != name]
        return Sources(tuple(self.names[at] for at in kept), self.weight[kept], self.grid, self.above[:, kept])

    def over(self, name: str, cut: float) -> float:
        """Of this source, the share of rows above the cut."""
        at = max(0, int(np.searchsorted(self.grid, cut, side="right")) - 1)
        return float(self.above[at, self.names.index(name)])


def bounded(sources: Sources, share: float) -> float:
    """The lowest value with at most `share` of the weight above it, where no source adds more than its bound."""
    weight = sources.weight / sources.weight.sum()
    most = share * max(_TENTH, _FEW / len(sources.names))
    over = np.minimum(sources.above * weight, most).sum(axis=1) > share
    return float(sources.grid[int(over.argmin())])


def abroad(sources: Sources, share: float) -> float:
    """Of a source's rows, the share above the threshold that all others place at `share`; the mean over sources."""
    out = [sources.over(name, bounded(sources.without(name), share)) for name in sources.names]
    return float(np.average(out, weights=sources.weight))


def placed(sources: Sources, aim: float) -> tuple[float, float]:
    """The threshold whose share abroad is nearest to `aim`, and half of its 95 % interval by the jackknife.

    Of a single source nothing is known but its own tail.
    """
    count = len(sources.names)
    if count == 1:
        return bounded(sources, aim), 0.0
    share = min(SHARES, key=lambda share: (abs(abroad(sources, share) - aim), share))
    left = np.array([bounded(sources.without(name), share) for name in sources.names])
    spread = float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
    return bounded(sources, share), _WIDTH * spread
