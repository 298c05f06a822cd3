"""Accounts judged: the shipped model finds each kind of attack in texts of its own, and leaves look-alikes alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import msgspec
import pytest

from detectors.accounts.columns import COLUMNS, row
from detectors.accounts.facts import NAMES
from detectors.accounts.features import RequestParameters, trace
from detectors.accounts.judge import CHECK, FIRST, MODEL, Judge, JudgeModel, shipped
from detectors.accounts.rules import KINDS
from detectors.accounts.state import AccountState, totals
from detectors.base import HIGH, Finding, Part

JUDGE = shipped()
PLAIN = RequestParameters(0.7, 512)
THINGS = (
    *("volcano", "harbour", "tractor", "violin", "comet", "glacier"),
    *("pharmacy", "orchard", "turbine", "lantern", "bakery", "canyon"),
)
Request = tuple[str, RequestParameters]


def run(requests: Iterable[Request], gap: int = 9_000) -> tuple[AccountState, list[tuple[int, Finding]]]:
    state, found = AccountState(), []
    for number, (text, sampling) in enumerate(requests, 1):
        state, findings = JUDGE.update(state, trace((Part("user", text),), sampling), number * gap)
        found += [(number, finding) for finding in findings]
    return state, found


def topic(number: int) -> str:
    one, other = THINGS[number % 12], THINGS[(number * 5 + 3) % 12]
    asked = (
        f"Why is the {one} quieter than a {other} in winter?",
        f"How do I repair a {one} when the {other} is broken?",
        f"Write a short story in which a {one} meets a {other}.",
        f"What would happen if every {one} in town became a {other}?",
        f"List some famous places that have both a {one} and a {other}.",
    )
    return asked[number % 5]


def bias_walk(number: int) -> Request:
    return "The", RequestParameters(0.0, 1, False, 0, ((number * 101, 100.0),))


def bias_search(number: int) -> Request:
    return "Complete: the sky is", RequestParameters(0.0, 2, True, 1, ((4242, 50.0 / (number + 1)),))


def logprob_walk(number: int) -> Request:
    return f"x {number}", RequestParameters(1.0, 1, True, 20)


def endless(number: int) -> Request:
    return "Repeat this word forever: " + f"{THINGS[number % 12]} " * 30, PLAIN


def endless_zh(number: int) -> Request:
    return "请一直重复下面的词：" + "茶杯树河山云"[number % 6] * 40, PLAIN


def among_others(attack: Callable[[int], Request]) -> Callable[[int], Request]:
    """Every second request is an ordinary one."""
    return lambda number: attack(number) if number % 2 else (topic(number), PLAIN)


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (bias_walk, "bias-sweep"),
        (bias_search, "bias-sweep"),
        (logprob_walk, "logprob-sweep"),
        (endless, "repeat-word"),
        (endless_zh, "repeat-word"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_what_rules_find_is_found_within_fifteen_requests(
    attack: Callable[[int], Request], kind: str, mixed: bool
) -> None:
    attack = among_others(attack) if mixed else attack
    _, found = run(attack(number) for number in range(15))
    assert [finding.rule for _, finding in found] == [f"extraction.{kind}"]


SUFFIX = " Explain your reasoning step by step before you give the final answer."
SUFFIX_ZH = "请先逐步写出完整的推理过程，最后再给出答案。"


def harvest(number: int) -> Request:
    return topic(number) + SUFFIX, PLAIN


def harvest_zh(number: int) -> Request:
    things = "火山港口拖拉机小提琴彗星冰川药房果园灯笼面包峡谷"
    return (
        f"为什么{things[number % 20 : number % 20 + 3]}在冬天比{things[number % 13 : number % 13 + 2]}更安静？"
        + SUFFIX_ZH,
        PLAIN,
    )


def resample(number: int) -> Request:
    return f"Is the {THINGS[number // 30]} near the river open to visitors on public holidays?", RequestParameters(
        1.0, 256
    )


def recite(number: int) -> Request:
    return (
        f"Continue this passage verbatim: the {THINGS[number % 12]} of the {THINGS[number * 7 % 12]} was built in",
        PLAIN,
    )


@pytest.mark.parametrize("attack", [harvest, harvest_zh, resample, recite])
def test_what_the_trees_find_is_found_within_fifty_requests(attack: Callable[[int], Request]) -> None:
    _, found = run(attack(number) for number in range(50))
    assert len(found) == 1
    assert found[0][1].severity == HIGH


def conversation(number: int) -> Request:
    return topic(number), PLAIN


def classifier(number: int) -> Request:
    bias = ((15, 5.0), (16, 5.0))
    return f"Review: {topic(number)}\nIs the review positive or negative?", RequestParameters(0.0, 1, True, 5, bias)


def monitor(number: int) -> Request:
    return ("ping", "Say OK.", "What is 2+2?")[number % 3] + f" (run {number})", RequestParameters(0.0, 16)


def translator(number: int) -> Request:
    return f"Translate into German: {topic(number)}", RequestParameters(0.0, 256)


def log_probs_alone(number: int) -> Request:
    return topic(number), RequestParameters(0.7, 512, True, 5)


def playground(number: int) -> Request:
    """One question, tried with every option there is."""
    bias = ((number * 37 % 400, 20.0),) if number % 3 else ()
    tried = RequestParameters(number % 9 / 5, (64, 16, 256, 1024)[number % 4], number % 5 == 0, 0, bias)
    return f"Suggest a name for a boat, please ({number // 20}).", tried


def idioms(number: int) -> Request:
    """The same question about ever new words, some of which come back, under the default temperature."""
    word = ("画蛇添足", "守株待兔", "掩耳盗铃", "刻舟求剑", "拔苗助长", "亡羊补牢", "买椟还珠", "井底之蛙")[
        number * 5 % 8
    ]
    return f"请解释成语“{word}”的意思，并造一个句子。", RequestParameters()


def agent(number: int) -> Request:
    """One question, to which an agent adds what it did and saw."""
    seen = ("empty", "a list", "an error", "a price")
    steps = "".join(
        f"\nThought: I should look at page {n}\nAction: open\nObservation: {seen[n % 4]}" for n in range(number % 20)
    )
    return f"Question: find the price\n{steps}", RequestParameters(0.0)


LOOK_ALIKES = (conversation, classifier, monitor, translator, log_probs_alone)


@pytest.mark.parametrize("account", [*LOOK_ALIKES, playground, idioms, agent])
def test_look_alikes_raise_no_alarm_over_a_long_session(account: Callable[[int], Request]) -> None:
    state, found = run((account(number) for number in range(120)), 60_000)
    assert not found
    assert state.count == 120


def test_an_alarm_is_told_once_and_stays() -> None:
    state, found = run(bias_walk(number) for number in range(60))
    assert [number for number, _ in found] == [5]
    assert KINDS[state.alarm] == "bias-sweep"


def test_updates_are_pure_and_the_trees_read_at_every_check() -> None:
    state = AccountState()
    for number in range(1, 3 * FIRST):
        seen = trace((Part("user", topic(number)),), PLAIN)
        after, found = JUDGE.update(state, seen, number * 1000)
        assert JUDGE.update(state, seen, number * 1000) == (after, found)
        if number % CHECK or number < FIRST:
            assert after.score == state.score
        state = after
    assert state.score != 0


def test_the_model_asks_only_for_columns_there_are_and_alarms_above_even_odds() -> None:
    model = msgspec.json.decode(MODEL.read_bytes(), type=JudgeModel)
    assert max(model.trees.columns) < COLUMNS
    assert len(model.trees.leaves) == len(model.trees.columns) * 4 == len(model.trees.bounds) * 4
    assert model.alarm > 0
    assert model.limit > model.alarm > model.drift > 0


def test_one_switch_alone_is_no_rule() -> None:
    """A constant parameter adds facts about parameters and none of the probes that rules count."""
    state, _ = run(log_probs_alone(number) for number in range(40))
    probes = [totals(state)[NAMES.index(name)] for name in ("bias_probe", "logprob_probe", "sampling_changed")]
    assert probes == [0, 0, 0]


def test_a_judge_with_a_lower_alarm_finds_more() -> None:
    model = msgspec.json.decode(MODEL.read_bytes(), type=JudgeModel)
    eager = Judge(msgspec.structs.replace(model, alarm=-100_000))
    state = AccountState()
    for number in range(FIRST):
        state, found = eager.update(state, trace((Part("user", topic(number)),), PLAIN), number)
    assert len(found) == 1


def test_a_long_honest_past_hides_no_attack() -> None:
    past, _ = run([(topic(number), PLAIN) for number in range(40)])
    of_each = 3_000_000_000 // past.count
    raised = struct.pack(f"<{len(NAMES)}I", *(held * of_each for held in totals(past)))
    state = msgspec.structs.replace(past, count=past.count * of_each, totals=raised, score=0, cusum=0, alarm=0)
    found: list[Finding] = []
    for number in range(1, 16):
        text, sampling = bias_walk(number)
        state, findings = JUDGE.update(state, trace((Part("user", text),), sampling), state.time + 9_000)
        found += findings
    assert [finding.rule for finding in found] == ["extraction.bias-sweep"]
    assert state.count == past.count * of_each + 15
    assert max(row(state)) <= 1_000_000
