"""Extraction by template: a sweep is found, ordinary people are not, and the state stays small and exact."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import HIGH, MEDIUM, Finding, Part
from detectors.extraction import CAMPAIGN, HALF_LIFE_MS, RING, STEP, AccountState, features, update

START = 1_700_000_000_000
TEMPLATE = (
    "You are an expert annotator. Read the following product review and answer with exactly one word, positive or"
    " negative, and nothing else. Product: {}. Review: the delivery was late but the support team was very kind."
)
TEMPLATE_ZH = (
    "你是一名资深的标注员，请阅读下面的商品评论并只回答一个词，正面或者负面，不要解释原因。"
    "商品：{}。评论：发货慢了一些，但是客服非常热情。"
)
SLOTS = [f"item{n}" for n in range(120)]
QUESTIONS = [
    "What is the capital of Mongolia?",
    "Can you fix this loop so that it does not skip the last element of the list?",
    "Write a birthday poem for my grandmother who loves gardening and strong coffee.",
    "Why does bread dough rise faster in summer than in winter?",
    "Translate 'good morning, dear neighbours' into Portuguese please.",
    "How do I remove a red wine stain from a wool carpet?",
    "Summarise the plot of Hamlet in three sentences.",
    "Which vitamins are in kale, and how much should one eat a day?",
    "My train was cancelled; draft a polite complaint to the railway company.",
    "Explain the difference between a mutex and a semaphore with a short example.",
    "我想学做红烧肉，应该准备哪些调料？",
    "请帮我写一封辞职信，语气要礼貌。",
    "为什么天空在傍晚会变成红色？",
    "Suggest five names for a small bakery near the sea.",
    "Is it safe to run a marathon with a mild cold?",
    "How long does a parcel from Berlin to Lisbon usually take?",
]


def run(texts: list[str], gap_ms: int = 2_000) -> tuple[AccountState, list[tuple[Finding, ...]]]:
    state, found = AccountState(), []
    for number, text in enumerate(texts):
        state, findings = update(state, features((Part("user", text),)), START + number * gap_ms)
        found.append(findings)
    return state, found


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE_ZH])
def test_a_sweep_of_thirty_near_prompts_fires(template: str) -> None:
    _, found = run([template.format(slot) for slot in SLOTS[:30]])
    assert [f.rule for f in found[-1]] == ["extraction.template-sweep"]
    assert found[-1][0].severity >= MEDIUM
    assert not any(found[:8])


def test_a_long_sweep_becomes_grave() -> None:
    state, found = run([TEMPLATE.format(slot) for slot in SLOTS])
    assert state.score >= CAMPAIGN
    assert found[-1][0].severity == HIGH


def test_varied_questions_never_fire() -> None:
    state, found = run(QUESTIONS * 20)
    assert not any(found)
    assert state.score < 3 * STEP


def test_repeating_one_question_is_no_sweep() -> None:
    state, found = run([TEMPLATE.format("x")] * 200)
    assert not any(found)
    assert state.score == 0


def test_a_slow_user_of_a_template_is_forgiven() -> None:
    assert not any(run([TEMPLATE.format(slot) for slot in SLOTS[:40]], HALF_LIFE_MS)[1])


def test_the_state_is_small_and_bounded() -> None:
    state, _ = run([TEMPLATE.format(slot) for slot in SLOTS])
    assert len(state.ring) == RING
    assert len(msgspec.json.encode(state)) <= 1024
    assert msgspec.json.decode(msgspec.json.encode(state), type=AccountState) == state


def test_the_sketch_is_charikars_over_the_words_of_the_last_user_turn() -> None:
    words = "the quick brown fox jumps over the lazy dog".split()  # noqa: SIM905 - reads as the sentence it is
    hashes = [int.from_bytes(hashlib.blake2b(w.encode(), digest_size=8).digest(), "big") for w in words]
    expected = sum(1 << bit for bit in range(64) if 2 * sum(h >> bit & 1 for h in hashes) > len(words))
    transcript = (Part("user", "other"), Part("user", " ".join(words)), Part("assistant", "never mind"))
    assert features(transcript) == (expected,)


def test_text_without_words_has_no_sketch_and_changes_nothing() -> None:
    state = AccountState((1,), 5, 9)
    assert features(()) == features((Part("user", " \n"),)) == ()
    assert update(state, (), 99) == (state, ())


@given(st.text(max_size=400))
def test_a_sketch_is_one_unsigned_64_bit_integer_and_repeats_exactly(text: str) -> None:
    sketch = features((Part("user", text),))
    assert sketch == features((Part("user", text),))
    assert all(0 <= value < 1 << 64 for value in sketch)
    assert len(sketch) <= 1


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(-(10**6), 10**9)), max_size=40))
def test_the_score_is_an_integer_within_its_bounds_whatever_time_does(steps: list[tuple[int, int]]) -> None:
    state = AccountState()
    for value, gap in steps:
        before = state
        state, _ = update(state, (value,), state.time + gap)
        assert isinstance(state.score, int)
        assert 0 <= state.score <= before.score + STEP
        assert state.time >= before.time
