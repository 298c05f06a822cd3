"""Every metric of an admit worker: a closed table. Labels are reasons, never tenants or text."""

from __future__ import annotations

from pipeline.admit.partition import DROPPED
from pipeline.metrics import Meters, Metric

METRICS: tuple[Metric, ...] = (Metric(DROPPED, "counter", "Completions that ended nothing.", ("reason",)),)


class AdmitMetrics(Meters):
    """Metrics of one worker, over all its partitions."""

    def __init__(self) -> None:
        super().__init__(METRICS)
