"""From what unseen sources taught: how rules and margins add up, and where each zone begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.prompts.language import LANGUAGES
from detectors.prompts.scorer import Zone
from detectors.prompts.training.folds import Readings, Wide
from detectors.prompts.training.pasted import PASTED_WORST
from detectors.prompts.training.rows import ANALYST, LabelledText
from detectors.prompts.training.thresholds import FEWEST, Sources, bounded, placed

GENERAL_AIM = 0.008
"""Share of the ordinary benign rows of a source that a threshold placed by all other sources flags, in the mean over
sources. It and the next two are below what is promised, and not so far below that attacks are let go for nothing."""
UNCERTAIN_AIM = 0.03
"""Share that it calls uncertain."""
BLOCK_AIM = 0.0005
"""Share that it blocks."""
DOCUMENT_AIM = 0.006
"""The same share of flagged documents."""
HARD_TAIL = 0.05
"""Share of the benign rows that speak of attacks or use their words that may be flagged."""
BLOCK_STEP = 1.0
"""The block threshold is at least this much above the flag threshold, in log-odds."""
MENTIONS = ("hard_mention", "twin")
HARD = (*MENTIONS, "hard_role_prompt", "hard_roleplay", PASTED_WORST, ANALYST)
MAX_USE = 4.0
"""Log-odds that a rule adds at most: rules know the pack they were written beside better than what is to come."""
SHARES = (0.25, 0.5, 0.75)
MANY = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)
"""Candidates for what a text's worst window loses for each natural logarithm of how many there are."""
_STEPS, _RATE = 3_000, 0.5


class Stack(NamedTuple):
    """Weights of the combined log-odds, `slope` for the margin."""

    bias: float
    slope: float
    use: float
    more: float
    hidden: float
    suffix: float = 0.0

    def odds(self, read: Readings, share: float) -> Wide:
        margin = read.whole * (1 - share) + read.worst * share
        found = self.use * read.sure + self.more * read.more + self.hidden * read.hidden + self.suffix * read.suffix
        return np.asarray(self.bias + self.slope * margin + found, dtype=np.float64)


def stack(rows: Sequence[LabelledText], read: Readings, weight: Sequence[float], share: float) -> Stack:
    """Logistic regression on five features, none of which may lower the score (projected gradient)."""
    margin = read.whole * (1 - share) + read.worst * share
    features = np.stack([np.ones(len(rows)), margin, read.sure, read.more, read.hidden, read.suffix], axis=1)
    target = np.array([row.attack for row in rows], dtype=np.float64)
    balance = np.asarray(weight)
    scale = np.maximum(np.abs(features).mean(axis=0), 1e-3)
    features = features / scale
    factors = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(features @ factors, -30, 30)))
        slope = features.T @ (balance * (chance - target)) / balance.sum()
        factors -= _RATE * slope / (1 + np.abs(features).max(axis=0) ** 0.5)
        factors[1:] = np.maximum(factors[1:], 0)
    most = (np.inf, np.inf, MAX_USE, MAX_USE / 4, MAX_USE / 4, MAX_USE)
    return Stack(*np.minimum(factors / scale, most).tolist())


def tail(odds: Wide, weight: Wide, share: float) -> float:
    """The value that `share` of the weight lies above."""
    order = np.argsort(odds)[::-1]
    above = np.cumsum(weight[order]) / weight.sum()
    return float(odds[order[min(int(np.searchsorted(above, share)), len(order) - 1)]])


def zones(
    rows: Sequence[LabelledText], odds: Wide, language: npt.NDArray[np.intp], aim: float = GENERAL_AIM
) -> dict[str, Zone]:
    """Per language, from held-out benign rows; of a source that places nothing, `aim` is flagged in the mean."""
    general = np.array([row.label == "benign" and row.subset not in HARD for row in rows])
    mentions = np.array([row.label == "benign" and row.subset in MENTIONS for row in rows])
    language_of = np.array([row.language for row in rows])
    every = Sources.of(rows, odds, general)
    every_mention = Sources.of(rows, odds, mentions)
    out: dict[str, Zone] = {}
    for name in LANGUAGES:
        mine = language_of == name
        if not (general & mine).any():
            continue
        own = _own(Sources.of(rows, odds, general & mine), every)
        flag, give = placed(own, aim)
        if (mentions & mine).sum() > 50:
            own_mentions = _own(Sources.of(rows, odds, mentions & mine), every_mention)
            flag = max(flag, bounded(own_mentions, HARD_TAIL))
        uncertain = min(flag, placed(own, UNCERTAIN_AIM)[0])
        block = max(flag + BLOCK_STEP, placed(own, BLOCK_AIM)[0])
        out[name] = Zone(round(uncertain, 4), round(flag, 4), round(block, 4), round(give, 4))
    return out


def _own(own: Sources, every: Sources) -> Sources:
    return own if len(own.names) >= FEWEST else every


def ordinary(rows: Sequence[LabelledText], language: str) -> npt.NDArray[np.bool_]:
    """Benign rows of a language that do not resemble attacks."""
    return np.array([row.label == "benign" and row.language == language and row.subset not in HARD for row in rows])


def recall_table(rows: Sequence[LabelledText], odds: Wide, flags: dict[str, float], groups: Sequence[str]) -> list[str]:
    """Lines: per language and source, recall at 1 % of the pooled ordinary benign rows, and at the flag threshold."""
    lines = [f"{'lang':6}{'kind':10}{'rows':>6} {'at 1 %':>7} {'at 0.1 %':>8} {'flagged':>8}  source"]
    names = np.array(groups)
    for language in LANGUAGES:
        plain = ordinary(rows, language)
        if not plain.any() or language not in flags:
            continue
        cuts = [tail(odds[plain], np.ones(int(plain.sum())), share) for share in (0.01, 0.001)]
        for kind in ("attack", "benign", "hard", "harmful"):
            chosen = np.array([_kind(row) == kind and row.language == language for row in rows])
            for name, count in Counter(names[chosen].tolist()).most_common():
                mine = odds[chosen & (names == name)]
                shares = [float((mine > cut).mean()) for cut in (*cuts, flags[language])]
                if count >= 20:
                    figures = f"{shares[0]:7.3f} {shares[1]:8.3f} {shares[2]:8.3f}"
                    lines.append(f"{language:6}{kind:10}{count:6} {figures}  {name}")
    return lines


def _kind(row: LabelledText) -> str:
    if row.attack:
        return "attack"
    if row.label == "harmful":
        return "harmful"
    return "hard" if row.subset in HARD else "benign"
