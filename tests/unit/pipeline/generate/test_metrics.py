"""Metrics of a worker: every name of the tables, read from a running engine; of a GPU only where there is one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiohttp

from inference.engines.echo import EchoEngine
from inference.types import EngineStats, GenerationRequest, Turn
from pipeline.embedded.supervisor import free_port
from pipeline.events.messages import Completion
from pipeline.generate.answer import RunUsage
from pipeline.generate.metrics import ENGINE_METRICS, GPU_METRICS, METRICS, WorkerMetrics
from pipeline.status_server import served_status


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
        engine, port = EchoEngine(), free_port()
        metrics = WorkerMetrics(engine)
        async for _ in engine.submit(GenerationRequest("r", "secret-tenant", (Turn("user", "xyzzy b c"),), 9)):
            pass
        metrics.observe(Completion("r", "o", "secret-tenant", "finished", "w", "a"), RunUsage(3, 3, 50, 250))
        url = f"http://127.0.0.1:{port}/metrics"
        serving = served_status("127.0.0.1", port, tuple, metrics.meters.render)
        async with serving, aiohttp.ClientSession() as http, http.get(url) as answer:
            return await answer.text()

    text = asyncio.run(run())
    for metric in (*METRICS, *(metric for metric, _ in ENGINE_METRICS)):
        assert f"\n# TYPE {metric.name} " in f"\n{text}" or f"\n# TYPE {metric.name.removesuffix('_total')}" in text
    assert 'sluice_generate_runs_total{result="finished"} 1.0' in text
    assert 'sluice_generate_tokens_total{direction="output"} 3.0' in text
    assert "sluice_generate_token_seconds_sum 0.1" in text
    assert "sluice_engine_steps_total 3.0" in text
    assert "sluice_gpu" not in text
    assert "secret" not in text
    assert "xyzzy" not in text


def test_every_engine_metric_is_a_field_of_the_stats() -> None:
    assert {field for _, field in ENGINE_METRICS} <= set(EngineStats.__slots__)


def test_a_device_tells_what_it_measures_and_no_zero_for_the_rest() -> None:
    text = rendered(WorkerMetrics(EchoEngine(), NVML))
    assert 'sluice_gpu_memory_used_bytes{device="1"} 11.0' in text
    assert 'sluice_gpu_busy_ratio{device="0"} 0.5' in text
    assert "sluice_gpu_power_watts" not in text
    assert {m.name for m in GPU_METRICS if m.name in text} == {m.name for m in GPU_METRICS} - {"sluice_gpu_power_watts"}
