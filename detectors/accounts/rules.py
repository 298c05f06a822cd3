"""What needs no statistics: parameters that walk over biases or log-probs, words repeated without end.

A rule looks at how many requests of one account showed a fact, never at a parameter alone: a constant bias, log-probs
switched on or a dial turned now and then are ordinary.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

from detectors.accounts import facts
from detectors.accounts.facts import NAMES
from detectors.accounts.state import AccountState, tally

KINDS = (
    "none", "bias-sweep", "logprob-sweep", "repeat-word", "boundary-perturbation", "resampling", "random-query",
    "continuation", "dataset-generator", "trace-harvest", "instruction-harvest", "campaign",
)  # fmt: skip
(
    NONE, BIAS_SWEEP, LOGPROB_SWEEP, REPEAT_WORD, BOUNDARY, RESAMPLING, RANDOM,
    CONTINUATION, GENERATOR, TRACES, HARVEST, CAMPAIGN,
) = range(len(KINDS))  # fmt: skip
BIAS_PROBES, BIASES = 3, 8
"""New biases in requests that are short or answered by few tokens; new biases anywhere."""
PROBES, TURNED, PLAIN_PROBES, PROBE_TENTHS = 5, 3, 7, 8
"""Short new texts with top log-probs and few tokens: so many where the text only counts up or the dials turn so often,
else more; and their share of all requests with top log-probs. A health check has few prompts and fixed dials."""
RUNS, RUN_TENTHS = 3, 1
ENDLESS, ENDLESS_TENTHS = 4, 3
"""Texts that repeat themselves; brief texts that ask for repetition without end."""
_BIAS_PROBE, _BIAS_NEW, _LOGPROB_PROBE, _TOP_LOGPROBS, _NUMBERED, _DIALS_TURNED, _RUNS, _ENDLESS = (
    NAMES.index(name)
    for name in (
        "bias_probe",
        "bias_new",
        "logprob_probe",
        "top_logprobs",
        "numbered",
        "dials_turned",
        "runs",
        "endless_run",
    )
)


def ruled(state: AccountState) -> int:
    """The kind that a rule finds in the account, NONE where none does."""
    totals, count = tally(state), state.count
    if totals[_BIAS_PROBE] >= BIAS_PROBES or totals[_BIAS_NEW] >= BIASES:
        return BIAS_SWEEP
    probes = totals[_LOGPROB_PROBE]
    walks = totals[_NUMBERED] > TURNED or totals[_DIALS_TURNED] >= TURNED
    if probes >= (PROBES if walks else PLAIN_PROBES) and 10 * probes >= PROBE_TENTHS * totals[_TOP_LOGPROBS]:
        return LOGPROB_SWEEP
    runs, endless = totals[_RUNS], totals[_ENDLESS]
    if (runs >= RUNS and 10 * runs >= RUN_TENTHS * count) or (
        endless >= ENDLESS and 10 * endless >= ENDLESS_TENTHS * count
    ):
        return REPEAT_WORD
    return NONE


_SHOWN = {
    BIAS_SWEEP: facts.BIAS_PROBE | facts.BIAS_NEW,
    LOGPROB_SWEEP: facts.LOGPROB_PROBE,
    REPEAT_WORD: facts.RUNS | facts.ENDLESS_RUN,
}


def shown(state: AccountState) -> bool:
    """Whether a rule finds the account, and its latest request is one of those that the rule counts."""
    latest = _latest(state)
    return latest & _EVER > 0 and latest & _SHOWN.get(ruled(state), 0) > 0


def may_rule(state: AccountState) -> bool:
    """Whether the latest request can be the one by which a rule finds the account: no other raises what rules count."""
    return _latest(state) & _MOVES > 0


def _latest(state: AccountState) -> int:
    return int.from_bytes(state.recent[:8], "little")


_EVER = reduce(or_, _SHOWN.values())
_MOVES = _EVER | facts.NUMBERED | facts.DIALS_TURNED
