"""The facts that a request raises beside its account's history."""

from __future__ import annotations

import msgspec

from detectors.accounts import facts, features
from detectors.accounts.cues import REASON, STEP, WHOLE
from detectors.accounts.facts import KNOWN
from detectors.accounts.features import FUNCTION_WORDS, HEAD_CUES, Trace
from detectors.accounts.static_facts import by_sampling, by_wording

NEAR_BITS = 40
"""Of 128, as all distances: one word of a short text is another."""
GROWN_BITS = 46
"""The text is an earlier one with more words."""
SIMILAR_BITS = 50
"""The sentence frame is the same."""
FAR_BITS = 56
"""Texts that are further apart have nothing in common."""
RETURN_BITS = 20
"""A text so much nearer to an older one than to the latest returns to it: who edits several texts in turn goes back and
forth, while the uses of one template are about as far from each other."""
GROWN_WORDS = 4
"""Words that a text which grows has more than the latest."""
QUICK_MS = 10_000
REGULAR_PART = 8
"""Gaps that differ by at most one REGULAR_PART-th are equal."""
LONG_WORDS, BRIEF_WORDS = 48, 14
"""Above the first a text is long, up to the second it is brief; twice as many characters without spaces."""


class AccountHistory(msgspec.Struct, frozen=True, gc=False):
    """The past of an account as one request meets it. Counts are of earlier requests, distances are in bits."""

    first: bool
    """No request came before."""
    same: int
    """Requests with the same text."""
    same_as_last: bool
    form: int
    """Requests whose text differed at most in its numbers."""
    head: int
    """Requests with the same opening."""
    head_as_last: bool
    tail: int
    """Requests with the same closing."""
    bias_tokens: int
    biases: int
    sampling: int
    """Requests with the same sampling parameters."""
    last_sampling: int
    """The latest request's, packed."""
    last_length: int
    """The latest request's words."""
    nearest: int
    """Distance to the nearest text that is remembered."""
    latest: int
    """Distance to the latest text that is remembered."""
    gap: int
    """Milliseconds since the latest request."""
    last_gap: int
    """Milliseconds between the two requests before this one."""


def facts_of(request: Trace, history: AccountHistory) -> int:
    """The facts of one request, as bits."""
    raised = _compared(request, history)
    raised |= _asked(request, history, grows=raised & facts.GROWS > 0)
    raised |= _sampled(request, history)
    return raised | _paced(history)


def _compared(request: Trace, history: AccountHistory) -> int:
    """The text beside the texts before it."""
    head_known, tail_known = history.head >= KNOWN, history.tail >= KNOWN
    raised = 0
    if head_known:
        raised |= facts.HEAD_KNOWN
    if tail_known:
        raised |= facts.TAIL_KNOWN
    if history.same:
        raised |= facts.SAME
        if history.same_as_last:
            raised |= facts.SAME_AS_LAST
        return raised
    if head_known and not tail_known:
        raised |= facts.HEAD_ONLY
    if tail_known and not head_known:
        raised |= facts.TAIL_ONLY
    if history.first:
        return raised
    if history.form:
        return raised | facts.NUMBERED
    if _grows(request, history):
        return raised | facts.GROWS
    return raised | _distant(history, head_known, tail_known)


def _grows(request: Trace, history: AccountHistory) -> bool:
    """True where the text is the latest one with words added. Of many texts with one opening some earlier one is always
    near, so the distance to the latest counts alone."""
    return (
        history.head_as_last
        and history.latest <= GROWN_BITS
        and request.length >= history.last_length + GROWN_WORDS
        and request.length > features.TAIL_WORDS
    )


def _distant(history: AccountHistory, head_known: bool, tail_known: bool) -> int:
    """The distance of a new text from those before it."""
    if history.nearest > FAR_BITS:
        return facts.FAR | facts.FAR_KNOWN if head_known or tail_known else facts.FAR
    if history.nearest > SIMILAR_BITS:
        return 0
    if history.nearest > NEAR_BITS:
        return facts.SIMILAR
    raised = facts.SIMILAR | facts.NEAR
    if not head_known and not tail_known:
        raised |= facts.EDITED
    if head_known and tail_known:
        raised |= facts.EDITED_INSIDE
    if history.latest - history.nearest >= RETURN_BITS:
        raised |= facts.RETURNS
    return raised


def _asked(request: Trace, history: AccountHistory, grows: bool) -> int:
    """The wish of the text, by the cues at its ends, and its shape."""
    raised = by_wording[request.wording]
    head_known, tail_known = history.head >= KNOWN, history.tail >= KNOWN
    if request.length > LONG_WORDS:
        raised |= facts.LONG
    if raised & facts.WORD_SALAD:
        raised = raised & ~facts.WORD_SALAD | _salad(request, history)
    if tail_known and raised & facts.ELICITS_END:
        raised |= facts.ELICITS_END_KNOWN | facts.ELICITS_KNOWN
    if (head_known or tail_known) and raised & (facts.MAKES_START | facts.MAKES_END):
        raised |= facts.MAKES_KNOWN
    if head_known and not grows:
        raised |= _opened(request, raised)
    if raised & facts.ENDLESS:
        brief = 2 * BRIEF_WORDS if raised & facts.UNSPACED else BRIEF_WORDS
        if raised & facts.REPETITIVE or request.length <= brief:
            raised |= facts.ENDLESS_RUN
    return raised


def _salad(request: Trace, history: AccountHistory) -> int:
    """A text with hardly any function words."""
    if not request.length:
        return 0
    raised = facts.WORD_SALAD
    if history.nearest <= SIMILAR_BITS:
        raised |= facts.WORD_SALAD_SIMILAR
    # what is put into a template may be a list of names
    if history.head < KNOWN and history.tail < KNOWN and not history.same:
        raised |= facts.WORD_SALAD_FREE
        if not FUNCTION_WORDS.unpack(request.wording):
            raised |= facts.GIBBERISH
    return raised


def _opened(request: Trace, raised: int) -> int:
    """The wish of a known opening."""
    opening = HEAD_CUES.unpack(request.wording)
    more = 0
    if raised & facts.ELICITS_START or (opening & REASON and opening & (WHOLE | STEP)):
        more |= facts.ELICITS_START_KNOWN | facts.ELICITS_KNOWN
    if raised & facts.VERBATIM_START:
        more |= facts.VERBATIM_KNOWN
        if raised & facts.UNFINISHED:
            more |= facts.VERBATIM_OPEN
    return more


def _sampled(request: Trace, history: AccountHistory) -> int:
    """The parameters beside those before them."""
    raised = by_sampling[request.sampling]
    if history.same and features.TEMPERATURE.unpack(request.sampling):
        raised |= facts.SAME_RESAMPLED
    short_new = not history.same and (request.wording & features.SHORT.mask > 0 or not request.length)
    if raised & facts.TOP_LOGPROBS and raised & facts.FEW_TOKENS and short_new:
        raised |= facts.LOGPROB_PROBE
    if request.biases:
        raised |= _biased(request, history, few_tokens=raised & facts.FEW_TOKENS > 0)
    if history.first:
        return raised
    if request.sampling != history.last_sampling:
        raised |= facts.SAMPLING_CHANGED
    if not history.sampling:
        raised |= facts.SAMPLING_NEW
    return raised


def _biased(request: Trace, history: AccountHistory, few_tokens: bool) -> int:
    """The logit bias beside those before it."""
    raised = facts.BIASED
    if not history.bias_tokens:
        raised |= facts.BIAS_TOKENS_NEW
    if not history.biases:
        raised |= facts.BIAS_NEW
        if few_tokens or request.wording & features.SHORT.mask or not request.length:
            raised |= facts.BIAS_PROBE
    return raised


def _paced(history: AccountHistory) -> int:
    """The time since the requests before it."""
    if history.first:
        return 0
    raised = facts.QUICK if history.gap < QUICK_MS else 0
    if history.last_gap > 0 and abs(history.gap - history.last_gap) * REGULAR_PART <= history.last_gap:
        raised |= facts.REGULAR
    return raised
