"""After the storm: what must hold, counted from Kafka's log, from the store and from what callers were told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.admit.decide import UNCHARGED
from pipeline.config import Settings
from pipeline.control.table import ControlTable
from pipeline.demo.reconcile import Equation, read_all
from pipeline.events.chain import ChainReader
from pipeline.events.codec import decode, decode_log
from pipeline.events.control import Control
from pipeline.events.messages import Completion
from pipeline.events.records import Decision, LogRecord, Outcome
from tests.faults.fault_ceilings import Ceilings
from tests.faults.fault_load import AGAIN, ANSWERED, BROKEN, REFUSED, Call
from tests.faults.fault_site import FaultSite


@dataclass(slots=True)
class Log:
    """All topics that count, as they are: offsets of requests, valid records, and completions by place."""

    control: Control
    requests: set[tuple[int, int]] = field(default_factory=set)
    records: list[list[LogRecord]] = field(default_factory=list)
    completions: dict[tuple[int, int], Completion] = field(default_factory=dict)
    skipped: int = 0

    def decisions(self) -> Iterator[tuple[int, Decision]]:
        return ((p, r) for p, records in enumerate(self.records) for r in records if isinstance(r, Decision))

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        return ((p, r) for p, records in enumerate(self.records) for r in records if isinstance(r, Outcome))


async def read_log(settings: Settings) -> Log:
    table = ControlTable(settings.kafka.endpoint)
    await table.start()
    await table.close()
    log = Log(table.control)
    for partition in range(table.control.require_deployment().partitions):
        log.requests |= {(partition, item.offset) for item in await read_all(settings, "requests", partition)}
        chain = ChainReader()
        items = await read_all(settings, "decisions", partition)
        log.records.append([decode_log(e.value) for item in items for e in chain.push(item.entry())])
        log.skipped += chain.skipped
        for item in await read_all(settings, "completions", partition):
            log.completions[partition, item.offset] = decode(Completion, item.value)
    return log


def _more_than_once(names: Iterable[object]) -> int:
    return sum(count - 1 for count in Counter(names).values())


def once(log: Log) -> list[Equation]:
    """One valid decision for each request, one outcome for each that was admitted, one run for each idempotency key."""
    answered = [(p, at) for p, d in log.decisions() for at in range(d.facts.start, d.facts.offset + 1)]
    admitted = {d.request for _, d in log.decisions() if d.verdict == "admit" and d.facts.kind == "inference"}
    ended = [o.request for _, o in log.outcomes()]
    keys = [
        (d.principal, d.facts.idempotency) for _, d in log.decisions() if d.request in admitted and d.facts.idempotency
    ]
    return [
        Equation("requests without a decision = 0", len(log.requests - set(answered)), 0),
        Equation("decisions beyond one a request = 0", _more_than_once(answered), 0),
        Equation("admitted without an outcome = 0", len(admitted - set(ended)), 0),
        Equation("outcomes beyond one a request = 0", _more_than_once(ended), 0),
        Equation("outcomes of nothing admitted = 0", len(set(ended) - admitted), 0),
        Equation("idempotency keys that ran twice = 0", _more_than_once(keys), 0),
    ]


def tokens(log: Log) -> tuple[list[Equation], Counter[str]]:
    """Settled tokens against the usage in the completions that outcomes name; the rest is repeated work."""
    admitted = {d.request: d for _, d in log.decisions() if d.verdict == "admit"}
    settled = used = differ = 0
    named: set[tuple[int, int]] = set()
    for partition, end in log.outcomes():
        report = log.completions.get((partition, end.completion)) if end.completion >= 0 else None
        usage = 0
        if end.completion >= 0:
            named.add((partition, end.completion))
            same = report is not None and (report.request, report.result) == (end.request, end.result)
            differ += not same
            if report is not None and report.result not in UNCHARGED:
                usage = report.input_tokens + report.output_tokens
        back = {charge.cell: charge.amount for charge in end.charges}
        for charge in admitted[end.request].charges:
            if charge.unit == "tokens" and charge.meter in ("rate", "budget"):
                settled += charge.amount + back.get(charge.cell, 0)
                used += usage
    again = [report for place, report in log.completions.items() if place not in named]
    repeated = Counter(runs=len(again), tokens=sum(r.input_tokens + r.output_tokens for r in again))
    return [
        Equation("settled tokens = usage of named completions", settled, used),
        Equation("outcomes unlike their completion = 0", differ, 0),
    ], repeated


def ceilings(log: Log) -> tuple[list[Equation], dict[str, int]]:
    """Every limit of every plan, counted again from the log with other arithmetic; and the most that was seen."""
    found = Ceilings(log.control)
    for records in log.records:
        for record in records:
            if isinstance(record, Decision):
                found.decision(record)
            elif isinstance(record, Outcome):
                found.outcome(record)
    return [Equation("limits exceeded = 0", found.exceeded, 0)], found.most


def callers(site: FaultSite, calls: list[Call], log: Log) -> list[Equation]:
    """Every attempt ended in an honest way, every call has its end, and answers are those of the log."""
    tries = [(call, attempt) for call in calls for attempt in call.tries]
    cut = [a for _, a in tries if a.result == BROKEN and not site.was_down(a.began, a.ended)]
    odd = [a.result for _, a in tries if a.result not in AGAIN | REFUSED | {ANSWERED}]
    for result, count in Counter(odd).items():
        print(f"UNEXPECTED {count} attempts: {result}")
    ends = {o.request: o for _, o in log.outcomes()}
    untrue = 0
    for call in calls:
        if call.result == ANSWERED:
            end = ends.get(call.request)
            told = end is not None and (end.input_tokens, end.output_tokens) == call.usage
            if not (told and call.text.split() == call.prompt.split()):
                untrue += 1
                print(f"UNTRUE {call.who} by {call.door}: told {call.usage}, the log says {end}")
    return [
        Equation("calls whose end is unknown = 0", sum(call.result not in REFUSED | {ANSWERED} for call in calls), 0),
        Equation("connections broken while the gateway was up = 0", len(cut), 0),
        Equation("attempts with another end = 0", len(odd), 0),
        Equation("answers unlike the log = 0", untrue, 0),
    ]


def results(log: Log) -> dict[str, int]:
    """Outcomes by result and refusals by reason."""
    found: dict[str, int] = defaultdict(int)
    for _, end in log.outcomes():
        found[f"outcomes {end.result}"] += 1
    for _, decision in log.decisions():
        for reason in decision.reasons:
            found[f"refused {reason}"] += 1
    return dict(sorted(found.items()))
