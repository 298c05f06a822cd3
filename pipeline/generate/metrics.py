"""Counts the runs of a generate worker, and reads its engine and devices.

The engine's counters are read when they are asked for; tokens by tenant are in the sealed outcomes, not here. Metrics
of a GPU (NVML, the optional extra ``gpu``) are absent where there is none: no zero stands for an unmeasured figure.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from inference.types import EngineStats, InferenceEngine
from pipeline.events.messages import Completion
from pipeline.generate.answer import RunUsage
from pipeline.metrics import ENGINE, GENERATE, GPU, Meters

ENGINE_FIELDS = {
    "sluice_engine_running": "running",
    "sluice_engine_waiting": "waiting",
    "sluice_engine_steps_total": "steps",
    "sluice_engine_batch_fill_ratio": "batch_fill",
    "sluice_engine_step_seconds": "step_s",
    "sluice_engine_computed_tokens_total": "computed",
    "sluice_engine_reused_tokens_total": "reused",
    "sluice_engine_preempted_total": "preempted",
    "sluice_engine_blocks_held": "blocks_held",
    "sluice_engine_blocks": "blocks_total",
    "sluice_engine_begun_total": "begun",
    "sluice_engine_queue_seconds_total": "waited_s",
    "sluice_engine_quarantined": "quarantined",
    "sluice_engine_stalled": "stalled",
}
"""Metric of an engine -> the field of EngineStats that it tells."""


class WorkerMetrics:
    """Metrics of one worker and its engine. ``nvml`` is the module, or None where it is not installed."""

    def __init__(self, engine: InferenceEngine, nvml: Any = None) -> None:
        self.meters = Meters(GENERATE)
        self.meters.registry.register(_EngineMetrics(engine))
        if nvml is not None:
            self.meters.registry.register(_GpuMetrics(nvml))

    def observe(self, completion: Completion, usage: RunUsage) -> None:
        """Count a run that ended."""
        count, took = self.meters.count, self.meters.took
        count("sluice_generate_runs_total", completion.result)
        count("sluice_generate_tokens_total", "input", by=usage.input_tokens)
        count("sluice_generate_tokens_total", "output", by=usage.output_tokens)
        if usage.first_token_ms:
            took("sluice_generate_first_token_seconds", usage.first_token_ms / 1000)
        if usage.output_tokens > 1:
            rest = usage.last_token_ms - usage.first_token_ms
            took("sluice_generate_token_seconds", rest / 1000 / (usage.output_tokens - 1))


def find_nvml() -> Any:
    """NVIDIA's management library, started; None where package, driver or device is absent."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return nvml if nvml.nvmlDeviceGetCount() else None
    except nvml.NVMLError:
        return None


class _EngineMetrics:
    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        stats: EngineStats = self._engine.stats()
        for metric in ENGINE:
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            yield family(metric.name, metric.help, value=float(getattr(stats, ENGINE_FIELDS[metric.name])))


class _GpuMetrics:
    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {m.name: GaugeMetricFamily(m.name, m.help, labels=m.labels) for m in GPU}
        for device in range(self._nvml.nvmlDeviceGetCount()):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(device)
            for name, read in _READS.items():
                # some devices measure only part of it
                with contextlib.suppress(self._nvml.NVMLError):
                    families[name].add_metric([str(device)], read(self._nvml, handle))
        yield from (family for family in families.values() if family.samples)


_READS: dict[str, Any] = {
    "sluice_gpu_memory_used_bytes": lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle).used,
    "sluice_gpu_memory_bytes": lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle).total,
    "sluice_gpu_power_watts": lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    "sluice_gpu_busy_ratio": lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
}
