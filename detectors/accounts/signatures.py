"""The signatures by which accounts are compared across tenants: hashes of wording and of sense, never text."""

from __future__ import annotations

from detectors.accounts.cues import ANSWER, LAYOUT, MAKE, ORDER, REASON, STEP, TASKS, WHOLE
from detectors.accounts.features import TAIL_CUES, UNSPACED, Trace
from detectors.accounts.state import AccountState
from detectors.accounts.static_facts import elicits
from detectors.packed import BitField

TIMES = 2
"""An opening or closing signs an account that used it at least so often."""
TAIL_SHARE, HEAD_SHARE = 10, 4
"""A closing must stand in one of TAIL_SHARE requests at least. Openings are common property (how do I, write a function
that), so an opening must stand in one of HEAD_SHARE."""
KIND = BitField(40, 2, "1 for an opening, 2 for a closing, 3 for the sense of a closing")
_OPENING = KIND.pack(1)
_CLOSING = KIND.pack(2)
_SENSE = KIND.pack(3)
_IN_UNSPACED_SCRIPT = 1 << 20
_SENSES = REASON | STEP | WHOLE | ORDER | ANSWER | LAYOUT | MAKE | TASKS


def signatures(state: AccountState, request: Trace) -> tuple[int, ...]:
    """The signatures under which an account is to be reported after `request`, at most five."""
    found = [_CLOSING | value for value in _frequent(state, state.tails, TAIL_SHARE)]
    found += [_OPENING | value for value in _frequent(state, state.heads, HEAD_SHARE)]
    closing = TAIL_CUES.unpack(request.wording)
    if elicits(closing) == 2 and state.tails[:1] == (request.tail_hash,) and state.tails[1] >= TIMES:
        script = _IN_UNSPACED_SCRIPT if UNSPACED.unpack(request.wording) else 0
        found.append(_SENSE | closing & _SENSES | script)
    return tuple(found)


def is_sense(signature: int) -> bool:
    """True where the signature is only the sense of a closing."""
    return KIND.unpack(signature) == 3


def _frequent(state: AccountState, table: tuple[int, ...], share: int) -> list[int]:
    """The two most frequent values of a table that were seen often enough."""
    most = sorted(zip(table[1::2], table[::2], strict=True), reverse=True)[:2]
    return [value for times, value in most if times >= TIMES and times * share >= state.count]
