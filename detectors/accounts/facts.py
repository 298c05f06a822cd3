"""The facts that one request can raise about its account, one bit each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from detectors.accounts import cues
from detectors.accounts import features as f
from detectors.accounts.cues import ANSWER, LAYOUT, MAKE, ORDER, REASON, REPEAT, STEP, TASKS, VERBATIM, WHOLE
from detectors.accounts.features import Trace

NAMES = (
    "same", "same_as_last", "near", "akin", "far", "edited", "edited_inside", "numbered", "grows",
    "head_known", "tail_known", "head_only", "tail_only", "far_known",
    "elicits_end", "elicits_end_weakly", "elicits_end_known",
    "elicits_start", "elicits_start_known", "elicits_known",
    "makes_start", "makes_end", "makes_known", "verbatim_start", "verbatim_open", "verbatim_known",
    "endless", "endless_run", "runs", "salad", "salad_akin", "short", "open", "asks", "layout_end", "wide", "long",
    "tiny", "logprobs", "top_logprobs", "choices", "biased", "bias_set_new", "bias_new", "bias_probe", "logprob_probe",
    "dials_turned", "dials_new", "cold", "hot", "same_hot", "regular", "quick", "returns", "salad_loose", "babble",
)  # fmt: skip
(
    SAME, SAME_AS_LAST, NEAR, AKIN, FAR, EDITED, EDITED_INSIDE, NUMBERED, GROWS,
    HEAD_KNOWN, TAIL_KNOWN, HEAD_ONLY, TAIL_ONLY, FAR_KNOWN,
    ELICITS_END, ELICITS_END_WEAKLY, ELICITS_END_KNOWN, ELICITS_START, ELICITS_START_KNOWN, ELICITS_KNOWN,
    MAKES_START, MAKES_END, MAKES_KNOWN, VERBATIM_START, VERBATIM_OPEN, VERBATIM_KNOWN,
    ENDLESS, ENDLESS_RUN, RUNS, SALAD, SALAD_AKIN, SHORT, OPEN, ASKS, LAYOUT_END, WIDE, LONG,
    TINY, LOGPROBS, TOP_LOGPROBS, CHOICES, BIASED, BIAS_SET_NEW, BIAS_NEW, BIAS_PROBE, LOGPROB_PROBE,
    DIALS_TURNED, DIALS_NEW, COLD, HOT, SAME_HOT, REGULAR, QUICK, RETURNS, SALAD_LOOSE, BABBLE,
) = (1 << at for at in range(len(NAMES)))  # fmt: skip

NEAR_BITS, GROWN_BITS, AKIN_BITS, FAR_BITS = 40, 46, 50, 56
"""Of 128 bits: one word of a short text changed; the same sentence frame; from here on nothing in common."""
RETURN_BITS = 20
"""So much nearer to an older text than to the latest: whoever edits several texts in turn goes back and forth, while
the uses of one template are about as far from each other."""
KNOWN = 2
"""An opening or closing seen so often before is a template's."""
TINY_TOKENS, HOT_HUNDREDTHS = 32, 70
QUICK_MS = 10_000
LONG_WORDS, BRIEF_WORDS = 48, 14
SALAD_GRAMMAR = 3
_REMEMBERED = 16_384
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
    latest: int
    gap: int
    gap_before: int


class _Bits(dict[int, int]):
    """Packed marks or dials -> the facts that they raise whatever came before; few of them are ever used."""

    def __init__(self, raised: Callable[[int], int]) -> None:
        super().__init__()
        self._raised = raised

    def __missing__(self, packed: int) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        on = self[packed] = self._raised(packed)
        return on


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
    if head != tail:
        on |= HEAD_ONLY if head else TAIL_ONLY
    if past.first:
        return on
    if past.form:
        return on | NUMBERED
    nearest = past.nearest
    if (
        past.head_as_last
        and past.latest <= GROWN_BITS  # of many texts with one opening some earlier one is always near
        and seen.length >= past.length_before + 4
        and seen.length > f.TAIL_WORDS
    ):
        return on | GROWS
    if nearest > FAR_BITS:
        return on | FAR | FAR_KNOWN * (head or tail)
    if nearest <= NEAR_BITS:
        on |= RETURNS * (past.latest - nearest >= RETURN_BITS)
        return on | NEAR | AKIN | EDITED * (not (head or tail)) | EDITED_INSIDE * (head and tail)
    return on | AKIN * (nearest <= AKIN_BITS)


def _asked(seen: Trace, past: Past, grows: bool) -> int:
    """What the text asks for, by the cues at its ends, and its shape."""
    marks = seen.marks
    on = _SHAPES[marks]
    head, tail = past.head >= KNOWN, past.tail >= KNOWN
    if seen.length > LONG_WORDS:
        on |= LONG
    if on & SALAD:
        if not seen.length:
            on ^= SALAD
        else:
            on |= SALAD_AKIN * (past.nearest <= AKIN_BITS)
            if not (head or tail or past.same):  # what is put into a template may be a list of names
                on |= SALAD_LOOSE | BABBLE * (not marks >> f.GRAMMAR & 15)
    if on & ELICITS_END and tail:
        on |= ELICITS_END_KNOWN | ELICITS_KNOWN
    if (head or tail) and on & (MAKES_START | MAKES_END):
        on |= MAKES_KNOWN
    start = marks >> f.HEAD_CUES
    if head and not grows:
        if on & ELICITS_START or (start & REASON and start & (WHOLE | STEP)):
            on |= ELICITS_START_KNOWN | ELICITS_KNOWN
        if on & VERBATIM_START:
            on |= VERBATIM_KNOWN | VERBATIM_OPEN * (on & OPEN > 0)
    if on & ENDLESS and (on & RUNS or seen.length <= BRIEF_WORDS * (2 if on & WIDE else 1)):
        on |= ENDLESS_RUN
    return on


def _shape(marks: int) -> int:
    """What the cues and the form of a text say by themselves. A text without words is SALAD here."""
    start, end = marks >> f.HEAD_CUES, marks >> f.TAIL_CUES
    on = SHORT * (marks & f.SHORT > 0) | OPEN * (marks & f.OPEN > 0) | ASKS * (marks & f.ASKS > 0)
    on |= WIDE * (marks & f.WIDE > 0) | RUNS * (marks & f.RUNS > 0) | LAYOUT_END * (end & LAYOUT > 0)
    on |= SALAD * (marks >> f.GRAMMAR & 15 <= SALAD_GRAMMAR and not marks & f.SHORT)
    sure = elicits(end)
    on |= ELICITS_END_WEAKLY * (sure > 0) | ELICITS_END * (sure == 2) | ELICITS_START * (elicits(start) == 2)
    on |= MAKES_START * (start & MAKE > 0 and start & TASKS > 0) | MAKES_END * (end & MAKE > 0 and end & TASKS > 0)
    on |= VERBATIM_START * (start & VERBATIM > 0)
    return on | ENDLESS * (start & REPEAT > 0 and start & cues.ENDLESS > 0)


def _turned(seen: Trace, past: Past) -> int:
    """What the parameters do, and the pace."""
    dials, same = seen.dials, past.same
    on = _DIALLED[dials]
    if same and f.temperature(dials):
        on |= SAME_HOT
    if seen.biases or on & TOP_LOGPROBS:
        on |= _probed(seen, past, on & TINY > 0)
    if past.first:
        return on
    if dials != past.dials_before:
        on |= DIALS_TURNED
    if not past.dials:
        on |= DIALS_NEW
    if past.gap < QUICK_MS:
        on |= QUICK
    before = past.gap_before
    return on | REGULAR if before > 0 and abs(past.gap - before) * 8 <= before else on


def _probed(seen: Trace, past: Past, tiny: bool) -> int:
    """What a request with biases or top log-probs may be after."""
    on, short = 0, seen.marks & f.SHORT > 0 or not seen.length
    if f.top_logprobs(seen.dials):
        on |= LOGPROB_PROBE * (tiny and short and not past.same)
    if seen.biases:
        on |= BIASED | BIAS_SET_NEW * (not past.bias_set) | BIAS_NEW * (not past.bias)
        on |= BIAS_PROBE * (not past.bias and (tiny or short))
    return on


def _dialled(dials: int) -> int:
    """What the parameters say by themselves."""
    warm = f.temperature(dials)
    on = TINY * (0 < f.max_tokens(dials) <= TINY_TOKENS) | LOGPROBS * f.logprobs(dials)
    on |= CHOICES * (f.choices(dials) > 1) | TOP_LOGPROBS * (f.top_logprobs(dials) > 0)
    return on | COLD * (warm == 0) | HOT * (warm >= HOT_HUNDREDTHS)


_SHAPES, _DIALLED = _Bits(_shape), _Bits(_dialled)
