"""Adapters out of a registry: loaded once, into the version they were made for, and what does not fit is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.engines import adapter_versions as adapters
from inference.engines.adapter_versions import RETRY_S, Adapters
from inference.engines.echo import EchoEngine
from inference.engines.versions import VersionedEngine
from inference.registry.manifest import ModelManifest, Parent
from inference.registry.refusal import ModelRefused
from inference.types import Chunk, GenerationRequest, Turn

DIGEST = "a" * 64


class Adoptive(EchoEngine):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[tuple[str, str]] = []

    def load_adapter(self, tenant: str, name: str, folder: Path) -> None:
        if name.startswith("bad"):
            raise ValueError("adapter_config.json: expected a rank of 1 to 256, got 0")
        if name.startswith("vast"):
            raise RuntimeError("out of memory")
        self.loaded.append((tenant, name))

    async def submit(self, request: GenerationRequest) -> Any:
        """As if it knew the adapter."""
        async for chunk in super().submit(GenerationRequest(request.request_id, request.tenant, request.turns, 8)):
            yield chunk


class Shelf:
    """Registry double: every adapter has version 1, or what ``shares`` says."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.shares: dict[str, dict[int, int]] = {}
        self.kind, self.parent, self.now = "adapter", Parent("base", 2, DIGEST), 0.0

    @contextmanager
    def _open(self, name: str, version: int) -> Iterator[Any]:
        self.opened.append(f"{name}@{version}")
        manifest = ModelManifest(name, version, self.kind, "MIT", 0, 1, (), self.parent)  # type: ignore[arg-type]
        yield type("Opened", (), {"manifest": manifest, "folder": Path("nowhere")})()

    def engine(self) -> tuple[VersionedEngine, dict[int, Adoptive]]:
        made = {version: Adoptive() for version in (1, 2)}
        found = Adapters(
            self._open,  # type: ignore[arg-type]
            lambda name: self.shares.get(name, {1: 10_000}),
            lambda model, version: DIGEST,
            lambda: self.now,
        )
        return VersionedEngine("base", made.__getitem__, lambda: {1: 5_000, 2: 5_000}, found), made


def asked(tenant: str, adapter: str, name: str = "r") -> GenerationRequest:
    return GenerationRequest(name, tenant, (Turn("user", "hello"),), 8, adapter=adapter)


async def answer(engine: VersionedEngine, request: GenerationRequest) -> Chunk:
    return [chunk async for chunk in engine.submit(request)][-1]


def test_it_is_loaded_once_and_answers_from_its_own_version() -> None:
    async def run() -> None:
        shelf = Shelf()
        engine, made = shelf.engine()
        found = await asyncio.gather(*(engine.with_adapter(asked("t", "tone", f"r{n}")) for n in range(8)))
        assert {request.adapter for request in found} == {"tone@1"}
        assert shelf.opened == ["tone@1"]
        assert (made[1].loaded, made[2].loaded) == ([], [("t", "tone@1")])
        assert {(await answer(engine, request)).version for request in found} == {2}
        last = await answer(engine, asked("other", "tone@1"))
        assert "none of that name" in (last.error or "")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("changes", "adapter", "told"),
    [
        ({"kind": "base"}, "tone", "expected an adapter of base"),
        ({"parent": Parent("else", 2, DIGEST)}, "tone", "expected an adapter of base"),
        ({"parent": Parent("base", 3, DIGEST)}, "tone", "gets no traffic here"),
        ({"parent": Parent("base", 2, "b" * 64)}, "tone", "another base version 2"),
        ({"shares": {"tone": {}}}, "tone", "sluice model roll"),
        ({}, "bad", "expected a rank"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], adapter: str, told: str) -> None:
    shelf = Shelf()
    vars(shelf).update(changes)
    engine, made = shelf.engine()
    with pytest.raises(ModelRefused, match=told):
        asyncio.run(engine.with_adapter(asked("t", adapter)))
    assert not any(each.loaded for each in made.values())


@pytest.mark.parametrize("adapter", ["bad", "vast"])
def test_one_that_failed_is_not_read_again_at_every_request(adapter: str) -> None:
    async def run() -> None:
        shelf = Shelf()
        engine, _ = shelf.engine()
        for _ in range(3):
            with pytest.raises(ModelRefused):
                await engine.with_adapter(asked("t", adapter))
        assert len(shelf.opened) == 1
        shelf.now = RETRY_S
        with pytest.raises(ModelRefused):
            await engine.with_adapter(asked("t", adapter))
        assert len(shelf.opened) == 2

    asyncio.run(run())


def test_a_worker_holds_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        engine, _ = Shelf().engine()
        await engine.with_adapter(asked("t", "one"))
        await engine.with_adapter(asked("t", "two"))
        with pytest.raises(ModelRefused, match="at most 2 adapters"):
            await engine.with_adapter(asked("t", "three"))
        assert (await engine.with_adapter(asked("t", "one"))).adapter == "one@1"

    monkeypatch.setattr(adapters, "MAX_ADAPTERS", 2)
    asyncio.run(run())


def test_an_engine_without_a_registry_takes_none() -> None:
    engine = VersionedEngine("base", lambda version: EchoEngine(), lambda: {1: 10_000})
    with pytest.raises(ModelRefused, match="without adapters"):
        asyncio.run(engine.with_adapter(asked("t", "tone")))
