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
from detectors.accounts.columns import row
from detectors.accounts.features import Trace
from detectors.accounts.rules import (
    BOUNDARY,
    CONTINUATION,
    GENERATOR,
    HARVEST,
    INDEX,
    KINDS,
    NONE,
    RANDOM,
    RESAMPLING,
    TRACES,
    SweepRule,
    may_rule,
    ruled,
    shown,
    sweeps_biases,
    swept_biases_of_before,
)
from detectors.accounts.state import AccountState, advance, totals
from detectors.base import HIGH, Finding

MODEL = files("detectors.accounts").joinpath("model.json")
MODEL6 = files("detectors.accounts").joinpath("model6.json")
CHECK, FIRST = 5, 15
"""Requests between two readings of the trees, and before the first: fewer say too little."""
RequestSignal = Literal["", "suspect", "alarm"]


class JudgeModel(msgspec.Struct, frozen=True):
    """The trained part: the trees, and the bounds that were calibrated on whole sessions of benign accounts."""

    trees: Trees
    alarm: int
    drift: int
    limit: int


_decode = msgspec.json.Decoder(JudgeModel).decode


class Judge:
    """A model, laid out to judge accounts. Holds no state of theirs."""

    def __init__(self, model: JudgeModel, sweeps: SweepRule = sweeps_biases) -> None:
        self._sweeps = sweeps
        self._forest = Forest(model.trees)
        self._alarm = model.alarm
        self._drift = model.drift
        self._limit = model.limit

    def update(self, state: AccountState, request: Trace, time: int) -> tuple[AccountState, tuple[Finding, ...]]:
        """The state after one request at `time` (ms), and the finding where it raises the account's alarm. Pure.

        An account gives one finding, at the request that raised the alarm; `alarm` of the state stays.
        """
        after = advance(state, request, time)
        score, cusum = state.score, state.cusum
        if reads(after):
            score = self._forest.score(row(after))
            cusum = min(max(0, cusum + score - self._drift), self._limit)
        alarm = state.alarm or self._raised(after, score, cusum)
        if (score, cusum, alarm) != (state.score, state.cusum, state.alarm):
            after = msgspec.structs.replace(after, score=score, cusum=cusum, alarm=alarm)
        return after, () if alarm == state.alarm else (finding(alarm),)

    def _raised(self, after: AccountState, score: int, cusum: int) -> int:
        """The kind of alarm that an account without one raises now, NONE where it raises none."""
        kind = ruled(after, self._sweeps) if may_rule(after) else NONE
        if kind == NONE and after.count >= FIRST and (score >= self._alarm or cusum >= self._limit):
            return likeliest(after)
        return kind

    def signal(self, before: AccountState, after: AccountState) -> RequestSignal:
        """The signal of the request that led from `before` to `after`, beyond what the account's past says."""
        if after.alarm and (after.alarm != before.alarm or shown(after, self._sweeps)):
            return "alarm"
        if not reads(after):
            return ""
        if after.score >= self._alarm or after.cusum >= self._limit:
            return "alarm"
        return "suspect" if after.score > self._drift else ""


def reads(state: AccountState) -> bool:
    """True where the trees read the account at its latest request."""
    return state.count >= FIRST and state.count % CHECK == 0


def finding(alarm: int) -> Finding:
    """An alarm of this kind as a record holds it; it has no place in the text."""
    return Finding(f"extraction.{KINDS[alarm]}", HIGH, 90, 0, 0, "account", 0)


def likeliest(state: AccountState) -> int:
    """The kind whose facts are the most frequent in the account; a hint for the analyst, no part of the decision."""
    raised = totals(state)
    weight = {
        TRACES: raised[INDEX["elicits_end"]] + raised[INDEX["elicits_start_known"]],
        GENERATOR: raised[INDEX["makes_known"]],
        CONTINUATION: raised[INDEX["verbatim_open"]] + raised[INDEX["verbatim_known"]] // 2,
        RANDOM: raised[INDEX["word_salad"]],
        RESAMPLING: raised[INDEX["same_resampled"]],
        BOUNDARY: raised[INDEX["edited"]],
        HARVEST: raised[INDEX["far_known"]] // 2,
    }
    return max(weight, key=lambda kind: (weight[kind], kind))


def shipped() -> Judge:
    """The judge with the model that ships beside this file."""
    return Judge(_decode(MODEL.read_bytes()))


def of_decider6() -> Judge:
    """The judge of version 0.1.0, whose decisions are derived again by it alone."""
    return Judge(_decode(MODEL6.read_bytes()), swept_biases_of_before)
