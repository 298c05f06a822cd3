"""The kinds of alarms in words that a customer can act on."""

from __future__ import annotations

MEANINGS = {
    "bias-sweep": "many different logit biases on short answers. Keep one bias for one task",
    "logprob-sweep": "many short texts with top log-probabilities. Ask for them only where they are used",
    "repeat-word": "texts that have a word repeated without end. Send no such texts",
    "boundary-perturbation": "one text changed by a word again and again. Space such tests out, or tell your operator",
    "resampling": "the same texts answered many times over. Cache answers, ask with n above 1, or set temperature 0",
    "random-query": "texts in no language. Use real texts in load tests, or tell your operator of them",
    "continuation": "passages to be continued word by word. Send the passages that you have rights to as documents",
    "dataset-generator": "tasks, prompts or training examples invented in bulk. Tell your operator what they are for",
    "trace-harvest": "the reasoning behind answers to ever new questions. Ask for the answer where you need no reasons",
    "instruction-harvest": "one instruction around ever new questions of all kinds. Tell your operator what it is for",
    "campaign": "a wording that many accounts share. Tell your operator whose accounts they are",
}
"""Each kind: what was seen, and what to do about it."""


def meaning(kind: str) -> str:
    """The words for a kind, also one with `extraction.` before it; the kind itself where it has none."""
    name = kind.removeprefix("extraction.")
    return MEANINGS.get(name, name)
