"""Metrics of a worker: every name of the tables, read from a running engine; of a GPU only where there is one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from inference.engines.echo import EchoEngine
from inference.types import EngineStats, GenerationRequest, Turn
from pipeline.events.messages import Completion
from pipeline.generate.answer import RunUsage
from pipeline.generate.metrics import ENGINE_FIELDS, WorkerMetrics
from pipeline.metrics import ENGINE, GENERATE, GPU


class Unmeasured(Exception):
    pass


def no_power(handle: int) -> int:
    raise Unmeasured


NVML = SimpleNamespace(
    NVMLError=Unmeasured,
    nvmlDeviceGetCount=lambda: 2,
    nvmlDeviceGetHandleByIndex=lambda device: device,
    nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=10 + handle, total=100),
    nvmlDeviceGetPowerUsage=no_power,
    nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=50),
)


def rendered(metrics: WorkerMetrics) -> str:
    return metrics.meters.render().decode()


def test_every_metric_of_the_tables_is_served() -> None:
    async def run() -> str:
        engine = EchoEngine()
        metrics = WorkerMetrics(engine)
        async for _ in engine.submit(GenerationRequest("r", "secret-tenant", (Turn("user", "xyzzy b c"),), 9)):
            pass
        metrics.observe(Completion("r", "o", "secret-tenant", "finished", "w", "a"), RunUsage(3, 3, 50, 250))
        return rendered(metrics)

    text = asyncio.run(run())
    for metric in (*GENERATE, *ENGINE):
        assert f"\n# TYPE {metric.name} " in f"\n{text}" or f"\n# TYPE {metric.name.removesuffix('_total')}" in text
    assert 'sluice_generate_runs_total{result="finished"} 1.0' in text
    assert 'sluice_generate_tokens_total{direction="output"} 3.0' in text
    assert "sluice_generate_token_seconds_sum 0.1" in text
    assert "sluice_engine_steps_total 3.0" in text
    assert "sluice_gpu" not in text
    assert "secret" not in text
    assert "xyzzy" not in text


def test_every_engine_metric_is_a_field_of_the_stats() -> None:
    assert set(ENGINE_FIELDS.values()) <= set(EngineStats.__slots__)
    assert list(ENGINE_FIELDS) == [metric.name for metric in ENGINE]


def test_a_device_tells_what_it_measures_and_no_zero_for_the_rest() -> None:
    text = rendered(WorkerMetrics(EchoEngine(), NVML))
    assert 'sluice_gpu_memory_used_bytes{device="1"} 11.0' in text
    assert 'sluice_gpu_busy_ratio{device="0"} 0.5' in text
    assert "sluice_gpu_power_watts" not in text
    assert {m.name for m in GPU if m.name in text} == {m.name for m in GPU} - {"sluice_gpu_power_watts"}
