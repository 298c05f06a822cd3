"""The facts that one request can raise about its account: one bit each, one line a fact.

Of every fact the trees read two columns (`columns.row`): the share of all requests that raised it, and how many of the
latest `state.RECENT` did. Facts with a third number here have one more column, their count up to a bound, as their very
number tells something however many other requests surround them; the number is that column's place.

Bits and columns are those of the trained model and of stored accounts: a new fact is added at the end.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """One fact; `counted` is its place among the columns of bounded counts, None for a fact without such a column."""

    name: str
    meaning: str
    counted: int | None = None


_facts: list[Fact] = []


def _fact(name: str, meaning: str, counted: int | None = None) -> int:
    """The next bit."""
    _facts.append(Fact(name, meaning, counted))
    return 1 << len(_facts) - 1


KNOWN = 2
"""An opening or closing that was seen so often before is a template's, which is called known below."""

# fmt: off
# the text beside those before it
SAME                 = _fact("same",                 "The text came before.", 0)
SAME_AS_LAST         = _fact("same_as_last",         "The text is that of the latest request.")
NEAR                 = _fact("near",                 "A new text that differs from an earlier one in about a word.", 1)
SIMILAR              = _fact("similar",              "A new text in the frame of an earlier one.", 2)
FAR                  = _fact("far",                  "A new text that has nothing in common with any earlier one.")
EDITED               = _fact("edited",               "Near, and neither end is known.", 3)
EDITED_INSIDE        = _fact("edited_inside",        "Near, and both ends are known.", 4)
NUMBERED             = _fact("numbered",             "An earlier text, with other numbers.")
GROWS                = _fact("grows",                "The latest text, with words added to its end.")
HEAD_KNOWN           = _fact("head_known",           "The opening is known.")
TAIL_KNOWN           = _fact("tail_known",           "The closing is known.")
HEAD_ONLY            = _fact("head_only",            "A new text of which only the opening is known.")
TAIL_ONLY            = _fact("tail_only",            "A new text of which only the closing is known.", 17)
FAR_KNOWN            = _fact("far_known",            "Far, and an end is known.")
# what the words at its ends ask for
ELICITS_END          = _fact("elicits_end",          "The closing surely asks for the reasoning behind an answer.", 5)
ELICITS_END_WEAKLY   = _fact("elicits_end_weakly",   "The closing may ask for the reasoning.", 6)
ELICITS_END_KNOWN    = _fact("elicits_end_known",    "The closing surely asks for it and is known.", 7)
ELICITS_START        = _fact("elicits_start",        "The opening surely asks for the reasoning.")
ELICITS_START_KNOWN  = _fact("elicits_start_known",  "The opening asks for it, whole or by steps, and is known.", 8)
ELICITS_KNOWN        = _fact("elicits_known",        "Either end asks for the reasoning and is known.", 9)
MAKES_START          = _fact("makes_start",          "The opening asks to invent tasks.")
MAKES_END            = _fact("makes_end",            "The closing asks to invent tasks.")
MAKES_KNOWN          = _fact("makes_known",          "Either end asks to invent tasks, and an end is known.", 10)
VERBATIM_START       = _fact("verbatim_start",       "The opening asks for a text word by word.")
VERBATIM_OPEN        = _fact("verbatim_open",        "As verbatim_known, and the text ends without a stop.", 12)
VERBATIM_KNOWN       = _fact("verbatim_known",       "The opening asks for a text word by word and is known.", 11)
ENDLESS              = _fact("endless",              "The opening asks for repetition without end.")
ENDLESS_RUN          = _fact("endless_run",          "As endless, and the text is brief or repeats few words.")
# its shape
REPETITIVE           = _fact("repetitive",           "The text repeats few words.")
WORD_SALAD           = _fact("word_salad",           "Hardly any function words.", 13)
WORD_SALAD_SIMILAR   = _fact("word_salad_similar",   "Hardly any function words, in the frame of an earlier text.")
SHORT                = _fact("short",                "Few words.")
UNFINISHED           = _fact("unfinished",           "The text ends without a stop.")
QUESTION             = _fact("question",             "The text ends with a question mark.")
LAYOUT_END           = _fact("layout_end",           "The closing names a format.")
UNSPACED             = _fact("unspaced",             "The script puts no spaces between words.")
LONG                 = _fact("long",                 "Many words.")
# its parameters
FEW_TOKENS           = _fact("few_tokens",           "The answer may have few tokens.")
LOGPROBS             = _fact("logprobs",             "Log-probs are asked for.")
TOP_LOGPROBS         = _fact("top_logprobs",         "Top log-probs are asked for.")
CHOICES              = _fact("choices",              "More than one answer is asked for.")
BIASED               = _fact("biased",               "The request has a logit bias.")
BIAS_TOKENS_NEW      = _fact("bias_tokens_new",      "The bias names tokens that no earlier one named together.")
BIAS_NEW             = _fact("bias_new",             "The bias is a new one.", 15)
BIAS_PROBE           = _fact("bias_probe",           "The bias is a new one, and the text is short or the answer.")
LOGPROB_PROBE        = _fact("logprob_probe",        "A short new text, top log-probs and few tokens.")
SAMPLING_CHANGED     = _fact("sampling_changed",     "Other sampling parameters than those of the latest request.")
SAMPLING_NEW         = _fact("sampling_new",         "Sampling parameters that no earlier request had.", 16)
TEMPERATURE_ZERO     = _fact("temperature_zero",     "The temperature is 0.")
TEMPERATURE_HIGH     = _fact("temperature_high",     "The temperature is high.")
SAME_RESAMPLED       = _fact("same_resampled",       "The text came before, and the temperature is above 0.", 14)
# its time
REGULAR              = _fact("regular",              "As long since the latest request as between the two before.")
QUICK                = _fact("quick",                "Soon after the latest request.")
# added later
RETURNS              = _fact("returns",              "Near an earlier text and far from the latest.", 18)
WORD_SALAD_FREE      = _fact("word_salad_free",      "Hardly any function words in a new text without a known end.")
GIBBERISH            = _fact("gibberish",            "No function word at all in such a text.", 19)
# fmt: on

FACTS = tuple(_facts)
"""The facts in the order of their bits."""
NAMES = tuple(fact.name for fact in FACTS)
_by_column = {fact.counted: index for index, fact in enumerate(FACTS) if fact.counted is not None}
COUNTED = tuple(_by_column[column] for column in range(len(_by_column)))
"""Indices of the facts with a bounded count, in the order of their columns."""
