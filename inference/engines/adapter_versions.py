"""Adapters of tenants, loaded from the registry when first asked for, into the version they were made for.

An adapter is a model of the registry: signed, encrypted, rolled out by share, and bound by its manifest to the base
version whose weights it changes. Torch is not needed here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from inference.registry.opening import OpenModel
from inference.registry.refusal import ModelRefused
from inference.registry.traffic import choose

MAX_ADAPTERS = 256
"""Adapters of one worker; a version rolled out later counts too, until the worker starts anew."""
RETRY_S = 60.0
"""Seconds after which an adapter that could not be loaded is tried again."""
Open = Callable[[str, int], OpenModel]
Shares = Callable[[str], Mapping[int, int]]
Digest = Callable[[str, int], str]


class Bases(Protocol):
    """The versions of one model that are served."""

    @property
    def model(self) -> str: ...
    def has_adapter(self, tenant: str, name: str) -> bool: ...
    def load_adapter(self, tenant: str, name: str, version: int, folder: Path) -> None:
        """Load an adapter into one version; blocks. Raises ModelRefused, ValueError."""


class Adapters:
    """Loads adapters for one model's engine.

    ``open_`` gives one version of an adapter, verified; ``shares`` the traffic of each of its versions; ``digest`` the
    SHA-256 of a version's signed manifest. All block.
    """

    def __init__(
        self, open_: Open, shares: Shares, digest: Digest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open = open_
        self._shares = shares
        self._digest = digest
        self._clock = clock
        self._lock = asyncio.Lock()
        self._loaded: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], tuple[float, ModelRefused]] = {}

    async def name(self, bases: Bases, tenant: str, adapter: str, request_id: str) -> str:
        """The name, ADAPTER@VERSION, under which ``bases`` have the version that the request falls on.

        Raises ModelRefused.
        """
        shares = await asyncio.to_thread(self._shares, adapter)
        if not shares:
            raise ModelRefused("rollout", f"{adapter}: expected a version with traffic, got none: sluice model roll")
        version = choose(shares, adapter, request_id)
        name = f"{adapter}@{version}"
        if bases.has_adapter(tenant, name):
            return name
        async with self._lock:
            if not bases.has_adapter(tenant, name):
                await self._load(bases, tenant, name, (adapter, version))
        return name

    async def _load(self, bases: Bases, tenant: str, name: str, which: tuple[str, int]) -> None:
        """Load ``which`` (adapter, version) under a tenant's name, or refuse it again for a while."""
        key = (tenant, name)
        since, before = self._refused.get(key, (0.0, None))
        if before is not None and self._clock() < since + RETRY_S:
            raise before
        try:
            if key not in self._loaded and len(self._loaded) >= MAX_ADAPTERS:
                raise ModelRefused(
                    "unknown", f"{name}: expected at most {MAX_ADAPTERS} adapters in a worker; start it anew"
                )
            await asyncio.to_thread(self._load_verified, bases, key, which)
        except Exception as fault:
            # also what a device or a library raises, or each further request would read the files again
            reason = fault if isinstance(fault, ValueError | OSError) else type(fault).__name__
            refusal = fault if isinstance(fault, ModelRefused) else ModelRefused("content", f"{name}: {reason}")
            self._refused[key] = (self._clock(), refusal)
            raise refusal from fault
        self._refused.pop(key, None)
        self._loaded.add(key)

    def _load_verified(self, bases: Bases, key: tuple[str, str], which: tuple[str, int]) -> None:
        with self._open(*which) as opened:
            parent = opened.manifest.parent
            if opened.manifest.kind != "adapter" or parent is None or parent.model != bases.model:
                raise ModelRefused(
                    "content", f"{key[1]}: expected an adapter of {bases.model}, got another kind of model"
                )
            if self._digest(parent.model, parent.version) != parent.manifest:
                raise ModelRefused(
                    "content",
                    f"{key[1]}: expected an adapter of the weights here, got one made for another {parent.model} "
                    f"version {parent.version}; train it on these",
                )
            bases.load_adapter(*key, parent.version, opened.folder)
