"""NOTIFY as a subject: alerts arrive, time passes, targets answer; at a cut the outbox is folded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from pipeline.admit.intake import Raw
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control, Tenant
from pipeline.events.messages import Alert, Delivery
from pipeline.notify.outbox import HOUR_MS, Outbox, Schedule, WebhookReply
from pipeline.notify.step import Arrival, DeliveryAttempt, NotifyStage
from pipeline.stage import InputBatch
from tests.laws.subject import Cuts, Run, Subject

T0 = 1_760_000_000_000
SCHEDULE = Schedule(attempts=4)
TENANTS = ("acme", "beta")
URL = "https://example.org/hook"


def documents() -> Control:
    control = Control()
    first = Tenant(id="acme", organisation="o", plan="p", webhook=URL, data_key="-", hpke_public="-", hpke_private="-")
    for version, name in enumerate(TENANTS):
        control.apply(version, first.model_copy(update={"id": name}))
    return control


CONTROL = documents()


@dataclass(frozen=True)
class Turn:
    """An alert that arrives, or (without one) an answer of every target at a later time."""

    time: int
    tenant: str = ""
    offset: int = 0
    alert: bytes = b""
    status: int = 0


arrivals = st.tuples(st.integers(0, 9), st.sampled_from(TENANTS))
passing = st.tuples(st.integers(0, 2 * HOUR_MS), st.sampled_from((200, 500, 0, 410)))
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


class NotifySubject(Subject):
    def stage(self, inputs: Sequence[Turn]) -> NotifyStage:
        return NotifyStage(CONTROL, 0, SCHEDULE)

    def inputs(self) -> st.SearchStrategy[list[Turn]]:
        return steps.map(placed)

    def groups(self, inputs: Sequence[Turn], cuts: Cuts) -> Iterator[Sequence[Turn]]:
        """Each alone: an answer is one to what is due by then."""
        return ([turn] for turn in inputs)

    def batch(self, state: Outbox, group: Sequence[Turn]) -> InputBatch[Any]:
        (turn,) = group
        if turn.alert:
            return InputBatch([Raw(turn.offset, turn.time, turn.alert, ())], turn.time)
        reply = WebhookReply(turn.status)
        return InputBatch([DeliveryAttempt(pending, URL, reply) for pending in state.due(turn.time, set())], turn.time)

    def folded(self, inputs: Sequence[Turn], run: Run) -> Iterable[Arrival | Delivery]:
        """As the partition does it: alerts first, then the record of attempts."""
        alerts = [Arrival(turn.offset, decode(Alert, turn.alert)) for turn in inputs if turn.alert]
        return [*alerts, *run.records("deliveries")]

    def view(self, state: Outbox) -> Any:
        held = [(p.alert.alert, p.offset, p.attempts, p.due) for p in state.open()]
        return sorted(held), set(state.done)

    def due(self, inputs: Sequence[Turn]) -> Counter[Any]:
        return Counter({decode(Alert, turn.alert).alert: 1 for turn in inputs if turn.alert})

    def answers(self, run: Run) -> Counter[Any]:
        """An alert is finished by its last delivery, or still held: one of the two."""
        ended = (d.alert for d in run.records("deliveries") if d.status != "retry")
        return Counter(ended) + Counter(pending.alert.alert for pending in run.state.open())

    def check_life(self, inputs: Sequence[Turn], run: Run) -> None:
        seen: dict[str, Delivery] = {}
        for delivery in run.records("deliveries"):
            before = seen.get(delivery.alert)
            assert before is None or (before.status == "retry" and before.next_time <= delivery.time)
            assert delivery.attempt == (before.attempt + 1 if before else 1) <= SCHEDULE.attempts
            assert (delivery.status == "retry") == (delivery.next_time > delivery.time)
            seen[delivery.alert] = delivery
