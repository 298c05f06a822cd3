"""Every metric of the gateway: a closed table. Labels are routes, reasons and events, never keys, tenants or text."""

from __future__ import annotations

from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("sluice_gateway_requests_total", "counter", "HTTP requests answered.", ("route", "status")),
    Metric("sluice_gateway_refusals_total", "counter", "Requests refused at the gateway itself.", ("reason",)),
    Metric("sluice_gateway_open_requests", "gauge", "Requests that wait for their answer."),
    Metric("sluice_gateway_request_seconds", "histogram", "From arrival to the end of the answer.", ("route",)),
    Metric("sluice_gateway_first_text_seconds", "histogram", "From arrival to the first text of an answer."),
    Metric("sluice_gateway_tokens_total", "counter", "Tokens of finished answers.", ("direction",)),
    Metric("sluice_gateway_cancels_total", "counter", "Cancel records written because a client went away."),
    Metric("sluice_gateway_responses_total", "counter", "Response records read.", ("event",)),
    Metric("sluice_gateway_attempts_moved_total", "counter", "Answers that went on with another worker's run."),
    Metric("sluice_gateway_unknown_writes_total", "counter", "Records whose write the broker did not confirm."),
    Metric("sluice_gateway_reader_restarts_total", "counter", "Response readers that had to start again."),
    Metric("sluice_gateway_held_requests", "gauge", "Requests whose responses are held for a later GET."),
    Metric("sluice_gateway_held_bytes", "gauge", "Bytes of responses held for a later GET."),
    Metric("sluice_gateway_access_records_total", "counter", "Refusal summaries written to access."),
)


class Metrics:
    """The table's metrics in a registry of their own. A name or label outside it raises KeyError or ValueError."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for name, kind, text, labels in METRICS:
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
        return generate_latest(self.registry)
