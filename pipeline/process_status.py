"""A process tells of itself whether it is ready, what failed last, and how far it is behind its inputs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from pipeline.metrics import SEAL_AGE, SILENT_SECONDS, LiveReadings, MetricSample, ReadingSource

SILENT_S = 30.0
"""Where no broker answered a fetch for this long, what is known of an input is out of date."""
UNSEALED_S = 3_600.0
"""Records that are older and not sealed are an alarm."""
_MOST = {SILENT_SECONDS: (SILENT_S, "no broker told the end of"), SEAL_AGE: (UNSEALED_S, "not sealed:")}
_LEVELS = {logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "error"}
Check = Callable[[], Iterable[str]]
"""Gives the reasons for which a process is not ready."""


class LoggedFault(NamedTuple):
    """A warning or an error was written to the log: when (Unix s), and its text."""

    time: float
    text: str


class FaultLog(logging.Handler):
    """Listens to the log of a process and remembers the last fault that it told."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: Counter[str] = Counter({"warning": 0, "error": 0})
        self.last: LoggedFault | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[_LEVELS.get(record.levelno, "error")] += 1
        self.last = LoggedFault(record.created, record.getMessage())


class ProcessStatus:
    """Readiness and metrics of one process; its parts add checks, readings and meters of their own."""

    def __init__(self, stage: str) -> None:
        from prometheus_client import CollectorRegistry

        self.stage = stage
        self.starting = False
        """The process waits for what it needs, and serves nothing yet."""
        self.fault_log = FaultLog()
        self.checks: list[Check] = []
        self.renderers: list[Callable[[], bytes]] = []
        """Give the text of meters that are kept elsewhere."""
        self._ready = False
        self._readings = LiveReadings()
        self._readings.sources.append(self._read)
        self._registry = CollectorRegistry()
        self._registry.register(self._readings)

    def add(self, source: ReadingSource) -> None:
        """Ask this for readings from now on."""
        self._readings.sources.append(source)

    def remove(self, source: ReadingSource) -> None:
        """Ask no more; one that was never added is ignored."""
        if source in self._readings.sources:
            self._readings.sources.remove(source)

    def faults(self) -> list[str]:
        """Give the reasons for which this process is not ready; empty where all is well."""
        found = [f"{self.stage}: starting"] if self.starting else []
        found += [fault for check in self.checks for fault in check()]
        for name, value, labels in self._readings.read():
            most, what = _MOST.get(name, (inf, ""))
            if value > most:
                found.append(f"{self.stage}: {what} {labels[0]}[{labels[1]}] for {value:.0f} s")
        return found

    def render(self) -> bytes:
        """Give the metrics as Prometheus text."""
        from prometheus_client import generate_latest

        self._ready = not self.faults()
        return generate_latest(self._registry) + b"".join(render() for render in self.renderers)

    def _read(self) -> list[MetricSample]:
        last = self.fault_log.last
        lines = [
            MetricSample("sluice_log_lines_total", count, (level,)) for level, count in self.fault_log.lines.items()
        ]
        told = [MetricSample("sluice_ready", self._ready), *lines]
        if last is not None:
            told.append(MetricSample("sluice_last_fault_timestamp_seconds", last.time))
        return told
