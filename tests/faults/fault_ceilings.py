"""Limits counted a second time: leaky buckets for rates, queues for windows; nothing of ``pipeline.admit.quota``."""

from __future__ import annotations

import datetime
from bisect import bisect
from collections import Counter, defaultdict, deque
from fractions import Fraction

from pipeline.events.control import Control, Limit, Plan
from pipeline.events.records import Decision, Outcome

Cell = tuple[str, str]


def _period(limit: Limit, time: int) -> int:
    """Number the period of a budget that ``time`` is in."""
    day = datetime.datetime.fromtimestamp(time // 1000, datetime.UTC).date()
    kind = limit.period or {86_400: "day", 604_800: "week", 2_592_000: "month"}.get(limit.period_s)
    if kind == "week":
        year, week, _ = day.isocalendar()
        return year * 100 + week
    if kind is None:
        return time // (limit.period_s * 1000)
    return day.year * 100 + day.month if kind == "month" else day.toordinal()


class LimitHistory:
    """The plans as of each version of ``control``."""

    def __init__(self) -> None:
        self._plans: dict[str, list[tuple[int, Plan]]] = defaultdict(list)

    def add(self, control: Control) -> None:
        """Take what is in force as of the version of ``control``."""
        for plan in control.plans.values():
            known = self._plans[plan.id]
            if not known or known[-1][1] != plan:
                known.append((control.version, plan))

    def plan(self, name: str, version: int) -> Plan:
        """The plan that was in force at ``version``."""
        plans = self._plans[name]
        return plans[bisect(plans, version, key=lambda entry: entry[0]) - 1][1]


class Ceilings:
    """Fed the records of one partition after the other; ``most`` is the highest level seen by scope and limit.

    Where a rule leaves room, the lower level is counted, so that what exceeds a limit here exceeds it by every reading:
    after a change of a rate the bucket leaks by the greater of both amounts, and a refund counts in full.
    """

    def __init__(self, control: Control, limits: LimitHistory) -> None:
        self._control = control
        self._limits_of = limits
        self._version = 0
        self._open: dict[str, tuple[Decision, int]] = {}
        self._windows: dict[Cell, deque[int]] = defaultdict(deque)
        self._buckets: dict[Cell, tuple[int, Fraction, int]] = {}
        """When a bucket was looked at last, how full it was, and the amount of its limit then."""
        self._sums: Counter[tuple[str, str, int]] = Counter()
        self.exceeded = 0
        self.most: dict[str, int] = defaultdict(int)

    def decision(self, record: Decision) -> None:
        """Whatever was admitted, and what was refused after it had been counted."""
        if record.facts.kind != "inference" or not (record.charges or record.verdict == "admit"):
            return
        admitted = record.verdict == "admit"
        self._version = record.control
        reserved = record.facts.input_bound + record.facts.max_tokens
        for scope, limit in self._limits(record.tenant, record.principal):
            if admitted or (limit.unit == "requests" and limit.meter != "open"):
                amount = reserved if limit.unit == "tokens" else 1
                self._see(scope, limit, self._take((scope, limit.id), limit, amount, record.facts.time))
        if admitted:
            self._open[record.request] = record, reserved

    def outcome(self, record: Outcome) -> None:
        taken, reserved = self._open.pop(record.request)
        charged = record.result not in ("failed", "expired")
        spare = reserved - (record.input_tokens + record.output_tokens if charged else 0)
        for scope, limit in self._limits(taken.tenant, taken.principal):
            cell = scope, limit.id
            if limit.meter == "open":
                self._sums[*cell, 0] -= reserved if limit.unit == "tokens" else 1
            elif limit.meter == "rate" and limit.unit == "tokens":
                self._fill(cell, limit, -spare, record.time)
            elif limit.meter == "budget" and limit.unit == "tokens":
                self._sums[*cell, _period(limit, taken.facts.time)] -= spare

    def _limits(self, tenant: str, principal: str) -> list[tuple[str, Limit]]:
        plan = self._limits_of.plan(self._control.tenants[tenant].plan, self._version)
        return [*((tenant, limit) for limit in plan.tenant), *((principal, limit) for limit in plan.principal)]

    def _take(self, cell: Cell, limit: Limit, amount: int, time: int) -> int:
        """The level after ``amount`` was taken."""
        period = limit.period_s * 1000
        if limit.meter == "window":
            seen = self._windows[cell]
            seen.append(time)
            while seen[0] <= time - period:
                seen.popleft()
            return len(seen)
        if limit.meter == "rate":
            return -(-self._fill(cell, limit, amount, time) // 1)
        place = (*cell, _period(limit, time) if limit.meter == "budget" else 0)
        self._sums[place] += amount
        return self._sums[place]

    def _fill(self, cell: Cell, limit: Limit, amount: int, time: int) -> Fraction:
        """A bucket that leaks ``limit.amount`` in each period."""
        last, level, before = self._buckets.get(cell, (time, Fraction(0), limit.amount))
        now = max(last, time)
        leaked = Fraction((now - last) * max(limit.amount, before), limit.period_s * 1000)
        level = max(Fraction(0), max(Fraction(0), level - leaked) + amount)
        self._buckets[cell] = now, level, limit.amount
        return level

    def _see(self, scope: str, limit: Limit, level: int) -> None:
        ceiling = (limit.burst or limit.amount) if limit.meter == "rate" else limit.amount
        name = f"{scope} {limit.id} (of {ceiling})"
        self.most[f"{scope} {limit.id}"] = max(self.most[f"{scope} {limit.id}"], level)
        if level > ceiling:
            self.exceeded += 1
            print(f"EXCEEDED {name}: {level}")
