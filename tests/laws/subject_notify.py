"""NOTIFY as a subject: alerts arrive, time passes, targets answer; at a cut the outbox is folded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, Delivery
from pipeline.notify import outbox as notify
from pipeline.notify.outbox import Outbox, Schedule, WebhookReply
from tests.laws.subject import Cuts, Run, Written

T0 = 1_760_000_000_000
SCHEDULE = Schedule(attempts=4)


@dataclass(frozen=True)
class Turn:
    """An alert that arrives, or (without one) an answer of every target at a later time."""

    time: int
    tenant: str = ""
    offset: int = 0
    alert: bytes = b""
    status: int = 0


arrivals = st.tuples(st.integers(0, 9), st.sampled_from(("acme", "beta")))
passing = st.tuples(st.integers(0, 2 * notify.HOUR_MS), st.sampled_from((200, 500, 0, 410)))
steps = st.lists(st.one_of(arrivals.map(lambda a: (a, None)), passing.map(lambda p: (None, p))), max_size=40)


def placed(drawn: list[Any]) -> list[Turn]:
    found, now = [], T0
    for offset, (arrival, passed) in enumerate(drawn):
        if arrival is not None:
            number, tenant = arrival
            alert = Alert(f"{tenant}{number}", T0, "rule", 3, "o", tenant, "p", "title", 3, T0)
            found.append(Turn(now, tenant, offset, encode(alert)))
        else:
            now += passed[0]
            found.append(Turn(now, status=passed[1]))
    return found


class NotifySubject:
    name = "notify"
    writes: ClassVar[dict[str, Any]] = {"deliveries": Delivery}

    def inputs(self) -> st.SearchStrategy[list[Turn]]:
        return steps.map(placed)

    def tenant(self, item: Turn) -> str:
        return item.tenant

    def run(self, inputs: Sequence[Turn], cuts: Cuts) -> Run:
        outbox, written = Outbox(), list[Written]()
        for at, turn in enumerate(inputs):
            if at in cuts:
                outbox = folded(inputs[:at], written)
            if turn.alert:
                outbox.add(turn.offset, decode(Alert, turn.alert))
                continue
            for held in outbox.due(turn.time, set()):
                record = notify.decide(held, WebhookReply(turn.status), turn.time, "target", SCHEDULE)
                written.append(Written("deliveries", record.tenant, encode(record)))
                outbox.apply(record)
        return Run(written, held_by(outbox))

    def fold(self, inputs: Sequence[Turn], run: Run) -> Any:
        return held_by(folded(inputs, run.written))

    def due(self, inputs: Sequence[Turn]) -> Counter[Any]:
        return Counter({decode(Alert, turn.alert).alert: 1 for turn in inputs if turn.alert})

    def answers(self, run: Run) -> Counter[Any]:
        """An alert is finished by its last delivery, or still held: one of the two."""
        ended = (d.alert for d in deliveries(run.written) if d.status != "retry")
        return Counter(ended) + Counter(alert for alert, *_ in run.state[0])

    def essence(self, run: Run) -> Sequence[Written]:
        return run.written

    def exact(self, run: Run) -> Any:
        return run.written, run.state

    def check_life(self, inputs: Sequence[Turn], run: Run) -> None:
        seen: dict[str, Delivery] = {}
        for delivery in deliveries(run.written):
            before = seen.get(delivery.alert)
            assert before is None or (before.status == "retry" and before.next_time <= delivery.time)
            assert delivery.attempt == (before.attempt + 1 if before else 1) <= SCHEDULE.attempts
            assert (delivery.status == "retry") == (delivery.next_time > delivery.time)
            seen[delivery.alert] = delivery


def folded(inputs: Sequence[Turn], written: Sequence[Written]) -> Outbox:
    """As the runner does it: alerts first, then the record of attempts."""
    outbox = Outbox()
    for turn in inputs:
        if turn.alert:
            outbox.add(turn.offset, decode(Alert, turn.alert))
    for delivery in deliveries(written):
        outbox.apply(delivery)
    return outbox


def held_by(outbox: Outbox) -> tuple[list[tuple[Any, ...]], set[str]]:
    held = [(p.alert.alert, p.offset, p.attempts, p.due) for p in outbox.open()]
    return sorted(held), set(outbox.done)


def deliveries(written: Sequence[Written]) -> list[Delivery]:
    return [decode(Delivery, w.value) for w in written]
