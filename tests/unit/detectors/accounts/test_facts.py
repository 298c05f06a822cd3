"""A request's trace and an account's state: integers alone, bounded whatever comes, pure, and telling."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.accounts import features
from detectors.accounts.columns import COLUMNS, row
from detectors.accounts.cues import BITS, CUES, LEXICON, WORDS, cut, words
from detectors.accounts.facts import NAMES
from detectors.accounts.features import RequestParameters, Trace, trace
from detectors.accounts.history import NEAR_BITS
from detectors.accounts.sketch import sketch
from detectors.accounts.state import AccountState, advance, counted, totals
from detectors.base import Part

HOSTILE = [
    "",
    " ",
    "\ud800\udfff",
    "\u200b" * 100_000,
    "a" * 1_000_000,
    "字" * 500_000,
    "\x00",
    "{" * 10_000,
    "9" * 50_000,
]
PLAIN = RequestParameters()
sampled = st.builds(
    RequestParameters,
    temperature=st.floats(),
    max_tokens=st.integers(),
    logprobs=st.one_of(st.booleans(), st.integers()),
    top_logprobs=st.integers(),
    logit_bias=st.lists(st.tuples(st.integers(), st.floats(allow_nan=False)), max_size=4).map(tuple),
    n=st.integers(),
)


def seen(text: str, sampling: RequestParameters = PLAIN) -> Trace:
    return trace((Part("user", text),), sampling)


def run(texts: list[str], sampling: RequestParameters = PLAIN, gap: int = 7_000) -> AccountState:
    state = AccountState()
    for number, text in enumerate(texts):
        state = advance(state, seen(text, sampling), number * gap)
    return state


def total(state: AccountState, name: str) -> int:
    return totals(state)[NAMES.index(name)]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_gives_integers_that_fit_a_record(text: str) -> None:
    found = seen(text)
    assert all(type(value) is int and 0 <= value < 1 << 64 for value in found)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) == list(found)


@settings(max_examples=20)
@given(st.text(max_size=200), sampled)
def test_any_parameters_give_integers_that_fit_a_record(text: str, sampling: RequestParameters) -> None:
    found = seen(text, sampling)
    assert found == seen(text, sampling)
    assert all(type(value) is int and 0 <= value < 1 << 64 for value in found)


def test_parameters_read_back_and_those_out_of_range_are_bounded() -> None:
    packed = seen("x", RequestParameters(0.7, 300, True, 5, (), 3)).sampling
    assert [field.unpack(packed) for field in features.SAMPLING] == [70, 300, 1, 5, 3]
    wild = seen("x", RequestParameters(math.inf, 10**30, -5, 10**30, (), -1)).sampling
    assert [field.unpack(wild) for field in features.SAMPLING] == [255, (1 << 20) - 1, 1, 31, 1]


def test_only_the_last_user_turn_counts_and_its_words_are_bounded() -> None:
    parts = (Part("system", "rules"), Part("user", "first"), Part("user", "last words"), Part("assistant", "yes"))
    assert trace(parts, RequestParameters()) == seen("last words")
    assert seen("head " * 4_000 + "tail") == seen("head " * 90_000 + "tail")._replace(
        length=seen("head " * 4_000 + "tail").length
    )


def test_the_order_of_biases_is_nothing_and_their_strength_is_something() -> None:
    one, other = RequestParameters(logit_bias=((1, 5.0), (2, 5.0))), RequestParameters(logit_bias=((2, 5.0), (1, 5.0)))
    stronger = RequestParameters(logit_bias=((1, 6.0), (2, 5.0)))
    assert seen("x", one) == seen("x", other)
    assert seen("x", one).bias_tokens == seen("x", stronger).bias_tokens
    assert seen("x", one).biases != seen("x", stronger).biases


def test_every_cue_is_reached_by_a_word_and_by_a_phrase() -> None:
    by_word = [
        "explain",
        "step",
        "complete",
        "before",
        "answer",
        "json",
        "create",
        "tasks",
        "repeat",
        "forever",
        "verbatim",
    ]
    by_phrase = ["推理", "步骤", "完整", "最后", "回答", "字段", "生成", "指令", "重复", "永远", "原文"]
    for at, (word, phrase) in enumerate(zip(by_word, by_phrase, strict=True)):
        assert LEXICON.cues(word) & 1 << at, CUES[at].name
        assert LEXICON.in_text(phrase) & 1 << at, CUES[at].name


def test_a_sketch_is_the_majority_of_each_bit() -> None:
    found = words(cut("one two three four five six seven"))
    hashes = [WORDS[word] for word in found]
    expected = 0
    for bit in range(BITS):
        votes = sum(value >> 8 * bit & 1 for value in hashes)
        expected += votes > len(found) // 2
    assert sketch(hashes, len(found)).bit_count() == expected
    assert sketch(hashes, len(found)) < 1 << BITS


def test_near_texts_have_near_sketches() -> None:
    def apart(one: str, other: str) -> int:
        a, b = seen(one), seen(other)
        return (a.sketch_high ^ b.sketch_high).bit_count() + (a.sketch_low ^ b.sketch_low).bit_count()

    base = "How long before a bank transfer I send to my friend clears?"
    assert apart(base, base.replace("friend", "window")) <= NEAR_BITS
    assert apart(base, "Write a short story about a dragon that learns to play chess") > NEAR_BITS
    zh = "请问从北京到上海的高铁需要多长时间才能到达目的地？"
    assert apart(zh, zh.replace("上海", "苹果")) <= NEAR_BITS
    assert apart(zh, "怎样用烤箱做一只外皮酥脆又多汁的烤鸡？") > NEAR_BITS


def test_a_table_keeps_what_comes_back() -> None:
    table: tuple[int, ...] = ()
    for number in range(100):
        table, _ = counted(table, 1_000 + number, 8)
        table, times = counted(table, 7, 8)
        assert times == number
    assert len(table) == 16
    assert counted((), 0, 8) == ((), 0)


def test_facts_of_repeats_edits_templates_and_growth() -> None:
    assert total(run(["What is the square of 25?"] * 10), "same_as_last") == 9
    assert total(run([f"health check of the service, run {n}" for n in range(10)]), "numbered") == 9
    base = ["I", "no", "longer", "want", "to", "keep", "this", "account", "open", "with", "you"]
    edited = [" ".join([*base[:at], "window", *base[at + 1 :]]) for at in range(len(base))]
    assert total(run(edited), "near") >= 8
    suffixed = [f"{text} Think step by step and then give your final answer." for text in map(_topic, range(12))]
    assert total(run(suffixed), "elicits_end_known") == 10
    talk = [
        " ".join(["System: you book rooms.", *(f"turn {n} said {_topic(n)}" for n in range(size))])
        for size in range(2, 12)
    ]
    assert total(run(talk), "grows") >= 7


def test_constant_log_probs_and_biases_raise_no_probe() -> None:
    app = RequestParameters(
        temperature=0.0, max_tokens=5, logprobs=True, top_logprobs=5, logit_bias=((7, 5.0), (9, 5.0))
    )
    state = run([f"Is this review of product {_topic(n)} good or bad? Answer:" for n in range(60)], app)
    assert total(state, "bias_new") == 1
    assert total(state, "logprob_probe") == 0


def test_a_state_stays_small_and_travels() -> None:
    state = AccountState()
    for number in range(600):
        bias = ((number, 1.5),)
        state = advance(
            state,
            seen(
                f"{_topic(number)} {number * 7919}", RequestParameters(number % 7 / 5, number, True, number % 20, bias)
            ),
            number * 10**9,
        )
    encoded = msgspec.msgpack.encode(state)
    assert len(encoded) <= 1_400
    assert msgspec.msgpack.decode(encoded, type=AccountState) == state
    assert row(state).shape == (COLUMNS,) == row(AccountState()).shape


def test_time_that_runs_back_is_no_gap() -> None:
    state = advance(advance(AccountState(), seen("a b c d"), 10_000), seen("e f g h"), 4_000)
    assert (state.time, state.gap) == (10_000, 0)


def _topic(number: int) -> str:
    things = [
        "dragons",
        "bread",
        "rivers",
        "taxes",
        "violins",
        "planets",
        "gardens",
        "trains",
        "lizards",
        "poems",
        "glaciers",
        "markets",
    ]
    verbs = ["describe", "compare", "draw", "sort", "invent", "paint", "translate", "measure"]
    return f"{verbs[number % 8]} the {things[number % 12]} near {things[number * 5 % 12]} {number}"
