"""Metrics of a process: what a closed table names, in a registry of their own, as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    # a command imports the tables of metrics with a stage's modules, and keeps none
    from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


class Meters:
    """The metrics of a table. A name or label outside it raises KeyError or ValueError."""

    def __init__(self, table: Iterable[Metric]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for name, kind, text, labels in table:
            if kind == "counter":
                self._counters[name] = Counter(name, text, labels, registry=self.registry)
            elif kind == "gauge":
                self._gauges[name] = Gauge(name, text, labels, registry=self.registry)
            else:
                self._histograms[name] = Histogram(name, text, labels, registry=self.registry, buckets=_SECONDS)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        metric = self._counters[name]
        (metric.labels(*labels) if labels else metric).inc(by)

    def level(self, name: str, value: float) -> None:
        self._gauges[name].set(value)

    def took(self, name: str, seconds: float, *labels: str) -> None:
        metric = self._histograms[name]
        (metric.labels(*labels) if labels else metric).observe(seconds)

    def render(self) -> bytes:
        """Prometheus text format 0.0.4."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
