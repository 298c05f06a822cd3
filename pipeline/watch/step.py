"""WATCH folds a batch of findings in, and writes the alerts that they raise once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.emission import Emission
from pipeline.events.messages import Alert, FindingEvent
from pipeline.stage import InputBatch, InputRecord, Rejection, Step
from pipeline.watch.correlate import WatchState, apply, covered


@dataclass(slots=True)
class WatchStep(Step[WatchState]):
    """Each emission is one of ``alerts``."""

    alerts: list[Alert] = field(default_factory=list)


class WatchStage:
    """Correlates the findings of one partition; ``since`` (Unix ms) is from when on all of them are read."""

    name = "watch"
    reads = ("findings", "control", "alerts")
    writes = ("alerts",)
    signals = ()

    def __init__(self, partition: int, since: int = 0) -> None:
        self._partition = partition
        self._since = since

    def start(self) -> WatchState:
        """Give the state that remembers nothing."""
        return WatchState()

    def fold(self, state: WatchState, records: Iterable[Alert | FindingEvent]) -> WatchState:
        """Remember alerts that are written, and findings without raising theirs."""
        for record in records:
            if isinstance(record, Alert):
                state.remember(record.alert)
            else:
                apply(state, record)
        return state

    def step(self, state: WatchState, batch: InputBatch[InputRecord]) -> WatchStep:
        """Fold findings in; an alert is left out where it is known, or others read its time in full."""
        step = WatchStep(state, consumed=len(batch.items))
        for item in batch.items:
            try:
                event = decode(FindingEvent, item.value)
            except Malformed:
                step.rejections.append(Rejection("findings", item.offset, "malformed"))
                continue
            for alert in apply(state, event):
                if alert.alert not in state.known and covered(alert, self._since):
                    state.remember(alert.alert)
                    step.alerts.append(alert)
                    step.emissions.append(Emission("alerts", self._partition, alert.tenant.encode(), encode(alert)))
        return step
