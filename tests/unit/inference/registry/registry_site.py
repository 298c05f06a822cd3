"""Doubles and small models."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

NOW_MS = 1_700_000_000_000
WEIGHTS = "model.safetensors"


class Clock:
    """Unix milliseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = NOW_MS

    def __call__(self) -> int:
        return self.now


class FakeKms:
    """Wraps by spelling out the context; opens only under the same."""

    def wrap(self, secret: bytes, context: str) -> str:
        return f"{context}|{base64.b64encode(secret).decode()}"

    def unwrap(self, wrapped: str, context: str) -> bytes:
        bound, _, secret = wrapped.partition("|")
        assert bound == context
        return base64.b64decode(secret)


def make_model(folder: Path, seed: int, more: Mapping[str, bytes]) -> Path:
    """Weights over more than one chunk, a config and a tokenizer; ``more`` by name, dots for double underscores."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    weights = {"w": draw.standard_normal((300_000,), dtype=np.float32), "b": draw.standard_normal(3, dtype=np.float32)}
    (folder / WEIGHTS).write_bytes(save(weights))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 4, "model_type": "llama"}))
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"auto_map": 0}}}')
    for name, raw in more.items():
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder
