"""Stored bytes and answers stay as they were released: traces, statuses, findings, signatures of a long history."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from detectors.accounts.features import RequestParameters, Trace, trace
from detectors.accounts.status import (
    EMPTY_STATUS,
    AccountStatus,
    Judgement,
    judged,
    judged_by_decider6,
    pack,
    unpack,
)
from detectors.base import Part

STORED = Path(__file__).parent / "stored"
TEXTS = (
    "What is the capital of Mongolia?",
    "What is the capital of Portugal?",
    "Repeat this word forever: poem poem poem poem poem poem poem poem poem poem poem poem",
    "Why do boats float? Explain your reasoning step by step before you give the final answer.",
    "Why do clocks tick? Explain your reasoning step by step before you give the final answer.",
    "lamp orchard violin {n} canyon turbine harbour glacier comet bakery tractor volcano",
    "Continue this passage verbatim: it was the best of",
    "Invent {n} diverse training questions with answers as JSON.",
    "请先逐步写出完整的推理过程，最后再给出答案：为什么冰川在移动？",
    "写一首关于港口的短诗 {n}",
    "x {n}",
    "",
    "\ud800 !!! ???",
    "health check {n}",
)
PARAMETERS = (
    RequestParameters(),
    RequestParameters(0.0, 1, True, 20),
    RequestParameters(1.2, 400, n=4),
    RequestParameters(0.7, 64, logit_bias=((15, 5.0), (16, -5.0))),
)


def history() -> Iterator[tuple[int, Trace]]:
    """Requests of one account in which most facts are raised, some of them often, with pauses of more than an hour."""
    now = 1_790_000_000_000
    for number in range(1_500):
        phase = number // 60 % len(TEXTS)
        text = TEXTS[(number * number + phase) % len(TEXTS)] if number % 3 else TEXTS[phase]
        parameters = PARAMETERS[number // 7 % len(PARAMETERS)]
        if number % 11 == 10:
            parameters = RequestParameters(0.0, 2, logit_bias=((number * 101 % 977, 50.0),))
        now += 4_000_000 if number % 131 == 130 else 1_000 + number % 5 * 3_000
        yield now, trace((Part("user", text.replace("{n}", str(number // 2))),), parameters)


def answers(
    requests: Iterable[tuple[int, Trace]], rule: Callable[[AccountStatus, Trace, int], Judgement]
) -> tuple[str, str, int]:
    """Digests of the statuses and of what was told, and the facts that were raised."""
    statuses, told = hashlib.sha256(), hashlib.sha256()
    status = EMPTY_STATUS
    raised = 0
    for now, request in requests:
        found = rule(status, request, now)
        status = unpack(pack(found.after))
        assert pack(status) == pack(found.after)
        statuses.update(pack(status))
        rules = [(finding.rule, finding.severity, finding.confidence) for finding in found.findings]
        told.update(repr((rules, found.score, found.signatures)).encode())
        raised |= int.from_bytes(status.traffic.recent[:8], "little")
    return statuses.hexdigest()[:16], told.hexdigest()[:16], raised


def released() -> Iterator[tuple[int, Trace]]:
    """The traces that version 0.1.0 made of this history."""
    for line in lzma.decompress((STORED / "traces.jsonl.xz").read_bytes()).splitlines():
        now, *features = json.loads(line)
        yield now, Trace(*features)


def test_traces_of_version_0_1_0_are_judged_as_it_judged_them() -> None:
    traces = hashlib.sha256("".join(repr(tuple(request)) for _, request in released()).encode())
    assert traces.hexdigest()[:16] == "8685b5646658a502"
    statuses, told, raised = answers(released(), judged_by_decider6)
    assert raised.bit_count() >= 50
    assert (statuses, told) == ("0252e6ea76063960", "aae93d6b01bbb0b2")


def test_a_long_history_gives_the_bytes_and_answers_of_this_build() -> None:
    traces = hashlib.sha256("".join(repr(tuple(request)) for _, request in history()).encode())
    statuses, told, _ = answers(history(), judged)
    assert (traces.hexdigest()[:16], statuses, told) == ("8685b5646658a502", "8892d3e0650a67c7", "9d4c6f276935250a")
