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
from detectors.prompts.training.rows import ANALYST, LabelledText

GENERAL_TAIL, UNCERTAIN_TAIL, BLOCK_TAIL = 0.004, 0.025, 0.0003
"""Shares of ordinary unseen benign traffic that may be flagged, uncertain or blocked. Each is well below what is
promised: a threshold loses a factor of two to seven on the way to other traffic."""
DOCUMENT_TAIL = 0.005
"""The same share for documents. Of the pages of a source that no model knows, three times as many are flagged as of a
kind of page that is left out."""
HARD_TAIL = 0.05
"""Share of the benign rows that speak of attacks or use their words that may be flagged."""
BLOCK_STEP = 1.0
"""The block threshold is at least this much above the flag threshold, in log-odds."""
MENTIONS = ("hard_mention", "twin")
HARD = (*MENTIONS, "hard_role_prompt", "hard_roleplay", ANALYST)
MAX_USE = 4.0
"""Log-odds that a rule adds at most: rules know the pack they were written beside better than what is to come."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MANY = (0.75, 1.0)
"""Candidates for what a document's worst window loses for each natural logarithm of how many there are. Less than that
finds little more on unseen pages and costs a third of the orders in short results of tools."""
_STEPS, _RATE = 3_000, 0.5


class Stack(NamedTuple):
    """Weights of the combined log-odds, `slope` for the margin."""

    bias: float
    slope: float
    use: float
    more: float
    hidden: float

    def odds(self, read: Readings, share: float) -> Wide:
        margin = read.whole * (1 - share) + read.worst * share
        found = self.use * read.sure + self.more * read.more + self.hidden * read.hidden
        return np.asarray(self.bias + self.slope * margin + found, dtype=np.float64)


def stack(rows: Sequence[LabelledText], read: Readings, weight: Sequence[float], share: float) -> Stack:
    """Logistic regression on four features, none of which may lower the score (projected gradient)."""
    margin = read.whole * (1 - share) + read.worst * share
    features = np.stack([np.ones(len(rows)), margin, read.sure, read.more, read.hidden], axis=1)
    target = np.array([row.attack for row in rows], dtype=np.float64)
    balance = np.asarray(weight)
    scale = np.maximum(np.abs(features).mean(axis=0), 1e-3)
    features = features / scale
    held = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(features @ held, -30, 30)))
        slope = features.T @ (balance * (chance - target)) / balance.sum()
        held -= _RATE * slope / (1 + np.abs(features).max(axis=0) ** 0.5)
        held[1:] = np.maximum(held[1:], 0)
    bias, slope, use, more, hidden = (held / scale).tolist()
    return Stack(bias, slope, min(use, MAX_USE), min(more, MAX_USE / 4), min(hidden, MAX_USE / 4))


def tail(odds: Wide, weight: Wide, share: float) -> float:
    """The value that `share` of the weight lies above."""
    order = np.argsort(odds)[::-1]
    above = np.cumsum(weight[order]) / weight.sum()
    return float(odds[order[min(int(np.searchsorted(above, share)), len(order) - 1)]])


def zones(
    rows: Sequence[LabelledText], odds: Wide, language: npt.NDArray[np.intp], share: float = GENERAL_TAIL
) -> dict[str, Zone]:
    """Per language, from held-out benign rows, each source counting at most as 600 rows; `share` of them is flagged."""
    sizes = Counter((row.source, row.language) for row in rows if row.label == "benign")
    out: dict[str, Zone] = {}
    for name in LANGUAGES:
        benign = np.array([row.label == "benign" and row.language == name for row in rows])
        hard = np.array([row.subset in HARD for row in rows]) & benign
        general = benign & ~hard
        if general.sum() < 50:
            general = benign
        if not general.any():
            continue
        weight = np.array([min(1.0, 600 / sizes[row.source, row.language]) if keep else 0.0
                           for row, keep in zip(rows, general, strict=True)])  # fmt: skip
        flag = tail(odds[general], weight[general], share)
        mentions = benign & np.array([row.subset in MENTIONS for row in rows])
        if mentions.sum() > 50:
            flag = max(flag, tail(odds[mentions], np.ones(int(mentions.sum())), HARD_TAIL))
        uncertain = min(flag, tail(odds[general], weight[general], UNCERTAIN_TAIL))
        block = max(flag + BLOCK_STEP, tail(odds[general], weight[general], BLOCK_TAIL))
        out[name] = Zone(uncertain=round(uncertain, 4), flag=round(flag, 4), block=round(block, 4))
    return out


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
