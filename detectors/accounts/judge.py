"""One account's requests, judged as they come: rules for what needs no statistics, boosted trees for the rest.

`Judge.update` is what a stage or a replay calls. The trees read the running counts at every CHECK-th request and give
log-odds in thousandths; scores that stay just below the alarm add up in a CUSUM (Page 1954), so a slow attack is found
too.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import msgspec

from detectors.accounts.boost import Forest, Trees
from detectors.accounts.facts import NAMES
from detectors.accounts.features import Trace
from detectors.accounts.rules import (
    BOUNDARY,
    CONTINUATION,
    GENERATOR,
    HARVEST,
    KINDS,
    NONE,
    RANDOM,
    RESAMPLING,
    TRACES,
    may_rule,
    ruled,
    shown,
)
from detectors.accounts.state import AccountState, advance, row, tally
from detectors.base import HIGH, Finding

MODEL = files("detectors.accounts").joinpath("model.json")
CHECK, FIRST = 5, 15
"""Requests between two readings of the trees, and before the first: fewer say too little."""
Heard = Literal["", "suspect", "alarm"]


class JudgeModel(msgspec.Struct, frozen=True):
    """What is trained: the trees, and the bounds that were calibrated on whole sessions of benign accounts."""

    trees: Trees
    alarm: int
    drift: int
    limit: int


class Judge:
    """A model, laid out to judge accounts. Holds no state of theirs."""

    def __init__(self, model: JudgeModel) -> None:
        self._forest = Forest(model.trees)
        self._alarm, self._drift, self._limit = model.alarm, model.drift, model.limit

    def update(self, state: AccountState, seen: Trace, time: int) -> tuple[AccountState, tuple[Finding, ...]]:
        """The state after one request at `time` (ms), and the finding where it raises the account's alarm. Pure.

        An account gives one finding, at the request that raised the alarm; `alarm` of the state stays.
        """
        after = advance(state, seen, time)
        score, cusum, alarm = state.score, state.cusum, state.alarm
        if reads(after):
            score = self._forest.score(row(after))
            cusum = min(max(0, cusum + score - self._drift), self._limit)
        if not alarm:
            alarm = ruled(after) if may_rule(after) else NONE
            if not alarm and after.count >= FIRST and (score >= self._alarm or cusum >= self._limit):
                alarm = likeliest(after)
        if (score, cusum, alarm) != (state.score, state.cusum, state.alarm):
            after = msgspec.structs.replace(after, score=score, cusum=cusum, alarm=alarm)
        return after, () if alarm == state.alarm else (finding(alarm),)

    def heard(self, before: AccountState, after: AccountState) -> Heard:
        """What the request that led from `before` to `after` says of the account, beyond what its past says."""
        if after.alarm and (after.alarm != before.alarm or shown(after)):
            return "alarm"
        if not reads(after):
            return ""
        if after.score >= self._alarm or after.cusum >= self._limit:
            return "alarm"
        return "suspect" if after.score > self._drift else ""


def reads(state: AccountState) -> bool:
    """Whether the trees read the account at its latest request."""
    return state.count >= FIRST and state.count % CHECK == 0


_AT = {name: at for at, name in enumerate(NAMES)}


def finding(alarm: int) -> Finding:
    """What an alarm of this kind looks like in a record; it has no place in the text."""
    return Finding(f"extraction.{KINDS[alarm]}", HIGH, 90, 0, 0, "account", 0)


def likeliest(state: AccountState) -> int:
    """The kind whose facts are the most frequent in the account; a hint for the analyst, no part of the decision."""
    totals = tally(state)
    weight = {
        TRACES: totals[_AT["elicits_end"]] + totals[_AT["elicits_start_known"]],
        GENERATOR: totals[_AT["makes_known"]],
        CONTINUATION: totals[_AT["verbatim_open"]] + totals[_AT["verbatim_known"]] // 2,
        RANDOM: totals[_AT["salad"]],
        RESAMPLING: totals[_AT["same_hot"]],
        BOUNDARY: totals[_AT["edited"]],
        HARVEST: totals[_AT["far_known"]] // 2,
    }
    return max(weight, key=lambda kind: (weight[kind], kind))


def shipped() -> Judge:
    """The judge with the model that ships beside this file."""
    return Judge(msgspec.json.decode(MODEL.read_bytes(), type=JudgeModel))
