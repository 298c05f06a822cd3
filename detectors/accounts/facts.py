"""The facts that one request can raise about its account, one bit each."""

from __future__ import annotations

from typing import NamedTuple

from detectors.accounts import cues
from detectors.accounts import features as f
from detectors.accounts.cues import ANSWER, LAYOUT, MAKE, ORDER, REASON, REPEAT, STEP, TASKS, VERBATIM, WHOLE
from detectors.accounts.features import Trace

NAMES = (
    "same", "same_as_last", "near", "akin", "far", "edited", "edited_inside", "numbered", "grows",
    "head_known", "tail_known", "head_only", "tail_only", "far_known",
    "elicits_end", "elicits_end_weakly", "elicits_end_known",
    "elicits_start", "elicits_start_known", "elicits_start_widely",
    "makes_start", "makes_end", "makes_known", "verbatim_start", "verbatim_open", "verbatim_known",
    "endless", "endless_run", "runs", "salad", "salad_akin", "short", "open", "asks", "layout_end", "wide", "long",
    "tiny", "logprobs", "top_logprobs", "choices", "biased", "bias_set_new", "bias_new", "bias_probe", "logprob_probe",
    "dials_turned", "dials_new", "cold", "hot", "same_hot", "regular", "quick",
)  # fmt: skip
(
    SAME, SAME_AS_LAST, NEAR, AKIN, FAR, EDITED, EDITED_INSIDE, NUMBERED, GROWS,
    HEAD_KNOWN, TAIL_KNOWN, HEAD_ONLY, TAIL_ONLY, FAR_KNOWN,
    ELICITS_END, ELICITS_END_WEAKLY, ELICITS_END_KNOWN, ELICITS_START, ELICITS_START_KNOWN, ELICITS_START_WIDELY,
    MAKES_START, MAKES_END, MAKES_KNOWN, VERBATIM_START, VERBATIM_OPEN, VERBATIM_KNOWN,
    ENDLESS, ENDLESS_RUN, RUNS, SALAD, SALAD_AKIN, SHORT, OPEN, ASKS, LAYOUT_END, WIDE, LONG,
    TINY, LOGPROBS, TOP_LOGPROBS, CHOICES, BIASED, BIAS_SET_NEW, BIAS_NEW, BIAS_PROBE, LOGPROB_PROBE,
    DIALS_TURNED, DIALS_NEW, COLD, HOT, SAME_HOT, REGULAR, QUICK,
) = (1 << at for at in range(len(NAMES)))  # fmt: skip

NEAR_BITS, GROWN_BITS, AKIN_BITS, FAR_BITS = 40, 46, 50, 56
"""Of 128 bits: one word of a short text changed; the same sentence frame; from here on nothing in common."""
KNOWN = 2
"""An opening or closing seen so often before is a template's."""
TINY_TOKENS, HOT_HUNDREDTHS = 32, 70
QUICK_MS = 10_000
LONG_WORDS, BRIEF_WORDS = 48, 14
SALAD_GRAMMAR = 3
_ELICIT = REASON | STEP | WHOLE | ORDER | ANSWER


class Past(NamedTuple):
    """How a request meets its account's past: how often its text, form, edges and dials came before, and its pace."""

    first: bool
    same: int
    same_as_last: bool
    form: int
    head: int
    tail: int
    bias_set: int
    bias: int
    dials: int
    dials_before: int
    head_as_last: bool
    length_before: int
    nearest: int
    gap: int
    gap_before: int


def facts(seen: Trace, past: Past) -> int:
    """The facts of one request."""
    met = _met(seen, past)
    return met | _asked(seen, past, met & GROWS > 0) | _turned(seen, past)


def elicits(met: int) -> int:
    """0, 1 or 2: how surely a place asks for the reasoning behind an answer."""
    if not met & (REASON | STEP):
        return 0
    senses = (met & _ELICIT).bit_count()
    return 2 if senses >= 3 else int(senses == 2)


def _met(seen: Trace, past: Past) -> int:
    """How the text meets texts before it."""
    head, tail = past.head >= KNOWN, past.tail >= KNOWN
    on = HEAD_KNOWN * head | TAIL_KNOWN * tail
    if past.same:
        return on | SAME | SAME_AS_LAST * past.same_as_last
    on |= HEAD_ONLY * (head and not tail) | TAIL_ONLY * (tail and not head)
    if past.first:
        return on
    if past.form:
        return on | NUMBERED
    if (
        past.head_as_last
        and seen.length >= past.length_before + 4
        and past.nearest <= GROWN_BITS
        and seen.length > f.TAIL_WORDS
    ):
        return on | GROWS
    if past.nearest > FAR_BITS:
        return on | FAR | FAR_KNOWN * (head or tail)
    if past.nearest <= NEAR_BITS:
        return on | NEAR | AKIN | EDITED * (not head) | EDITED_INSIDE * (head and tail)
    return on | AKIN * (past.nearest <= AKIN_BITS)


def _asked(seen: Trace, past: Past, grows: bool) -> int:
    """What the text asks for, by the cues at its ends, and its shape."""
    marks = seen.marks
    start, end = marks >> f.HEAD_CUES, marks >> f.TAIL_CUES
    head, tail = past.head >= KNOWN, past.tail >= KNOWN
    on = SHORT * (marks & f.SHORT > 0) | OPEN * (marks & f.OPEN > 0) | ASKS * (marks & f.ASKS > 0)
    on |= WIDE * (marks & f.WIDE > 0) | RUNS * (marks & f.RUNS > 0) | LONG * (seen.length > LONG_WORDS)
    on |= LAYOUT_END * (end & LAYOUT > 0)
    if marks >> f.GRAMMAR & 15 <= SALAD_GRAMMAR and seen.length and not marks & f.SHORT:
        on |= SALAD | SALAD_AKIN * (past.nearest <= AKIN_BITS)
    if sure := elicits(end):
        on |= ELICITS_END_WEAKLY | (ELICITS_END | ELICITS_END_KNOWN * tail) * (sure == 2)
    if start & REASON and head and not grows:
        on |= ELICITS_START_WIDELY * (start & (WHOLE | STEP) > 0)
    if elicits(start) == 2:
        on |= ELICITS_START | ELICITS_START_KNOWN * (head and not grows)
    if start & MAKE and start & TASKS:
        on |= MAKES_START | MAKES_KNOWN * (head or tail)
    if end & MAKE and end & TASKS:
        on |= MAKES_END | MAKES_KNOWN * (head or tail)
    if start & VERBATIM:
        on |= (
            VERBATIM_START
            | VERBATIM_OPEN * (marks & f.OPEN > 0 and head and not grows)
            | VERBATIM_KNOWN * (head and not grows)
        )
    if start & REPEAT and start & cues.ENDLESS:
        brief = seen.length <= BRIEF_WORDS * (2 if marks & f.WIDE else 1)
        on |= ENDLESS | ENDLESS_RUN * (brief or marks & f.RUNS > 0)
    return on


def _turned(seen: Trace, past: Past) -> int:
    """What the parameters do, and the pace."""
    dials = seen.dials
    tiny, warm = 0 < f.max_tokens(dials) <= TINY_TOKENS, f.temperature(dials)
    on = TINY * tiny | LOGPROBS * f.logprobs(dials) | CHOICES * (f.choices(dials) > 1) | COLD * (warm == 0)
    on |= HOT * (warm >= HOT_HUNDREDTHS) | SAME_HOT * (past.same > 0 and warm > 0)
    short = seen.marks & f.SHORT > 0 or not seen.length
    if f.top_logprobs(dials):
        on |= TOP_LOGPROBS | LOGPROB_PROBE * (tiny and short and not past.same)
    if seen.biases:
        on |= BIASED | BIAS_SET_NEW * (not past.bias_set) | BIAS_NEW * (not past.bias)
        on |= BIAS_PROBE * (not past.bias and (tiny or short))
    if past.first:
        return on
    on |= DIALS_TURNED * (dials != past.dials_before) | DIALS_NEW * (not past.dials) | QUICK * (past.gap < QUICK_MS)
    return on | REGULAR * (past.gap_before > 0 and abs(past.gap - past.gap_before) * 8 <= past.gap_before)
