"""The graded response to an account: a table of steps; findings lead up, quiet leads down."""

from __future__ import annotations

from typing import Literal

import msgspec

Step = Literal["observe", "throttle", "conceal", "review", "block"]
"""``conceal`` answers without log-probabilities and logit bias and with the watermark on, even where a request asks for
the contrary."""
STEPS: tuple[Step, ...] = ("observe", "throttle", "conceal", "review", "block")
Signal = Literal["suspect", "alarm", "campaign", "quiet", "cleared", "confirmed"]
"""The first three come from the detector, `quiet` from the clock, the last two from an analyst."""
SIGNALS: tuple[Signal, ...] = ("suspect", "alarm", "campaign", "quiet", "cleared", "confirmed")
HOLD_MS = 10 * 60_000
"""After a step up the next alarm counts so much later, so that one burst does not run through the table; a campaign
does not wait."""
QUIET_MS = 60 * 60_000
"""An account comes down one step for so long without a signal."""
# fmt: off
_ROWS: dict[Step, tuple[Step, Step, Step, Step, Step, Step]] = {
    #            suspect     alarm       campaign   quiet       cleared    confirmed
    "observe":  ("observe" , "throttle", "conceal" , "observe" , "observe" , "block"),
    "throttle": ("throttle", "conceal" , "review"  , "observe" , "observe" , "block"),
    "conceal":  ("conceal" , "review"  , "review"  , "throttle", "observe" , "block"),
    "review":   ("review"  , "block"   , "block"   , "conceal" , "observe" , "block"),
    "block":    ("block"   , "block"   , "block"   , "review"  , "observe" , "block"),
}
# fmt: on
TABLE: dict[Step, dict[Signal, Step]] = {step: dict(zip(SIGNALS, row, strict=True)) for step, row in _ROWS.items()}


class AccountResponse(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The step at which an account is answered. Stored by position; times in milliseconds."""

    step: Step = "observe"
    escalated_ms: int = 0
    """When it last went up a step."""
    last_signal_ms: int = 0
    """When it last gave a signal or came down a step."""


class Duties(msgspec.Struct, frozen=True):
    """Duties of the pipeline at one step; `rate` is the share of the account's limit that remains, in hundredths."""

    rate: int
    log_probabilities: bool
    watermark: bool
    review: bool
    admit: bool


DUTIES: dict[Step, Duties] = {
    "observe": Duties(100, True, False, False, True),
    "throttle": Duties(25, True, False, False, True),
    "conceal": Duties(25, False, True, False, True),
    "review": Duties(10, False, True, True, True),
    "block": Duties(0, False, True, True, False),
}


def respond(response: AccountResponse, signal: Signal, time: int) -> AccountResponse:
    """The response after a signal at `time` (ms). Pure; time never runs back."""
    now = max(time, response.last_signal_ms)
    response = settle(response, now)
    after = TABLE[response.step][signal]
    escalates = is_above(after, response.step)
    if escalates and signal == "alarm" and response.step != "observe" and now - response.escalated_ms < HOLD_MS:
        return AccountResponse(response.step, response.escalated_ms, now)
    return AccountResponse(after, now if escalates else response.escalated_ms, now)


def is_above(step: Step, other: Step) -> bool:
    return step != other and STEPS.index(step) > STEPS.index(other)


def settle(response: AccountResponse, time: int) -> AccountResponse:
    """The response at `time` (ms), one step lower for every QUIET_MS without a signal."""
    while response.step != "observe" and time - response.last_signal_ms >= QUIET_MS:
        lower = TABLE[response.step]["quiet"]
        response = AccountResponse(lower, response.escalated_ms, response.last_signal_ms + QUIET_MS)
    return response
