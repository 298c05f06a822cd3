"""Decisions under limits, in one process without a broker: derived, encoded and applied under a journal."""

from __future__ import annotations

import time
from typing import Any

from pipeline.admit.decide import decide
from pipeline.admit.ledger import Ledger
from pipeline.events.codec import encode
from pipeline.events.control import Control, parse
from pipeline.events.records import Facts
from tests.bench.rows import Measurement

START = 1_790_000_000_000
COUNT = 4_000
_ROUNDS = 5
LEVELS = ("organisation", "tenant", "model", "principal", "key")
WINDOW = 1_000


def measure() -> list[Measurement]:
    """CPU time of a decision without limits, and more of it with limits at every level and with a full window."""
    bare = _cpu_us({}, 100)
    window = _cpu_us({"tenant": [{"id": "minute", "meter": "window", "amount": WINDOW}]}, 60)
    load = f"{COUNT:,} requests of one key, the fastest of {_ROUNDS} rounds"
    found = [Measurement("limits", "CPU time of a decision without limits", load, bare, "us")]
    for each in (1, 2):
        limits = _plan(each)
        more = _cpu_us(limits, 100) - bare
        what = f"more for {each} limit{'s' * (each > 1)} at each of five levels"
        found.append(Measurement("limits", what, load, more, "us", 60, "<="))
    what = f"CPU time of a decision under a window of {WINDOW:,} that is full"
    return [*found, Measurement("limits", what, load, window, "us", 70, "<=")]


def _plan(each: int) -> dict[str, Any]:
    """Limits at every level: a rate of requests, and a budget of tokens."""
    kinds = [
        {"id": "requests", "meter": "rate", "amount": 10**9},
        {"id": "tokens", "meter": "budget", "unit": "tokens", "amount": 2**36 - 1, "period": "month"},
    ]
    levels: dict[str, Any] = dict.fromkeys(LEVELS, kinds[-each:])
    return {**levels, "model": {"*": levels["model"]}}


def _control(limits: dict[str, Any]) -> Control:
    keys = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
    control = Control()
    documents: list[dict[str, Any]] = [
        {"doc": "deployment", "id": "deployment", "generation": "g1", "partitions": 1},
        {"doc": "plan", "id": "bench", "models": ["glossary"], **limits},
        {"doc": "model", "id": "glossary", "context": 1024},
        {"doc": "organisation", "id": "acme", "plan": "bench"},
        {"doc": "tenant", "id": "acme", "organisation": "acme", "plan": "bench", **keys},
        {"doc": "principal", "id": "ann", "tenant": "acme"},
        {"doc": "key", "id": "key", "principal": "ann", "secret": "-"},
    ]
    for version, document in enumerate(documents):
        control.apply(version, parse(encode(document)))
    return control


def _cpu_us(limits: dict[str, Any], gap_ms: int) -> float:
    control, ledger = _control(limits), Ledger()
    return min(_round(control, ledger, gap_ms) for _ in range(_ROUNDS))


def _round(control: Control, ledger: Ledger, gap_ms: int) -> float:
    first = ledger.position.next_request
    asked = [_facts(offset, START + offset * gap_ms) for offset in range(first, first + COUNT)]
    ledger.begin()
    began = time.process_time()
    for facts in asked:
        decision = decide(ledger, control, 0, facts)
        encode(decision)
        ledger.apply(decision)
    spent = time.process_time() - began
    ledger.commit()
    return spent * 1e6 / COUNT


def _facts(offset: int, now: int) -> Facts:
    return Facts(
        offset, now, "inference", key="key", client_request=f"r{offset}", session="s", counter=offset + 1,
        model="glossary", max_tokens=10, input_bound=20, deadline=now + 60_000,
    )  # fmt: skip
