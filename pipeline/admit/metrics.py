"""Every metric of an admit worker: a closed table. Labels are reasons, never tenants or text."""

from __future__ import annotations

from pipeline.admit.partition import DROPPED, OVERSHOOT
from pipeline.metrics import Meters, Metric

METRICS: tuple[Metric, ...] = (
    Metric(DROPPED, "counter", "Completions that ended nothing.", ("reason",)),
    Metric(OVERSHOOT, "counter", "Tokens used above what was reserved, by models of another's server."),
)


class AdmitMetrics(Meters):
    """Metrics of one worker, over all its partitions."""

    def __init__(self) -> None:
        super().__init__(METRICS)
