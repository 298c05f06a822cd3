"""Limits hold while limits, plans and prices change, keys rotate, and workers lose races, crash and start again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pipeline.admit.decide import decide, expired, outcome
from pipeline.admit.ledger import Ledger
from pipeline.events.codec import decode_log, encode
from pipeline.events.control import Control, Deployment, Key, Limit, Model, Organisation, Plan, Price, Principal, Tenant
from pipeline.events.messages import Completion
from pipeline.events.records import ControlMark, Decision, Facts, LogRecord, SnapshotMark, Tick
from tests.laws.changing_limits import LEVELS, LIMITS, MARGIN, MODELS, PERIODS, PLACES
from tests.laws.slow_limits import SlowCell, Use
from tests.laws.test_admit_laws import everything

START = 1_790_000_000_000
pauses = st.sampled_from((0, 0, 1, 700, 5_000, 20_000, 60_000, 60_000, 3_600_000, 86_400_000, 40 * 86_400_000))
amounts = st.sampled_from((1, 3, 8, 60, 120, 400, 2000))
bursts = st.sampled_from((0, 20, 80))


@dataclass
class Running:
    """An admitted request with what the slow model counts for it."""

    decision: Decision
    uses: list[tuple[SlowCell, Limit, Use]]
    price: tuple[int, int]


class Limits(RuleBasedStateMachine):
    """Each step is decided, written as bytes and applied; the slow model says what it may and what it must be."""

    @initialize(active=st.lists(st.sampled_from(PLACES), min_size=1, max_size=2, unique=True))
    def begin(self, active: list[tuple[str, str]]) -> None:
        self.active = active
        self.now, self.version, self.keys, self.completions = START, -1, 0, 0
        self.control, self.ledger = Control(), Ledger()
        self.stored: list[bytes] = []
        self.running: dict[str, Running] = {}
        self.cells: dict[tuple[str, str], SlowCell] = {}
        limits = {level: tuple(one for one in LIMITS[level] if (level, one.id) in active) for level in LEVELS}
        self.plans = dict.fromkeys(("p", "q"), limits)
        self.offsets = {"p": 0, "q": 330}
        self.plan = "p"
        self.prices = dict.fromkeys(MODELS, (1_000_000, 3_000_000))
        self.put(Deployment(generation="g1", partitions=1))
        self.put(Organisation(id="acme", plan="p"))
        self.put(Principal(id="ann", tenant="acme"))
        for model in MODELS:
            self.price(model, self.prices[model])
        self.put(self.document("p"))
        self.put(self.document("q"))
        self.switch("p")
        self.rotate()

    def put(self, document: Any) -> None:
        self.version += 1
        self.control.apply(self.version, document)

    def write(self, record: LogRecord) -> None:
        self.stored.append(encode(record))
        self.ledger.apply(decode_log(self.stored[-1]))

    def in_force(self, level: str) -> tuple[tuple[Limit, ...], int]:
        plan = "p" if level == "organisation" else self.plan
        return self.plans[plan][level], self.offsets[plan]

    def renew(self) -> None:
        """Write down that documents changed."""
        self.write(ControlMark(self.now, self.version))
        for (scope, name), cell in self.cells.items():
            limits, offset = self.in_force(scope.partition(" ")[0])
            cell.put(next(limit for limit in limits if limit.id == name), offset, self.now)

    def document(self, plan: str) -> Plan:
        levels: dict[str, Any] = {level: limits for level, limits in self.plans[plan].items() if level != "model"}
        every = {"*": self.plans[plan]["model"]}
        return Plan(id=plan, models=MODELS, max_tokens=64, utc_offset=self.offsets[plan], model=every, **levels)

    def switch(self, plan: str) -> None:
        self.plan = plan
        keys: dict[str, Any] = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
        self.put(Tenant(id="acme", organisation="acme", plan=plan, **keys))

    def price(self, model: str, price: tuple[int, int]) -> None:
        self.prices[model] = price
        margin = MARGIN if model == "elsewhere" else None
        self.put(Model(id=model, context=4096, price=Price(input=price[0], output=price[1]), margin=margin))

    @rule(plan=st.sampled_from("ppq"), nth=st.integers(0, 1), amount=amounts, burst=bursts, data=st.data())
    def change_limit(self, plan: str, nth: int, amount: int, burst: int, data: st.DataObject) -> None:
        level, name = self.active[nth % len(self.active)]
        before = self.plans[plan][level]
        [limit] = [limit for limit in before if limit.id == name]
        period = data.draw(st.sampled_from(PERIODS[limit.meter]))
        update = {"amount": amount, "period_s": 60, **period, "burst": burst if limit.meter == "rate" else 0}
        changed = Limit(**{**limit.model_dump(), **update})
        limits = tuple(changed if limit.id == name else limit for limit in before)
        self.plans[plan] = {**self.plans[plan], level: limits}
        self.put(self.document(plan))
        self.renew()

    @rule(what=st.sampled_from(("plan", "offset", "price", "key")), data=st.data())
    def change_other(self, what: str, data: st.DataObject) -> None:
        if what == "plan":
            self.switch("q" if self.plan == "p" else "p")
        elif what == "offset":
            self.offsets[self.plan] = data.draw(st.sampled_from((0, 330, -720, 840)))
            self.put(self.document(self.plan))
        elif what == "price":
            prices = st.sampled_from(((0, 0), (1_000_000, 3_000_000), (250_001, 9_999_999)))
            self.price(data.draw(st.sampled_from(MODELS)), data.draw(prices))
        else:
            self.rotate()
        self.renew()

    def rotate(self) -> None:
        if self.keys:
            self.put(Key(id=f"k{self.keys}", principal="ann", secret="-", status="revoked"))
        self.keys += 1
        self.put(Key(id=f"k{self.keys}", principal="ann", secret="-"))

    def facts(self, **fields: Any) -> Facts:
        offset = self.ledger.position.next_request
        known: dict[str, Any] = {
            "time": self.now,
            "deadline": self.now + 60_000,
            "key": f"k{self.keys}",
            "client_request": f"r{offset}",
        }
        return Facts(offset, **{**known, **fields})

    @rule(
        asked=st.lists(st.tuples(pauses, st.sampled_from(MODELS), st.integers(0, 40), st.integers(1, 30)), max_size=5)
    )
    def ask(self, asked: list[tuple[int, str, int, int]]) -> None:
        for pause, model, bound, most in asked:
            self.now += pause
            facts: dict[str, Any] = {"model": model, "input_bound": bound, "max_tokens": most}
            decision = decide(self.ledger, self.control, 0, self.facts(kind="inference", **facts))
            self.judge(decision, self.amounts(model, bound, most))
            self.write(decision)

    def amounts(self, model: str, bound: int, most: int) -> dict[str, int]:
        reserved = -(-bound * (100 + MARGIN) // 100) if model == "elsewhere" else bound
        return used_in_each_unit(reserved, most, self.prices[model])

    def judge(self, decision: Decision, amounts: dict[str, int]) -> None:
        """The answer is within both bounds of the slow model, which counts what was admitted."""
        uses = []
        for level in LEVELS:
            limits, offset = self.in_force(level)
            for limit in limits:
                scope = {"model": f"model {decision.facts.model}", "key": f"key {decision.facts.key}"}.get(level, level)
                cell = self.cells.setdefault((scope, limit.id), SlowCell())
                cell.put(limit, offset, self.now)
                least, most = cell.counted(self.now)
                amount, top = amounts[limit.unit], limit.burst or limit.amount
                if decision.limit.endswith(f"|{limit.id}"):
                    assert amount > 0
                    assert most + amount > top, (limit, most, amount, "refused for nothing")
                    return
                if amount:
                    assert least + amount <= top, (limit, least, amount, "more than the limit")
                    uses.append((cell, limit, amount))
        assert decision.verdict == "admit"
        charged = [(cell, limit, cell.charge(amount, self.now)) for cell, limit, amount in uses]
        self.running[decision.request] = Running(decision, charged, self.prices[decision.facts.model])

    @precondition(lambda self: self.running)
    @rule(
        nth=st.integers(0, 9),
        pause=pauses,
        share=st.integers(0, 150),
        result=st.sampled_from(("finished", "withheld", "failed", "cancelled")),
    )
    def end(self, nth: int, pause: int, share: int, result: Any) -> None:
        self.now += pause
        running = self.pick(nth)
        facts = running.decision.facts
        share = share if running.decision.estimated else min(share, 100)
        used = facts.input_bound * share // 100, facts.max_tokens * share // 100
        report = Completion(
            running.decision.request, "acme", "acme", result, "w", "a", input_tokens=used[0], output_tokens=used[1]
        )
        made = outcome(self.ledger, self.completions, self.now, report)
        assert made is not None
        self.completions += 1
        charged = result != "failed"
        assert made.cost == (used_in_each_unit(*used, running.price)["cost"] if charged else 0)
        self.settle(running, *(used if charged else (0, 0)))
        self.write(made)

    def settle(self, running: Running, input_tokens: int, output_tokens: int) -> None:
        used = used_in_each_unit(input_tokens, output_tokens, running.price)
        for cell, limit, use in running.uses:
            if limit.unit == "requests":
                came_to = use.amount
            else:
                came_to = used[limit.unit] if running.decision.estimated else min(used[limit.unit], use.amount)
            cell.end(use, came_to, self.now)

    def pick(self, nth: int) -> Running:
        request = sorted(self.running)[nth % len(self.running)]
        return self.running.pop(request)

    @precondition(lambda self: self.running)
    @rule(nth=st.integers(0, 9))
    def cancel(self, nth: int) -> None:
        """The cancel costs nothing itself; the run ends later."""
        running = sorted(self.running.items())[nth % len(self.running)][1]
        decision = decide(
            self.ledger, self.control, 0, self.facts(kind="cancel", target=running.decision.facts.client_request)
        )
        assert (decision.first, decision.charges) == (running.decision.request, ())
        self.write(decision)

    @precondition(lambda self: self.running)
    @rule()
    def expire(self) -> None:
        self.now += 120_000
        self.write(Tick(self.now))
        for held in list(self.ledger.due(self.now, 0)):
            self.settle(self.running.pop(held.request), 0, 0)
            self.write(expired(self.ledger, held, self.now))

    @rule(pause=pauses)
    def mark(self, pause: int) -> None:
        self.now += pause
        self.write(SnapshotMark(self.now, 0, b"", 0, 1))
        for cell in self.cells.values():
            cell.mark(self.now)

    @rule()
    def restore(self) -> None:
        self.ledger = Ledger.load(self.ledger.dump())

    @rule(pause=pauses, count=st.integers(1, 5), marked=st.booleans())
    def lose(self, pause: int, count: int, marked: bool) -> None:
        """A batch that lost the race is undone: decisions, outcomes of all that runs, a mark."""
        before, state = self.ledger.dump(), everything(Ledger.load(self.ledger.dump()))
        now = self.now + pause
        self.ledger.begin()
        for nth, running in enumerate(self.running.values()):
            report = Completion(running.decision.request, "acme", "acme", "finished", "w", "a", output_tokens=1)
            made = outcome(self.ledger, self.completions + nth, now, report)
            assert made is not None
            self.ledger.apply(made)
        for _ in range(count):
            facts = self.facts(kind="inference", model="glossary", input_bound=3, max_tokens=2, time=now)
            self.ledger.apply(decide(self.ledger, self.control, 0, facts))
        if marked:
            self.ledger.apply(SnapshotMark(now, 0, b"", 0, 1))
        self.ledger.rollback()
        assert self.ledger.dump() == before
        assert everything(self.ledger) == state

    def teardown(self) -> None:
        """Live is folded is restored."""
        folded = Ledger()
        for value in self.stored:
            folded.apply(decode_log(value))
        assert everything(folded) == everything(self.ledger) == everything(Ledger.load(folded.dump()))


def used_in_each_unit(input_tokens: int, output_tokens: int, price: tuple[int, int]) -> dict[str, int]:
    cost = -(-(input_tokens * price[0] + output_tokens * price[1]) // 10**6)
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cost": cost}
    return {"requests": 1, "tokens": input_tokens + output_tokens, **counts}


Limits.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestLimits = Limits.TestCase
