"""What judging accounts costs in ADMIT's path: the trace of a text, and the fold of its ledger, many accounts mixed.

The load is the developer pack's held-out sessions, interleaved by time, where the environment's DATA names the folder
that holds `detection`; else prompts written here, a few each of many accounts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from detectors.accounts.features import RequestParameters, sampling_features, text_features
from detectors.accounts.status import step_at
from detectors.base import Part, Transcript
from pipeline.admit.ledger import Ledger
from pipeline.events.records import Facts
from tests.bench.load import prompts
from tests.bench.rows import Measurement

REQUESTS, WARM, CHUNK, ROUNDS = 5_000, 10_000, 250, 7
"""Requests measured, and before them; requests of one batch; runs of each batch, of which the best counts."""
_GOAL_US = 50


class _Event(msgspec.Struct):
    t: float
    text: str


class _Session(msgspec.Struct):
    start: float
    events: list[_Event]


class _Request(NamedTuple):
    time: int
    principal: str
    transcript: Transcript


def measure() -> list[Measurement]:
    """Microseconds of CPU time per request."""
    asked = _requests()
    traces = [(*text_features(request.transcript), *sampling_features(RequestParameters())) for request in asked]
    facts = [Facts(at, asked[at].time, kind="inference", features=seen) for at, seen in enumerate(traces)]
    ledger = Ledger()
    _fold(ledger, asked[:WARM], facts[:WARM])
    said = held = 0.0
    for at in range(WARM, len(asked), CHUNK):
        mine, told = asked[at : at + CHUNK], facts[at : at + CHUNK]
        said += _best(lambda mine=mine: [text_features(request.transcript) for request in mine])  # type: ignore[misc]
        held += _best(lambda mine=mine, told=told: _undone(ledger, mine, told))  # type: ignore[misc]
        _fold(ledger, mine, told)
    count = len(asked) - WARM
    load = f"{count:,} requests of {len({request.principal for request in asked[WARM:]}):,} accounts, interleaved"
    micro = (said * 1e6 / count, held * 1e6 / count)
    return [
        Measurement("accounts", "trace and fold", load, sum(micro), "us/request", _GOAL_US, "<="),
        Measurement("accounts", "trace of the text", load, micro[0], "us/request"),
        Measurement("accounts", "fold in the ledger", load, micro[1], "us/request"),
    ]


def _requests() -> list[_Request]:
    file = Path(os.environ.get("DATA", "")) / "detection" / "extraction" / "validation.jsonl"
    if file.is_file():
        sessions = msgspec.json.Decoder(_Session).decode_lines(file.read_bytes())
        found = [
            _Request(round((session.start + event.t) * 1000), f"p{at}", (Part("user", event.text),))
            for at, session in enumerate(sessions)
            for event in session.events
        ]
        found.sort(key=lambda request: request.time)
    else:
        texts = prompts(WARM + REQUESTS, 200)
        found = [_Request(1_000 * at, f"p{at * 7 % 251}", (Part("user", text),)) for at, text in enumerate(texts)]
    return list(islice(found, WARM + REQUESTS))


def _fold(ledger: Ledger, asked: Sequence[_Request], facts: Sequence[Facts]) -> None:
    """What ``decide`` asks of an account, and what ``apply`` writes of it."""
    for request, told in zip(asked, facts, strict=True):
        step_at(ledger.accounts.status(request.principal), told.time)
        ledger.accounts.judge(request.principal, told)


def _undone(ledger: Ledger, asked: Sequence[_Request], facts: Sequence[Facts]) -> None:
    ledger.begin()
    _fold(ledger, asked, facts)
    ledger.rollback()


def _best(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest run."""
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)
