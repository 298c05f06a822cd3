"""WATCH as a subject: findings in, alerts out; at a cut another worker reads everything again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st

from detectors.base import Finding
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, FindingEvent
from pipeline.watch import correlate as watch
from tests.laws.subject import Cuts, Run, Written

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


class WatchSubject:
    name = "watch"
    writes: ClassVar[dict[str, Any]] = {"alerts": Alert}

    def inputs(self) -> st.SearchStrategy[list[FindingEvent]]:
        return steps.map(events)

    def tenant(self, item: FindingEvent) -> str:
        return item.tenant

    def run(self, inputs: Sequence[FindingEvent], cuts: Cuts) -> Run:
        state, written = watch.WatchState(), list[Written]()
        for at, event in enumerate(inputs):
            if at in cuts:
                state = watch.WatchState()
                for earlier in inputs[:at]:
                    watch.apply(state, decode(FindingEvent, encode(earlier)))
            written += [Written("alerts", alert.tenant, encode(alert)) for alert in watch.apply(state, event)]
        return Run(written, state)

    def fold(self, inputs: Sequence[FindingEvent], run: Run) -> Any:
        state = watch.WatchState()
        for event in inputs:
            watch.apply(state, decode(FindingEvent, encode(event)))
        return state

    def due(self, inputs: Sequence[FindingEvent]) -> Counter[Any]:
        raise NotImplementedError("see NOT_APPLICABLE")

    def answers(self, run: Run) -> Counter[Any]:
        raise NotImplementedError("see NOT_APPLICABLE")

    def essence(self, run: Run) -> Sequence[Written]:
        return run.written

    def exact(self, run: Run) -> Any:
        return run.written, run.state

    def check_life(self, inputs: Sequence[FindingEvent], run: Run) -> None:
        """An alert is raised once, names requests of its own tenant, and no repeat of the findings raises another."""
        alerts = [decode(Alert, w.value) for w in run.written]
        assert len({alert.alert for alert in alerts}) == len(alerts)
        for alert in alerts:
            assert set(alert.requests) <= {event.request for event in inputs if event.tenant == alert.tenant}
        assert [alert for event in inputs for alert in watch.apply(run.state, event)] == []
