"""Rules that need no statistics: parameters that walk over biases or log-probs, words repeated without end.

A rule looks at how many requests of one account showed a fact, never at a parameter alone: a constant bias, log-probs
switched on or a parameter changed now and then are ordinary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from struct import Struct

from detectors.accounts import facts
from detectors.accounts.facts import NAMES
from detectors.accounts.state import AccountState, latest_facts, totals

_kinds: list[str] = []


def _kind(name: str) -> int:
    """The next number; stored accounts hold it as their `alarm`."""
    _kinds.append(name)
    return len(_kinds) - 1


NONE = _kind("none")
BIAS_SWEEP = _kind("bias-sweep")
LOGPROB_SWEEP = _kind("logprob-sweep")
REPEAT_WORD = _kind("repeat-word")
BOUNDARY = _kind("boundary-perturbation")
RESAMPLING = _kind("resampling")
RANDOM = _kind("random-query")
CONTINUATION = _kind("continuation")
GENERATOR = _kind("dataset-generator")
TRACES = _kind("trace-harvest")
HARVEST = _kind("instruction-harvest")
CAMPAIGN = _kind("campaign")
KINDS = tuple(_kinds)
"""Names of the kinds, as they stand in findings."""
BIAS_PROBES, BRIEF_TENTHS, BIASES = 5, 6, 12
"""New biases of late on answers of few tokens, and their share of the new biases of late; new biases anywhere, less
the requests that change the parameters."""
PROBES, PLAIN_PROBES = 5, 7
"""Short new texts with top log-probs and few tokens, where the text only counts up or parameters change, and elsewhere:
a health check has few prompts and fixed parameters."""
CHANGES = 3
"""Requests that change the parameters; of those that only count up there must be more."""
PROBE_TENTHS = 8
"""Share of the probes in all requests with top log-probs."""
RUNS, RUN_TENTHS = 3, 1
"""Texts that repeat themselves."""
ENDLESS, ENDLESS_TENTHS = 4, 3
"""Brief texts that ask for repetition without end."""
INDEX = {name: index for index, name in enumerate(NAMES)}
"""Fact -> its place in `totals`."""
_COUNTED_BY = {
    BIAS_SWEEP: facts.BIAS_PROBE | facts.BIAS_NEW,
    LOGPROB_SWEEP: facts.LOGPROB_PROBE,
    REPEAT_WORD: facts.REPETITIVE | facts.ENDLESS_RUN,
}
"""Facts of the requests that a rule counts."""
_COUNTED_BY_ANY = reduce(or_, _COUNTED_BY.values())
_DECISIVE = _COUNTED_BY_ANY | facts.NUMBERED | facts.SAMPLING_CHANGED
_RECENT = Struct("<Q")
SweepRule = Callable[[AccountState, Sequence[int]], bool]
_BIAS_PROBE = INDEX["bias_probe"]
_BIAS_NEW = INDEX["bias_new"]
_LOGPROB_PROBE = INDEX["logprob_probe"]
_TOP_LOGPROBS = INDEX["top_logprobs"]
_NUMBERED = INDEX["numbered"]
_SAMPLING_CHANGED = INDEX["sampling_changed"]
_REPETITIVE = INDEX["repetitive"]
_ENDLESS_RUN = INDEX["endless_run"]


def sweeps_biases(state: AccountState, raised: Sequence[int]) -> bool:
    """True where biases are walked over: new ones on answers of few tokens, or ever new ones while nothing else is
    tried. Who plays with the options of one question changes them all."""
    if raised[_BIAS_NEW] < BIAS_PROBES:
        return False
    recent = [latest for (latest,) in _RECENT.iter_unpack(state.recent) if latest & facts.BIAS_NEW]
    brief = sum(latest & facts.FEW_TOKENS > 0 for latest in recent)
    if brief >= BIAS_PROBES and 10 * brief >= BRIEF_TENTHS * len(recent):
        return True
    return raised[_BIAS_NEW] - raised[_SAMPLING_CHANGED] >= BIASES


def swept_biases_of_before(_: AccountState, raised: Sequence[int]) -> bool:
    """The rule of decider 6: three biases on short texts are a sweep, and so are eight anywhere."""
    return raised[_BIAS_PROBE] >= 3 or raised[_BIAS_NEW] >= 8


def ruled(state: AccountState, sweeps: SweepRule = sweeps_biases) -> int:
    """The kind that a rule finds in the account, NONE where none does."""
    raised = totals(state)
    if sweeps(state, raised):
        return BIAS_SWEEP
    probes = raised[_LOGPROB_PROBE]
    walks = raised[_NUMBERED] > CHANGES or raised[_SAMPLING_CHANGED] >= CHANGES
    if probes >= (PROBES if walks else PLAIN_PROBES) and 10 * probes >= PROBE_TENTHS * raised[_TOP_LOGPROBS]:
        return LOGPROB_SWEEP
    if _often(raised[_REPETITIVE], RUNS, RUN_TENTHS, state.count):
        return REPEAT_WORD
    if _often(raised[_ENDLESS_RUN], ENDLESS, ENDLESS_TENTHS, state.count):
        return REPEAT_WORD
    return NONE


def _often(times: int, least: int, tenths: int, requests: int) -> bool:
    return times >= least and 10 * times >= tenths * requests


def shown(state: AccountState, sweeps: SweepRule = sweeps_biases) -> bool:
    """True where a rule finds the account, and its latest request is one of those that the rule counts."""
    latest = latest_facts(state)
    return latest & _COUNTED_BY_ANY > 0 and latest & _COUNTED_BY.get(ruled(state, sweeps), 0) > 0


def may_rule(state: AccountState) -> bool:
    """True where the latest request may be the one by which a rule finds the account: it raised what rules count."""
    return latest_facts(state) & _DECISIVE > 0
