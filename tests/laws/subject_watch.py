"""WATCH as a subject: findings in, alerts out; at a cut another worker reads everything again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from detectors.base import Finding
from pipeline.admit.intake import Raw
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, FindingEvent
from pipeline.stage import InputBatch
from pipeline.watch import correlate as watch
from pipeline.watch.step import WatchStage
from tests.laws.subject import Run, Subject

T0 = 1_760_000_400_000
KINDS = (("injection.x", ""), ("injection.y", ""), ("extraction.y", ""), ("", "rate_limited"), ("other.z", ""))
"""A finding or a refusal. Campaigns are left out: they are what tenants tell of each other, and have tests of their
own."""
steps = st.lists(
    st.tuples(
        st.integers(-watch.MINUTE_MS, watch.MINUTE_MS),
        st.sampled_from(KINDS),
        st.sampled_from(("p1", "p2", "p3")),
        st.sampled_from(("acme", "beta")),
    ),
    max_size=40,
)


def events(drawn: list[tuple[int, tuple[str, str], str, str]]) -> list[FindingEvent]:
    found, now = [], T0
    for n, (step, (rule, reason), principal, tenant) in enumerate(drawn):
        now += step // 2
        findings = (Finding(rule, 3, 90, 0, 4, "raw", 0),) if rule else ()
        verdict, reasons = ("deny", (reason,)) if reason else ("admit", ())
        found.append(
            FindingEvent(f"r{n}", now, "o", tenant, f"{tenant}-{principal}", "admit", verdict, reasons, findings)
        )
    return found


class WatchSubject(Subject):
    def stage(self, inputs: Sequence[FindingEvent]) -> WatchStage:
        return WatchStage(0)

    def inputs(self) -> st.SearchStrategy[list[FindingEvent]]:
        return steps.map(events)

    def batch(self, state: watch.WatchState, group: Sequence[FindingEvent]) -> InputBatch[Raw]:
        return InputBatch([Raw(0, event.time, encode(event), ()) for event in group], T0)

    def folded(self, inputs: Sequence[FindingEvent], run: Run) -> Iterable[Alert | FindingEvent]:
        return [*run.records("alerts"), *(decode(FindingEvent, encode(event)) for event in inputs)]

    def due(self, inputs: Sequence[FindingEvent]) -> Counter[Any]:
        raise NotImplementedError("see NOT_APPLICABLE")

    def answers(self, run: Run) -> Counter[Any]:
        raise NotImplementedError("see NOT_APPLICABLE")

    def check_life(self, inputs: Sequence[FindingEvent], run: Run) -> None:
        """An alert is raised once, names requests of its own tenant, and no repeat of the findings raises another."""
        alerts = run.records("alerts")
        assert len({alert.alert for alert in alerts}) == len(alerts)
        for alert in alerts:
            assert set(alert.requests) <= {event.request for event in inputs if event.tenant == alert.tenant}
        assert [alert for event in inputs for alert in watch.apply(run.state, event)] == []
        successor = self.stage(inputs).fold(watch.WatchState(), alerts)
        assert self.stage(inputs).step(successor, self.batch(successor, inputs)).emissions == []
