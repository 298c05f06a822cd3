"""Several versions of one model in one worker: each request goes to the version that its id falls on.

Shares may change while requests run. A version that comes is loaded before it gets traffic; one that goes answers what
it has begun, then it is closed. So rolling out and back loses no request and moves none from one version to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from inference.batching.sequence import failure
from inference.engines.adapter_versions import Adapters
from inference.registry.refusal import ModelRefused
from inference.registry.rollout import choose, without
from inference.types import Chunk, EngineStats, GenerationRequest, InferenceEngine, InvalidRequest, QueuePosition

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_AGAIN_S = 60.0
"""Shares with a version that could not be loaded are tried again after so long, or when they change."""
Load = Callable[[int], InferenceEngine]
Shares = Callable[[], Mapping[int, int]]
Revoked = Callable[[], Collection[int]]


@runtime_checkable
class Adopting(Protocol):
    """An engine into which a tenant's adapter is hung while it runs."""

    def adopt(self, tenant: str, name: str, folder: Path) -> None: ...


class VersionedEngine:
    """An ``InferenceEngine`` over versions of ``model``; the last chunk of an answer names the one that gave it.

    ``shares`` tells what each version gets in basis points, ``revoked`` which get nothing whatever the shares,
    ``load`` makes the engine of one; all may block. ``adapters`` finds those of tenants; a request with one goes to the
    version that it was made for. Raises Refused, ValueError or OSError where a version with traffic cannot be loaded,
    or none has any.
    """

    def __init__(
        self, model: str, load: Load, shares: Shares, adapters: Adapters | None = None, revoked: Revoked = frozenset
    ) -> None:
        self.model = model
        self._load, self._read, self._adapters, self._revoked = load, shares, adapters, revoked
        self._adopted: dict[tuple[str, str], tuple[int, InferenceEngine]] = {}
        self._shares = dict(shares())
        if not self._shares:
            raise ModelRefused("rollout", f"{model}: expected a version with traffic, got none: sluice model roll")
        self._engines = {version: load(version) for version in sorted(self._shares)}
        self.models: tuple[str, ...] = (model,)
        self._open: Counter[int] = Counter()
        """Requests under way by version."""
        self._retiring: set[asyncio.Task[None]] = set()
        self._refused: dict[int, int] = {}
        self._refused_at = 0.0

    @property
    def max_context(self) -> int:
        """Most tokens of a request that any version with traffic takes."""
        return min((engine.max_context for engine in self._engines.values()), default=0)

    @property
    def versions(self) -> tuple[int, ...]:
        """Those that get traffic now, rising."""
        return tuple(sorted(self._shares))

    async def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """See ``InferenceEngine.submit``."""
        try:
            version = self._version(request)
        except InvalidRequest as fault:
            yield failure(request.request_id, fault)
            return
        self._open[version] += 1
        try:
            async with contextlib.aclosing(self._engines[version].submit(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk if chunk.finish is None else replace(chunk, version=version)
        finally:
            self._open[version] -= 1

    async def adapted(self, request: GenerationRequest) -> GenerationRequest:
        """The request with its adapter, named as in the registry, hung in and named as here. Raises Refused."""
        if self._adapters is None:
            raise ModelRefused("unknown", f"{self.model}: served without adapters")
        name = await self._adapters.name(self, request.tenant, request.adapter, request.request_id)
        return replace(request, adapter=name)

    def holds(self, tenant: str, name: str) -> bool:
        """Whether a version with traffic has this adapter."""
        version, engine = self._adopted.get((tenant, name), (0, None))
        # a version that came back is another engine, without what was hung into the one before
        return engine is not None and version in self._shares and self._engines.get(version) is engine

    def adopt(self, tenant: str, name: str, version: int, folder: Path) -> None:
        """Hang an adapter into the version that it was made for; blocks. Raises Refused, ValueError."""
        engine = self._engines.get(version) if version in self._shares else None
        if engine is None or not isinstance(engine, Adopting):
            raise ModelRefused(
                "rollout", f"{name}: made for {self.model} version {version}, which gets no traffic here"
            )
        engine.adopt(tenant, name, folder)
        self._adopted[tenant, name] = (version, engine)

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``."""
        return any(engine.cancel(request_id) for engine in self._engines.values())

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``."""
        for engine in list(self._engines.values()):
            place = await engine.queue_position(request_id)
            if place is not None:
                return place
        return None

    async def drain(self) -> None:
        """See ``InferenceEngine.drain``."""
        await asyncio.gather(*(engine.drain() for engine in self._engines.values()))

    def stats(self) -> EngineStats:
        """See ``InferenceEngine.stats``: those of the version with the most traffic."""
        if not self._engines:
            return EngineStats(0, 0, 0, 0, 0.0)
        busiest = max(self._engines, key=lambda version: (self._shares.get(version, 0), version))
        return self._engines[busiest].stats()

    async def close(self) -> None:
        """See ``InferenceEngine.close``."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))

    async def follow(self, stop: asyncio.Event) -> None:
        """Take on shares as they change, until ``stop``."""
        said, until = "", 0.0
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)
                return
            try:
                await self.look()
            except Exception as fault:
                # whatever a loader raises: who follows no more never hears of a later roll-out or revocation either
                told = str(fault) if isinstance(fault, ValueError | OSError) else type(fault).__name__
                now = asyncio.get_running_loop().time()
                if told != said or now >= until:
                    # a registry that cannot be read cannot be read each second
                    said, until = told, now + _AGAIN_S
                    _log.error("%s: the shares before stay in force: %s", self.model, told)

    async def look(self) -> None:
        """Take on the shares as they are now. What loading raises is raised; the ones before stay then, but for what
        was revoked."""
        shares, revoked = await asyncio.to_thread(lambda: (dict(self._read()), tuple(self._revoked())))
        kept, shares = _unrevoked(self._shares, revoked), _unrevoked(shares, revoked)
        if kept != self._shares:
            # whether or not what is asked for now can be loaded
            self._swap(kept, {})
        now = asyncio.get_running_loop().time()
        if shares == self._shares or (shares == self._refused and now < self._refused_at + _AGAIN_S):
            return
        made: dict[int, InferenceEngine] = {}
        try:
            for version in sorted(shares.keys() - self._engines.keys()):
                made[version] = await asyncio.to_thread(self._load, version)
        except BaseException:
            self._refused, self._refused_at = shares, now
            await asyncio.gather(*(engine.close() for engine in made.values()))
            raise
        self._swap(shares, made)

    def _swap(self, shares: dict[int, int], made: dict[int, InferenceEngine]) -> None:
        _log.info("%s: traffic by version, in basis points: %s", self.model, shares)
        self._engines |= made
        self._shares, self._refused = shares, {}
        for version in sorted(self._engines.keys() - shares.keys()):
            # cancelling and asking for a place must still reach it, so it leaves the table when it has ended
            task = asyncio.create_task(self._retire(version))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _version(self, request: GenerationRequest) -> int:
        if not self._shares:
            raise InvalidRequest("model: no version of it may be served; roll one out")
        if not request.adapter:
            return choose(self._shares, self.model, request.request_id)
        if not self.holds(request.tenant, request.adapter):
            # the same words whether it is another's or nobody's
            raise InvalidRequest("adapter: this tenant has none of that name")
        return self._adopted[request.tenant, request.adapter][0]

    async def _retire(self, version: int) -> None:
        """Let a version finish what it has begun; it may have come back meanwhile."""
        engine = self._engines[version]
        while version not in self._shares and self._open[version]:  # noqa: ASYNC110 - rare, and nobody waits for it
            await asyncio.sleep(_LOOK_S / 4)
        if version not in self._shares and self._engines.get(version) is engine:
            del self._engines[version]
            await engine.close()


def _unrevoked(shares: Mapping[int, int], revoked: Collection[int]) -> dict[int, int]:
    left = dict(shares)
    for version in revoked:
        left = without(left, version)
    return left
