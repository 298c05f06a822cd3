"""Metrics of every process: one closed table, and the registry in which a process keeps those of its own.

Labels are topics, partitions, settings, reasons and devices, never tenants, keys or text: numbers by tenant are in the
sealed log. What is not known is absent; no zero stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    # a command imports the tables of metrics with a stage's modules, and keeps none
    from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


LAG_MESSAGES, LAG_SECONDS = "sluice_lag_messages", "sluice_lag_seconds"
SILENT_SECONDS = "sluice_broker_silent_seconds"
PASSED_OVER = "sluice_control_passed_over_total"
COMMON: tuple[Metric, ...] = (
    Metric("sluice_ready", "gauge", "1 where /readyz answers 200."),
    Metric("sluice_last_fault_timestamp_seconds", "gauge", "Unix time of the last warning or error in the log."),
    Metric("sluice_log_lines_total", "counter", "Warnings and errors in the log of this process.", ("level",)),
    Metric(LAG_MESSAGES, "gauge", "Records of an input that are not done with yet.", ("topic", "partition")),
    Metric(LAG_SECONDS, "gauge", "Age of the oldest of them; 0 where there are none.", ("topic", "partition")),
    Metric(
        SILENT_SECONDS,
        "gauge",
        "Time since a broker last said where an input ends; lags are as of then.",
        ("topic", "partition"),
    ),
    Metric("sluice_control_version", "gauge", "Offset of the last document of control that was read."),
    Metric(PASSED_OVER, "counter", "Documents of control that count for nothing.", ("reason",)),
    Metric("sluice_certificate_left_seconds", "gauge", "Time until a certificate of the settings ends.", ("setting",)),
    Metric(
        "sluice_credential_age_seconds",
        "gauge",
        "Age of a certificate, or time since the file of a password or key was written.",
        ("setting",),
    ),
)
WORKER: tuple[Metric, ...] = (
    Metric("sluice_worker_partitions", "gauge", "Partitions that this worker serves."),
    Metric("sluice_worker_partitions_ended", "gauge", "Partitions that ended by an error and are not served."),
    Metric("sluice_worker_endings_total", "counter", "How often a partition ended by an error."),
    Metric("sluice_worker_clock_apart_seconds", "gauge", "Largest difference to a broker's clock, either way."),
    Metric(
        "sluice_worker_clock_behind", "gauge", "1 where this worker is behind its peers and gave its partitions up."
    ),
)
GATEWAY: tuple[Metric, ...] = (
    Metric("sluice_gateway_requests_total", "counter", "HTTP requests answered.", ("route", "status")),
    Metric("sluice_gateway_refusals_total", "counter", "Requests refused at the gateway itself.", ("reason",)),
    Metric(
        "sluice_gateway_wrong_keys_total", "counter", "Requests with a key that is unknown or whose secret is wrong."
    ),
    Metric("sluice_gateway_wrong_key_addresses", "gauge", "Addresses of which wrong keys are remembered."),
    Metric("sluice_gateway_connections", "gauge", "Connections that are open."),
    Metric("sluice_gateway_reaped_connections_total", "counter", "Connections closed while they waited, to make room."),
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
    Metric(
        "sluice_gateway_certificate_rereads_total",
        "counter",
        "Changes of the certificate's files: taken, or refused because they did not fit together.",
        ("result",),
    ),
    Metric("sluice_gateway_access_records_total", "counter", "Refusal summaries written to access."),
)
DROPPED, OVERSHOOT = "sluice_admit_completions_dropped_total", "sluice_admit_overshoot_tokens_total"
ADMIT: tuple[Metric, ...] = (
    Metric(DROPPED, "counter", "Completions that ended nothing.", ("reason",)),
    Metric(OVERSHOOT, "counter", "Tokens used above what was reserved, by models of another's server."),
)
GENERATE: tuple[Metric, ...] = (
    Metric("sluice_generate_runs_total", "counter", "Runs that ended.", ("result",)),
    Metric("sluice_generate_tokens_total", "counter", "Tokens of runs that ended.", ("direction",)),
    Metric("sluice_generate_first_token_seconds", "histogram", "From the start of a run to its first token."),
    Metric("sluice_generate_token_seconds", "histogram", "Mean time of each further token of a run."),
)
ENGINE: tuple[Metric, ...] = (
    Metric("sluice_engine_running", "gauge", "Requests that the engine computes."),
    Metric("sluice_engine_waiting", "gauge", "Requests in the engine's queue."),
    Metric("sluice_engine_steps_total", "counter", "Steps of the engine."),
    Metric("sluice_engine_batch_fill_ratio", "gauge", "Mean share of slots used per step since the start."),
    Metric("sluice_engine_step_seconds", "gauge", "Time of a step, smoothed."),
    Metric("sluice_engine_computed_tokens_total", "counter", "Tokens that went through the model."),
    Metric("sluice_engine_reused_tokens_total", "counter", "Prompt tokens found in the tenant's own cache."),
    Metric("sluice_engine_preempted_total", "counter", "Requests put back into the queue for room."),
    Metric("sluice_engine_blocks_held", "gauge", "Blocks of the cache in use."),
    Metric("sluice_engine_blocks", "gauge", "Blocks of the cache."),
    Metric("sluice_engine_begun_total", "counter", "Requests taken from the queue."),
    Metric("sluice_engine_queue_seconds_total", "counter", "Seconds that these waited, all together."),
    Metric("sluice_engine_quarantined", "gauge", "Tenants refused because they broke the engine."),
    Metric("sluice_engine_stalled", "gauge", "1 where a step hangs and the process must be replaced."),
)
GPU: tuple[Metric, ...] = (
    Metric("sluice_gpu_memory_used_bytes", "gauge", "Memory in use on the device.", ("device",)),
    Metric("sluice_gpu_memory_bytes", "gauge", "Memory of the device.", ("device",)),
    Metric("sluice_gpu_power_watts", "gauge", "Power drawn by the device.", ("device",)),
    Metric("sluice_gpu_busy_ratio", "gauge", "Share of the last sample in which a kernel ran.", ("device",)),
)
SEAL_AGE = "sluice_seal_age_seconds"
SEAL: tuple[Metric, ...] = (
    Metric(
        SEAL_AGE,
        "gauge",
        "Age of the oldest record that is not sealed and stored; 0 where all are.",
        ("topic", "partition"),
    ),
)
DELIVERIES_OPEN, DELIVERIES_OLDEST = "sluice_deliveries_open", "sluice_deliveries_oldest_seconds"
NOTIFY: tuple[Metric, ...] = (
    Metric(DELIVERIES_OPEN, "gauge", "Alerts that are neither delivered nor given up.", ("partition",)),
    Metric(DELIVERIES_OLDEST, "gauge", "Age of the oldest of them; 0 for none.", ("partition",)),
)
METRICS: dict[str, tuple[Metric, ...]] = {
    "gateway": (*COMMON, *GATEWAY),
    "admit": (*COMMON, *WORKER, *ADMIT),
    "generate": (*COMMON, *WORKER, *GENERATE, *ENGINE, *GPU),
    "seal": (*COMMON, *WORKER, *SEAL),
    "watch": (*COMMON, *WORKER),
    "notify": (*COMMON, *WORKER, *NOTIFY),
}
"""Stage -> every metric that its processes may tell."""


class MetricSample(NamedTuple):
    """The level of a gauge, or of a counter that is kept elsewhere, as it stands when it is asked for."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


ReadingSource = Callable[[], Iterable[MetricSample]]


class Meters:
    """The metrics of a table. A name or label outside it raises KeyError or ValueError."""

    def __init__(self, table: Iterable[Metric]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

        # a series of its own for each counter, which says when this process began to count
        disable_created_metrics()  # type: ignore[no-untyped-call]
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


class LiveReadings:
    """A collector of prometheus_client: asks its sources each time, so what is gone leaves no series behind."""

    def __init__(self) -> None:
        self._table = {metric.name: metric for table in METRICS.values() for metric in table}
        self.sources: list[ReadingSource] = []

    def read(self) -> list[MetricSample]:
        """Give what the sources tell now."""
        return [reading for source in list(self.sources) for reading in source()]

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {}
        for name, value, labels in self.read():
            metric = self._table[name]
            if name not in families:
                family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                families[name] = family(name, metric.help, labels=metric.labels)
            families[name].add_metric(labels, value)
        yield from families.values()
