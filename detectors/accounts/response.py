"""The graded response to an account: a table of steps, up by what was found, down by quiet."""

from __future__ import annotations

from typing import Literal

import msgspec

Step = Literal["observe", "throttle", "conceal", "review", "block"]
"""``conceal`` answers without log-probabilities and logit bias and with the watermark on, whatever was asked for."""
STEPS: tuple[Step, ...] = ("observe", "throttle", "conceal", "review", "block")
Signal = Literal["suspect", "alarm", "campaign", "quiet", "cleared", "confirmed"]
"""What the detector (the first three), the clock (`quiet`) or an analyst (the last two) says."""
SIGNALS: tuple[Signal, ...] = ("suspect", "alarm", "campaign", "quiet", "cleared", "confirmed")
HOLD_MS = 10 * 60_000
"""After a step up the next alarm counts so much later, so that one burst does not run through the table; a campaign
does not wait."""
QUIET_MS = 60 * 60_000
"""So long without a signal takes one step down."""
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
    """Where an account stands: `risen`: when it last went up; `heard`: when it last gave a signal or came down (ms)."""

    step: Step = "observe"
    risen: int = 0
    heard: int = 0


class Duties(msgspec.Struct, frozen=True):
    """What a step obliges the pipeline to; `rate` is the share of the account's limit that remains, in hundredths."""

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
    now = max(time, response.heard)
    response = settle(response, now)
    after = TABLE[response.step][signal]
    rises = STEPS.index(after) > STEPS.index(response.step)
    if rises and signal == "alarm" and response.step != "observe" and now - response.risen < HOLD_MS:
        return AccountResponse(response.step, response.risen, now)
    return AccountResponse(after, now if rises else response.risen, now)


def settle(response: AccountResponse, time: int) -> AccountResponse:
    """The response at `time` (ms), one step lower for every QUIET_MS without a signal."""
    while response.step != "observe" and time - response.heard >= QUIET_MS:
        response = AccountResponse(TABLE[response.step]["quiet"], response.risen, response.heard + QUIET_MS)
    return response
