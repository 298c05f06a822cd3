"""WATCH raises an alert once: not where it is written, nor where another worker read its time in full."""

from __future__ import annotations

from detectors.base import Finding
from pipeline.admit.intake import Raw
from pipeline.events.codec import encode
from pipeline.events.messages import FindingEvent
from pipeline.stage import InputBatch
from pipeline.watch.correlate import MINUTE_MS
from pipeline.watch.step import WatchStage

T = 1_760_000_400_000
INJECTION = Finding("injection.x", 3, 90, 0, 4, "raw", 0)


def event(number: int) -> FindingEvent:
    return FindingEvent(f"r{number}", T + number, "o", "acme", "ann", "admit", "admit", (), (INJECTION,))


ITEMS = [Raw(number, T, encode(event(number)), ()) for number in range(4)]


def test_an_alert_that_is_written_is_not_written_again() -> None:
    stage = WatchStage(2)
    step = stage.step(stage.start(), InputBatch(ITEMS, T))
    assert [(e.topic, e.partition, e.key) for e in step.emissions] == [("alerts", 2, b"acme")]
    successor = stage.fold(stage.start(), step.alerts)
    again = stage.step(successor, InputBatch(ITEMS, T))
    assert again.emissions == []
    assert again.state == step.state


def test_an_alert_whose_time_was_not_read_in_full_is_left_to_others() -> None:
    for since, count in ((T - 100 * MINUTE_MS, 1), (T, 0)):
        stage = WatchStage(0, since)
        assert len(stage.step(stage.start(), InputBatch(ITEMS, T)).emissions) == count


def test_bytes_that_are_no_finding_are_rejected_by_their_offset() -> None:
    stage = WatchStage(0)
    step = stage.step(stage.start(), InputBatch([Raw(7, T, b"?", ()), *ITEMS], T))
    assert [(rejection.topic, rejection.offset) for rejection in step.rejections] == [("findings", 7)]
    assert (step.consumed, len(step.alerts)) == (5, 1)
