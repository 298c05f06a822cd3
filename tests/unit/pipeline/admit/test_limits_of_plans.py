"""Limits of every level and unit, from the documents through decisions and outcomes to the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from pipeline.admit.decide import decide, expired, outcome
from pipeline.admit.ledger import Ledger
from pipeline.events.codec import encode
from pipeline.events.control import Control, parse
from pipeline.events.limits import LONGEST_REFILL_S, limits_over
from pipeline.events.messages import Completion
from pipeline.events.records import ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark

START = 1_790_000_000_000


def control(plan: dict[str, Any], *models: dict[str, Any]) -> Control:
    keys = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
    documents: list[dict[str, Any]] = [
        {"doc": "deployment", "id": "deployment", "generation": "g1", "partitions": 1},
        {"doc": "plan", "id": "small", "models": ["glossary", "other"], **plan},
        *({"doc": "model", "context": 4096, **model} for model in models or ({"id": "glossary"}, {"id": "other"})),
        {"doc": "organisation", "id": "acme"},
        {"doc": "tenant", "id": "acme", "organisation": "acme", "plan": "small", **keys},
        {"doc": "principal", "id": "ann", "tenant": "acme"},
        *({"doc": "key", "id": f"k{n}", "principal": "ann", "secret": "-"} for n in (1, 2)),
    ]
    found = Control()
    for version, document in enumerate(documents):
        found.apply(version, parse(encode(document)))
    return found


class Log:
    """A partition that decides under ``documents``."""

    def __init__(self, documents: Control) -> None:
        self.documents = documents
        self.ledger = Ledger()
        self.records: list[LogRecord] = []

    def write(self, record: LogRecord) -> None:
        self.records.append(record)
        self.ledger.apply(record)

    def ask(self, time: int = START, key: str = "k1", model: str = "glossary", **fields: Any) -> Decision:
        offset = self.ledger.position.next_request
        facts = Facts(
            offset, time, "inference", key=key, client_request=f"r{offset}", model=model,
            deadline=time + 60_000, **{"max_tokens": 10, "input_bound": 20, **fields},
        )  # fmt: skip
        made = decide(self.ledger, self.documents, 0, facts)
        self.write(made)
        return made

    def end(self, asked: Decision, used: tuple[int, int], time: int = START, result: Any = "finished") -> Outcome:
        report = Completion(
            asked.request, "acme", "acme", result, "w", "a", input_tokens=used[0], output_tokens=used[1]
        )
        made = outcome(self.ledger, asked.facts.offset, time, report)
        assert made is not None
        self.write(made)
        return made


LIMIT = {"id": "few", "meter": "budget", "amount": 1, "period": "day"}


def refused(decision: Decision) -> str:
    return decision.limit


def test_each_key_has_a_limit_of_its_own() -> None:
    log = Log(control({"key": [LIMIT]}))
    assert [refused(log.ask(key=key)) for key in ("k1", "k1", "k2", "k2")] == ["", "k:k1|few", "", "k:k2|few"]


def test_each_model_has_a_limit_of_its_own() -> None:
    log = Log(control({"model": {"*": [LIMIT]}}))
    asked = [log.ask(model=model, key=key) for model, key in (("glossary", "k1"), ("glossary", "k2"), ("other", "k1"))]
    assert [refused(decision) for decision in asked] == ["", "t:acme/m:glossary|few", ""]


def test_limits_of_one_model_hold_beside_those_of_every_model() -> None:
    every = {"id": "every", "meter": "budget", "amount": 2, "period": "day"}
    log = Log(control({"model": {"*": [every], "other": [LIMIT]}}))
    asked = [log.ask(model=model) for model in ("other", "other", "glossary", "glossary", "glossary")]
    other, glossary = "t:acme/m:other|few", "t:acme/m:glossary|every"
    assert [refused(decision) for decision in asked] == ["", other, "", "", glossary]
    listed = [
        (scoped.level, scoped.model, scoped.limit.id)
        for scoped in limits_over(log.documents, log.documents.tenants["acme"], "ann", "k1")
    ]
    assert listed == [("model", "glossary", "every"), ("model", "other", "every"), ("model", "other", "few")]


def test_an_unknown_model_is_refused_before_any_limit() -> None:
    log = Log(control({"model": {"*": [LIMIT]}}))
    assert log.ask(model="nothing").reasons == ("unknown_model",)


def test_cost_is_settled_by_the_price_at_the_time_of_the_decision() -> None:
    budget = {"id": "spent", "meter": "budget", "unit": "cost", "amount": 10_000, "period": "month"}
    priced = {"id": "glossary", "price": {"input": 10_000_000, "output": 100_000_000}}
    log = Log(control({"tenant": [budget]}, priced, {"id": "other"}))
    asked = log.ask()
    assert [(c.unit, c.amount) for c in asked.charges if c.unit == "cost"] == [("cost", 20 * 10 + 10 * 100)]
    log.documents = control({"tenant": [budget]}, {"id": "glossary", "price": {"input": 1, "output": 1}})
    log.ledger = Ledger.load(log.ledger.dump())
    end = log.end(asked, (12, 3))
    assert (end.cost, [c.amount for c in end.charges if c.unit == "cost"]) == (12 * 10 + 3 * 100, [420 - 1200])
    use = log.ledger.cells.budgets["t:acme|spent|budget|cost"]
    assert [period.used for period in use.periods] == [420]


def test_a_model_without_a_price_is_refused_where_cost_is_limited() -> None:
    budget = {"id": "spent", "meter": "budget", "unit": "cost", "amount": 10_000, "period": "month"}
    decision = Log(control({"tenant": [budget]})).ask()
    assert (decision.reasons, decision.limit) == (("budget_exhausted",), "t:acme|spent")


def test_an_adapter_costs_what_its_base_does() -> None:
    base = {"id": "glossary", "price": {"input": 10_000_000, "output": 0}}
    adapter = {"id": "mine", "tenant": "acme", "base": "glossary", "adapter": "mine"}
    assert Log(control({}, base, adapter)).ask(model="mine").price == (10_000_000, 0)


def test_the_bound_of_anothers_model_has_a_margin_and_usage_above_it_counts() -> None:
    budget = {"id": "day", "meter": "budget", "unit": "tokens", "amount": 1000, "period": "day"}
    log = Log(control({"tenant": [budget]}, {"id": "glossary"}, {"id": "other", "margin": 25}))
    own, others = log.ask(), log.ask(model="other")
    assert [c.amount for d in (own, others) for c in d.charges if c.meter == "budget"] == [30, 35]
    assert (log.end(own, (20, 10)).overshoot, log.end(others, (40, 10)).overshoot) == (0, 15)
    use = log.ledger.cells.budgets["t:acme|day|budget|tokens"]
    assert [period.used for period in use.periods] == [30 + 50]


@pytest.mark.parametrize(
    ("offset", "period", "ends"),
    [
        (0, "day", "2026-09-22T00:00+00:00"),
        (330, "day", "2026-09-22T00:00+05:30"),
        (-480, "day", "2026-09-21T00:00-08:00"),
        (0, "week", "2026-09-28T00:00+00:00"),
        (-720, "week", "2026-09-21T00:00-12:00"),
        (840, "month", "2026-10-01T00:00+14:00"),
    ],
)
def test_budgets_follow_the_calendar_at_the_offset_of_their_plan(offset: int, period: str, ends: str) -> None:
    now = int(datetime.fromisoformat("2026-09-21T07:30+00:00").timestamp() * 1000)
    log = Log(control({"tenant": [{**LIMIT, "period": period}], "utc_offset": offset}))
    [charge] = [c for c in log.ask(now).charges if c.meter == "budget"]
    assert charge.end == datetime.fromisoformat(ends).timestamp() * 1000
    assert charge.start <= now < charge.end
    assert log.ask(now).retry_after_ms == charge.end - now
    assert log.ask(charge.end).verdict == "admit"


def test_cells_that_nothing_is_left_of_are_dropped_at_a_snapshot() -> None:
    limits = [
        {"id": "rpm", "meter": "rate", "amount": 60},
        {"id": "minute", "meter": "window", "amount": 5},
        LIMIT,
        {"id": "open", "meter": "open", "amount": 5},
    ]
    log = Log(control({"tenant": limits}))
    log.write(ControlMark(START - 1, log.documents.version))
    log.end(log.ask(), (1, 1))
    log.write(SnapshotMark(START + 999, 0, b"", 0, 1))
    assert [len(table) for table in tables(log.ledger)] == [1, 1, 1, 0]
    log.write(SnapshotMark(START + 59_999, 0, b"", 0, 1))
    assert [len(table) for table in tables(log.ledger)] == [0, 1, 1, 0]
    log.write(SnapshotMark(START + 86_400_000, 0, b"", 0, 1))
    assert [len(table) for table in tables(log.ledger)] == [0, 0, 0, 0]


def test_a_cell_stays_where_its_limit_may_have_become_slower_since() -> None:
    limits = [{"id": "rpm", "meter": "rate", "amount": 60}]
    log = Log(control({"tenant": limits}))
    for _ in range(60):
        log.ask()
    log.documents = control({"tenant": [{**limits[0], "amount": 1}]})
    log.write(ControlMark(START + 1_000, log.documents.version))
    log.write(SnapshotMark(START + 60_000, 0, b"", 0, 1))
    assert log.ask(START + 60_000).limit == "t:acme|rpm"


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("before", "after", "idle_days"),
    [
        ({"id": "a", "meter": "rate", "amount": 1}, {"period_s": LONGEST_REFILL_S}, 31),
        ({"id": "a", "meter": "window", "amount": 1}, {"period_s": LONGEST_REFILL_S}, 31),
        ({"id": "a", "meter": "budget", "amount": 1}, {"period_s": 366 * 86_400}, 200),
    ],
    ids=lambda value: value.get("meter", "") if isinstance(value, dict) else "",
)
def test_a_longer_period_counts_what_an_idle_cell_was_charged_before(
    before: dict[str, Any], after: dict[str, Any], idle_days: int
) -> None:
    log = Log(control({"tenant": [before]}))
    # its block of 366 days since 1970 begins just before
    start = START - START % (366 * DAY_MS)
    assert log.ask(start).verdict == "admit"
    log.documents = control({"tenant": [{**before, **after}]})
    log.write(ControlMark(start + 1_000, log.documents.version))
    log.write(SnapshotMark(start + idle_days * DAY_MS, 0, b"", 0, 1))
    assert log.ask(start + idle_days * DAY_MS).limit == "t:acme|a"


def tables(ledger: Ledger) -> list[dict[str, Any]]:
    cells = ledger.cells
    return [cells.rates, cells.windows, cells.budgets, cells.reserved]


def test_a_rollback_puts_a_window_back_in_place() -> None:
    log = Log(control({"tenant": [{"id": "minute", "meter": "window", "amount": 3}]}))
    for time in (0, 30_000, 59_000):
        log.ask(START + time)
    before = log.ledger.dump()
    log.ledger.begin()
    for time in (60_000, 95_000, 200_000):
        assert log.ask(START + time).verdict == "admit"
    log.ledger.rollback()
    assert log.ledger.dump() == before
    assert log.ledger.cells.windows["t:acme|minute|window|requests"].times == [START, START + 30_000, START + 59_000]


def test_what_expires_is_given_back_in_every_unit() -> None:
    units = ("tokens", "input_tokens", "output_tokens", "cost")
    limits = [{"id": unit, "meter": "budget", "unit": unit, "amount": 10_000, "period": "day"} for unit in units]
    log = Log(control({"tenant": limits}, {"id": "glossary", "price": {"input": 10**6, "output": 10**6}}))
    log.ask()
    [held] = log.ledger.open.values()
    log.write(expired(log.ledger, held, START + 90_000))
    assert [p.used for use in log.ledger.cells.budgets.values() for p in use.periods] == [0, 0, 0, 0]
