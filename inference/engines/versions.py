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
from inference.registry.traffic import choose, without
from inference.types import Chunk, EngineStats, GenerationRequest, InferenceEngine, InvalidRequest, QueuePosition

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_RETRY_S = 60.0
"""Seconds after which shares with a version that could not be loaded are tried again; at once when they change."""
Load = Callable[[int], InferenceEngine]
Shares = Callable[[], Mapping[int, int]]
Revoked = Callable[[], Collection[int]]


@runtime_checkable
class LoadsAdapters(Protocol):
    """An engine that can load a tenant's adapter while it runs."""

    def load_adapter(self, tenant: str, name: str, folder: Path) -> None: ...


class VersionedEngine:
    """An ``InferenceEngine`` over versions of ``model``; the last chunk of an answer names the one that gave it.

    ``shares`` gives the traffic of each version in basis points, ``revoked`` the versions that get none in any case,
    ``load`` makes the engine of one; all may block. ``adapters`` loads those of tenants; a request with one goes to the
    version that it was made for. Raises ModelRefused, ValueError or OSError where a version with traffic cannot be
    loaded, or none has any.
    """

    def __init__(
        self, model: str, load: Load, shares: Shares, adapters: Adapters | None = None, revoked: Revoked = frozenset
    ) -> None:
        self.model = model
        self._load = load
        self._read = shares
        self._adapters = adapters
        self._revoked = revoked
        self._loaded: dict[tuple[str, str], tuple[int, InferenceEngine]] = {}
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

    async def with_adapter(self, request: GenerationRequest) -> GenerationRequest:
        """The request with its adapter loaded, and named ADAPTER@VERSION instead of as in the registry.

        Raises ModelRefused.
        """
        if self._adapters is None:
            raise ModelRefused("unknown", f"{self.model}: served without adapters")
        name = await self._adapters.name(self, request.tenant, request.adapter, request.request_id)
        return replace(request, adapter=name)

    def has_adapter(self, tenant: str, name: str) -> bool:
        """True where a version with traffic has loaded this adapter."""
        version, engine = self._loaded.get((tenant, name), (0, None))
        # a version that came back is another engine, without the adapters of the one before
        return engine is not None and version in self._shares and self._engines.get(version) is engine

    def load_adapter(self, tenant: str, name: str, version: int, folder: Path) -> None:
        """Load an adapter into the version that it was made for; blocks. Raises ModelRefused, ValueError."""
        engine = self._engines.get(version) if version in self._shares else None
        if engine is None or not isinstance(engine, LoadsAdapters):
            raise ModelRefused(
                "rollout", f"{name}: made for {self.model} version {version}, which gets no traffic here"
            )
        engine.load_adapter(tenant, name, folder)
        self._loaded[tenant, name] = (version, engine)

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``."""
        return any(engine.cancel(request_id) for engine in self._engines.values())

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``."""
        for engine in list(self._engines.values()):
            position = await engine.queue_position(request_id)
            if position is not None:
                return position
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
        """Apply shares as they change, until ``stop``."""
        logged, until = "", 0.0
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)
                return
            try:
                await self.refresh()
            except Exception as fault:
                # of any kind: without this loop no later roll-out or revocation would be heard of either
                reason = str(fault) if isinstance(fault, ValueError | OSError) else type(fault).__name__
                now = asyncio.get_running_loop().time()
                if reason != logged or now >= until:
                    # a registry that cannot be read would be logged each second
                    logged, until = reason, now + _RETRY_S
                    _log.error("%s: the shares before stay in force: %s", self.model, reason)

    async def refresh(self) -> None:
        """Apply the shares as they are now.

        Raises the fault of loading; the shares before stay then, but for revoked versions.
        """
        shares, revoked = await asyncio.to_thread(lambda: (dict(self._read()), tuple(self._revoked())))
        kept, shares = _unrevoked(self._shares, revoked), _unrevoked(shares, revoked)
        if kept != self._shares:
            # at once, as the versions asked for now may not load
            self._swap(kept, {})
        now = asyncio.get_running_loop().time()
        if shares == self._shares or (shares == self._refused and now < self._refused_at + _RETRY_S):
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
            # cancelling and asking for a position must still reach it, so it leaves the table when it has ended
            task = asyncio.create_task(self._retire(version))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _version(self, request: GenerationRequest) -> int:
        if not self._shares:
            raise InvalidRequest("model: no version of it may be served; roll one out")
        if not request.adapter:
            return choose(self._shares, self.model, request.request_id)
        if not self.has_adapter(request.tenant, request.adapter):
            # the same words whether another tenant has it or none
            raise InvalidRequest("adapter: this tenant has none of that name")
        return self._loaded[request.tenant, request.adapter][0]

    async def _retire(self, version: int) -> None:
        """Let a version finish what it has begun; it may have come back meanwhile."""
        engine = self._engines[version]
        while version not in self._shares and self._open[version]:  # noqa: ASYNC110 - rare, and no caller waits for it
            await asyncio.sleep(_LOOK_S / 4)
        if version not in self._shares and self._engines.get(version) is engine:
            del self._engines[version]
            await engine.close()


def _unrevoked(shares: Mapping[int, int], revoked: Collection[int]) -> dict[int, int]:
    left = dict(shares)
    for version in revoked:
        left = without(left, version)
    return left
