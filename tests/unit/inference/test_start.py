"""What the start of a worker does not pay for."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOAD = (
    "import sys, inference.model.transformer as m; from inference.engines.torch import shipped_model; "
    "m.load_model(shipped_model())"
)
GENERATE = "import sys, pipeline.generate.partition, pipeline.generate.metrics, pipeline.generate.engines"


@pytest.mark.parametrize(
    ("act", "needless"),
    [
        (LOAD, ["torch._dynamo", "torch._inductor", "sympy", "transformers"]),
        (GENERATE, ["torch", "aiohttp", "clickhouse_connect", "detectors.catalogue"]),
    ],
)
def test_a_worker_imports_neither_compilers_nor_other_stages_parts(act: str, needless: list[str]) -> None:
    look = f"{act}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert not set(needless) & set(loaded)
