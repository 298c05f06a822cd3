"""After the storm: what must hold, counted from Kafka's log, from the store and from what callers were told."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.admit.decide import UNCHARGED
from pipeline.config import Settings
from pipeline.demo.reconcile import Equation, read_all
from pipeline.events.chain import ChainReader, Link
from pipeline.events.codec import decode, decode_log
from pipeline.events.control import Control
from pipeline.events.messages import Completion
from pipeline.events.records import Charge, Decision, LogRecord, Outcome
from pipeline.events.signed_control import ControlFold
from pipeline.kafka.reader import KafkaRecord
from tests.faults.fault_ceilings import Ceilings, LimitHistory
from tests.faults.fault_load import AGAIN, ANSWERED, BROKEN, Call, Try
from tests.faults.fault_site import FaultSite


@dataclass(slots=True)
class Log:
    """All topics that count, as they are: offsets of requests, valid records, and completions by place."""

    control: Control
    limits: LimitHistory
    requests: set[tuple[int, int]] = field(default_factory=set)
    records: list[list[LogRecord]] = field(default_factory=list)
    completions: dict[tuple[int, int], Completion] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    """The first completion that retention left, by partition."""
    skipped: int = 0
    lost: int = 0
    """Batches of writers that lost a race."""

    def decisions(self) -> Iterator[tuple[int, Decision]]:
        return ((p, r) for p, records in enumerate(self.records) for r in records if isinstance(r, Decision))

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        return ((p, r) for p, records in enumerate(self.records) for r in records if isinstance(r, Outcome))


async def read_log(settings: Settings) -> Log:
    fold = ControlFold(settings.keys.pin)
    log = Log(fold.control, LimitHistory())
    for item in await read_all(settings, "control", 0):
        fold.read(item.offset, item.value)
        log.limits.add(fold.control)
    for partition in range(fold.control.require_deployment().partitions):
        log.requests |= {(partition, item.offset) for item in await read_all(settings, "requests", partition)}
        items = await read_all(settings, "decisions", partition)
        chain = ChainReader(trust_first=bool(items and items[0].offset))
        records = [decode_log(e.value) for item in items for e in chain.push(item.entry())]
        log.records.append(_of_known(records) if items and items[0].offset else records)
        log.skipped += chain.skipped
        log.lost += _lost(items)
        items = await read_all(settings, "completions", partition)
        log.kept[partition] = items[0].offset if items else sys.maxsize
        for item in items:
            log.completions[partition, item.offset] = decode(Completion, item.value)
    return log


def _of_known(records: list[LogRecord]) -> list[LogRecord]:
    """Leave out, of a log that was cut, the outcomes of requests that were decided before it begins."""
    first = next((record.facts.start for record in records if isinstance(record, Decision)), sys.maxsize)
    return [r for r in records if not isinstance(r, Outcome) or int(r.request.rpartition("-")[2]) >= first]


def _lost(items: list[KafkaRecord]) -> int:
    """Count the batches that landed elsewhere than their writer had said."""
    entries = [item.entry() for item in items]
    firsts = [(entry.offset, link) for entry in entries if (link := Link.unpack(entry.link)) and link.index == 0]
    return sum(offset != link.base for offset, link in firsts)


def _more_than_once(names: Iterable[object]) -> int:
    return sum(count - 1 for count in Counter(names).values())


def once(log: Log) -> list[Equation]:
    """One valid decision for each request, one outcome for each that was admitted, one run for each idempotency key."""
    answered = [(p, at) for p, d in log.decisions() for at in range(d.facts.start, d.facts.offset + 1)]
    admitted = {d.request for _, d in log.decisions() if d.verdict == "admit" and d.facts.kind == "inference"}
    ended = [o.request for _, o in log.outcomes()]
    return [
        Equation("requests without a decision = 0", len(log.requests - set(answered)), 0),
        Equation("decisions beyond one a request = 0", _more_than_once(answered), 0),
        Equation("admitted without an outcome = 0", len(admitted - set(ended)), 0),
        Equation("outcomes beyond one a request = 0", _more_than_once(ended), 0),
        Equation("outcomes of nothing admitted = 0", len(set(ended) - admitted), 0),
        Equation("idempotency keys that ran twice = 0", _ran_twice(log), 0),
    ]


def refused_in_vain(log: Log) -> Equation:
    """A key is held by a run that is open or gave its answer; no other may make a request a duplicate."""
    return Equation("duplicates of no run that holds the key = 0", sum(_keys(records)[1] for records in log.records), 0)


def _ran_twice(log: Log) -> int:
    return sum(_keys(records)[0] for records in log.records)


def _keys(records: list[LogRecord]) -> tuple[int, int]:
    """Count the runs under an idempotency key that another run held, and the duplicates under one that none held."""
    twice = in_vain = 0
    held: dict[tuple[str, str], str] = {}
    keys: dict[str, tuple[str, str]] = {}
    for record in records:
        if isinstance(record, Outcome) and record.result not in ("finished", "withheld"):
            key = keys.get(record.request, ("", ""))
            if held.get(key) == record.request:
                del held[key]
        elif isinstance(record, Decision) and record.facts.idempotency:
            key = record.principal, record.facts.idempotency
            in_vain += record.reasons == ("duplicate",) and key not in held
            if record.verdict == "admit":
                twice += key in held
                held[key] = record.request
                keys[record.request] = key
    return twice, in_vain


def tokens(log: Log) -> tuple[list[Equation], Counter[str]]:
    """Settled tokens against the usage in the completions that outcomes name; the rest is repeated work."""
    admitted = {d.request: d for _, d in log.decisions() if d.verdict == "admit"}
    settled = used = differ = 0
    named: set[tuple[int, int]] = set()
    for partition, end in log.outcomes():
        if 0 <= end.completion < log.kept[partition]:
            continue
        report = log.completions.get((partition, end.completion)) if end.completion >= 0 else None
        usage = 0
        if end.completion >= 0:
            named.add((partition, end.completion))
            same = report is not None and (report.request, report.result) == (end.request, end.result)
            differ += not same
            if report is not None and report.result not in UNCHARGED:
                usage = report.input_tokens + report.output_tokens
        back = {_limit(charge): charge.amount for charge in end.charges}
        for charge in admitted[end.request].charges:
            if charge.unit == "tokens" and charge.meter in ("rate", "budget"):
                settled += charge.amount + back.get(_limit(charge), 0)
                used += usage
    again = [report for place, report in log.completions.items() if place not in named]
    repeated = Counter(runs=len(again), tokens=sum(r.input_tokens + r.output_tokens for r in again))
    return [
        Equation("settled tokens = usage of named completions", settled, used),
        Equation("outcomes unlike their completion = 0", differ, 0),
    ], repeated


def _limit(charge: Charge) -> str:
    """Name a charge's limit by scope, id, meter and unit; cells of decider 6 bear the amount as well."""
    return "|".join(charge.cell.split("|")[:4])


def ceilings(log: Log) -> tuple[list[Equation], dict[str, int]]:
    """Every limit of every plan, counted again from the log with other arithmetic; and the most that was seen."""
    found = Ceilings(log.control, log.limits)
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
    odd = [a.result for call, a in tries if a.result not in AGAIN | call.ends]
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
        Equation("calls whose end is unknown = 0", sum(call.result not in call.ends for call in calls), 0),
        Equation("connections broken while the gateway was up = 0", len(cut), 0),
        Equation("attempts with another end = 0", len(odd), 0),
        Equation("answers unlike the log = 0", untrue, 0),
        Equation("told a repeat of what the log decided otherwise = 0", _told_otherwise(tries, log), 0),
    ]


def _told_otherwise(tries: list[tuple[Call, Try]], log: Log) -> int:
    """Count the attempts that were called a repeat though the log has another decision, or none, for that request."""
    reasons = {d.request: d.reasons for _, d in log.decisions()}
    told = [attempt for _, attempt in tries if attempt.request and attempt.result in ("replayed", "duplicate")]
    return sum(attempt.result not in reasons.get(attempt.request, ()) for attempt in told)


def garbage(written: set[tuple[int, int]], log: Log) -> Equation:
    """Each record that means nothing has its decision, which refuses it."""
    denied = [(p, d.facts) for p, d in log.decisions() if d.verdict == "deny"]
    refused = {(p, at) for p, facts in denied for at in range(facts.start, facts.offset + 1)}
    return Equation("garbage that was not refused = 0", len(written - refused), 0)


def results(log: Log) -> dict[str, int]:
    """Outcomes by result and refusals by reason."""
    found: dict[str, int] = defaultdict(int)
    for _, end in log.outcomes():
        found[f"outcomes {end.result}"] += 1
    for _, decision in log.decisions():
        for reason in decision.reasons:
            found[f"refused {reason}"] += 1
    return dict(sorted(found.items()))
