"""What accounts are compared by across tenants: hashes of wording and of sense, never text."""

from __future__ import annotations

from detectors.accounts import facts
from detectors.accounts import features as f
from detectors.accounts.cues import ANSWER, LAYOUT, MAKE, ORDER, REASON, STEP, TASKS, WHOLE
from detectors.accounts.features import Trace
from detectors.accounts.state import AccountState

TIMES, TAIL_SHARE, HEAD_SHARE = 2, 10, 4
"""A closing signs an account that used it that often, and in one of TAIL_SHARE requests at least. Openings are common
property (how do I, write a function that), so they must be most of what an account says."""
_HEAD, _TAIL, _SENSE = 1 << 40, 2 << 40, 3 << 40
_SENSES = REASON | STEP | WHOLE | ORDER | ANSWER | LAYOUT | MAKE | TASKS


def signatures(state: AccountState, seen: Trace) -> tuple[int, ...]:
    """The signatures under which an account is to be reported after `seen`, at most five."""
    found = []
    for place, table, share in ((_TAIL, state.tails, TAIL_SHARE), (_HEAD, state.heads, HEAD_SHARE)):
        tops = sorted(zip(table[1::2], table[::2], strict=True), reverse=True)[:2]
        found += [place | value for times, value in tops if times >= TIMES and times * share >= state.count]
    cues = seen.marks >> f.TAIL_CUES
    if facts.elicits(cues) == 2 and state.tails[:1] == (seen.tail,) and state.tails[1] >= TIMES:
        found.append(_SENSE | cues & _SENSES | (seen.marks & f.WIDE > 0) << 20)
    return tuple(found)
