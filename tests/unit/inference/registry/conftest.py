"""A small signed model, keys and a registry for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.registry.dsse import Trust
from inference.registry.keys import ECDSA, MANIFEST_ALGORITHMS, SigningKey
from inference.registry.release import ReleaseTerms, sign_folder
from inference.registry.store import ModelRegistry
from tests.unit.inference.registry.registry_site import NOW_MS, Clock, FakeKms, make_model

Release = Callable[..., Path]
LATER = NOW_MS // 1000 + 1_000_000


@pytest.fixture(scope="session")
def keys() -> dict[str, SigningKey]:
    """One key of each algorithm."""
    return {name: SigningKey.generate(name) for name in (*MANIFEST_ALGORITHMS, ECDSA)}


@pytest.fixture(scope="session")
def trust(keys: dict[str, SigningKey]) -> Trust:
    """Wants all three signatures."""
    return Trust([keys[name].public for name in MANIFEST_ALGORITHMS], MANIFEST_ALGORITHMS)


@pytest.fixture
def release(tmp_path: Path, keys: dict[str, SigningKey]) -> Release:
    """Makes a signed folder of a version."""

    def make(version: int = 1, *, model: str = "tiny", expires: int = LATER, **more: bytes) -> Path:
        folder = make_model(tmp_path / f"release-{model}-{version}", version, more)
        sign_folder(
            folder,
            list(keys.values()),
            ReleaseTerms(
                model=model, version=version, licence="Apache-2.0", issued=NOW_MS // 1000 - 10, expires=expires
            ),
        )
        return folder

    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kms() -> FakeKms:
    return FakeKms()


@pytest.fixture
def registry(tmp_path: Path, trust: Trust, clock: Clock) -> ModelRegistry:
    return ModelRegistry(tmp_path / "registry", trust, actor="alice", clock=clock)
