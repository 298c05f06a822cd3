"""Which engine the settings make."""

from __future__ import annotations

from pathlib import Path

from inference.engines.echo import EchoEngine
from inference.remote.engine import RemoteEngine
from pipeline.config import Generate, Keys, Models
from pipeline.generate.engines import make_engine, make_trace


def test_an_upstream_is_served_under_its_models_name(tmp_path: Path) -> None:
    keys = Keys(home=tmp_path / "keys")
    ours = Generate(model="qwen", upstream="http://127.0.0.1:8000/v1", upstream_context=999)
    engine = make_engine(ours, Models(home=tmp_path / "models"), keys)
    assert isinstance(engine, RemoteEngine)
    assert (engine.models, engine.max_context) == (("qwen",), 999)
    assert keys.watermark_key.exists()


def test_echo_needs_no_keys(tmp_path: Path) -> None:
    keys = Keys(home=tmp_path / "keys")
    assert isinstance(make_engine(Generate(model="echo"), Models(home=tmp_path), keys), EchoEngine)
    assert make_trace(Generate(fingerprints=False), keys) is None
    assert not keys.home.exists()
    assert make_trace(Generate(), keys) is not None
