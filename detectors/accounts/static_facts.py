"""The facts that a request raises by itself: by the cues and the shape of its text, and by its parameters."""

from __future__ import annotations

from collections.abc import Callable

from detectors.accounts import cues, facts, features
from detectors.accounts.cues import ANSWER, ORDER, REASON, STEP, WHOLE
from detectors.accounts.features import FUNCTION_WORDS, HEAD_CUES, TAIL_CUES

FEW_TOKENS = 32
"""Tokens of an answer that are few."""
HIGH_HUNDREDTHS = 70
"""Hundredths of a temperature that is high."""
SALAD_FUNCTION_WORDS = 3
"""At most so many thirtieths of function words are hardly any."""
MAX_REMEMBERED = 16_384
_ELICIT = REASON | STEP | WHOLE | ORDER | ANSWER


class _Remembered(dict[int, int]):
    """Packed wording or sampling -> the facts that it raises by itself; an account uses few of them."""

    def __init__(self, raised_by: Callable[[int], int]) -> None:
        super().__init__()
        self._raised_by = raised_by

    def __missing__(self, packed: int) -> int:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        raised = self._raised_by(packed)
        self[packed] = raised
        return raised


def elicits(at_one_end: int) -> int:
    """0, 1 or 2: how surely these cues at one end of a text ask for the reasoning behind an answer."""
    if not at_one_end & (REASON | STEP):
        return 0
    hints = (at_one_end & _ELICIT).bit_count()
    return 2 if hints >= 3 else int(hints == 2)


_BY_SHAPE = (
    (features.SHORT.mask, facts.SHORT),
    (features.UNFINISHED.mask, facts.UNFINISHED),
    (features.QUESTION.mask, facts.QUESTION),
    (features.UNSPACED.mask, facts.UNSPACED),
    (features.REPETITIVE.mask, facts.REPETITIVE),
)


def _raised_by_wording(wording: int) -> int:
    """The facts of the shape and of the cues at both ends. A text without words is WORD_SALAD here."""
    raised = _raised_by_opening(HEAD_CUES.unpack(wording)) | _raised_by_closing(TAIL_CUES.unpack(wording))
    for mask, fact in _BY_SHAPE:
        if wording & mask:
            raised |= fact
    if FUNCTION_WORDS.unpack(wording) <= SALAD_FUNCTION_WORDS and not raised & facts.SHORT:
        raised |= facts.WORD_SALAD
    return raised


def _raised_by_opening(opening: int) -> int:
    """The facts of the cues among the first words."""
    raised = 0
    if elicits(opening) == 2:
        raised |= facts.ELICITS_START
    if opening & cues.MAKE and opening & cues.TASKS:
        raised |= facts.MAKES_START
    if opening & cues.VERBATIM:
        raised |= facts.VERBATIM_START
    if opening & cues.REPEAT and opening & cues.ENDLESS:
        raised |= facts.ENDLESS
    return raised


def _raised_by_closing(closing: int) -> int:
    """The facts of the cues among the last words."""
    raised = 0
    sure = elicits(closing)
    if sure:
        raised |= facts.ELICITS_END_WEAKLY
    if sure == 2:
        raised |= facts.ELICITS_END
    if closing & cues.MAKE and closing & cues.TASKS:
        raised |= facts.MAKES_END
    if closing & cues.LAYOUT:
        raised |= facts.LAYOUT_END
    return raised


def _raised_by_sampling(sampling: int) -> int:
    """The facts of the parameters."""
    raised = 0
    if 0 < features.MAX_TOKENS.unpack(sampling) <= FEW_TOKENS:
        raised |= facts.FEW_TOKENS
    if features.LOGPROBS.unpack(sampling):
        raised |= facts.LOGPROBS
    if features.TOP_LOGPROBS.unpack(sampling):
        raised |= facts.TOP_LOGPROBS
    if features.CHOICES.unpack(sampling) > 1:
        raised |= facts.CHOICES
    temperature = features.TEMPERATURE.unpack(sampling)
    if temperature == 0:
        raised |= facts.TEMPERATURE_ZERO
    if temperature >= HIGH_HUNDREDTHS:
        raised |= facts.TEMPERATURE_HIGH
    return raised


by_wording = _Remembered(_raised_by_wording)
by_sampling = _Remembered(_raised_by_sampling)
