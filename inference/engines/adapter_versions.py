"""Adapters of tenants: when first asked for, out of the registry into the engine of the version they were made for.

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
from inference.registry.rollout import choose

MAX_ADAPTERS = 256
"""Of one worker; what is rolled out anew counts again, until the worker starts anew."""
AGAIN_S = 60.0
"""One that could not be loaded is tried again after so long."""
Open = Callable[[str, int], OpenModel]
Shares = Callable[[str], Mapping[int, int]]
Digest = Callable[[str, int], str]


class Bases(Protocol):
    """The versions of one model that are served."""

    @property
    def model(self) -> str: ...
    def holds(self, tenant: str, name: str) -> bool: ...
    def adopt(self, tenant: str, name: str, version: int, folder: Path) -> None:
        """Blocks. Raises Refused, ValueError."""


class Adapters:
    """``open_`` gives one version of an adapter, verified; ``shares`` what each version of it gets; ``digest`` the
    SHA-256 of a version's signed manifest. All block."""

    def __init__(
        self, open_: Open, shares: Shares, digest: Digest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open, self._shares, self._digest, self._clock = open_, shares, digest, clock
        self._lock = asyncio.Lock()
        self._held: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], tuple[float, ModelRefused]] = {}

    async def name(self, bases: Bases, tenant: str, adapter: str, request_id: str) -> str:
        """The name, ADAPTER@VERSION, under which ``bases`` hold the version that the request falls on.

        Raises Refused.
        """
        shares = await asyncio.to_thread(self._shares, adapter)
        if not shares:
            raise ModelRefused("rollout", f"{adapter}: expected a version with traffic, got none: sluice model roll")
        version = choose(shares, adapter, request_id)
        name = f"{adapter}@{version}"
        if bases.holds(tenant, name):
            return name
        async with self._lock:
            if not bases.holds(tenant, name):
                await self._load(bases, tenant, name, (adapter, version))
        return name

    async def _load(self, bases: Bases, tenant: str, name: str, which: tuple[str, int]) -> None:
        key = (tenant, name)
        since, before = self._refused.get(key, (0.0, None))
        if before is not None and self._clock() < since + AGAIN_S:
            raise before
        try:
            if key not in self._held and len(self._held) >= MAX_ADAPTERS:
                raise ModelRefused(
                    "unknown", f"{name}: expected at most {MAX_ADAPTERS} adapters in a worker; start it anew"
                )
            await asyncio.to_thread(self._hang, bases, key, which)
        except Exception as fault:
            # also what a device or a library raises, or each further request would read the files again
            why = fault if isinstance(fault, ValueError | OSError) else type(fault).__name__
            told = fault if isinstance(fault, ModelRefused) else ModelRefused("content", f"{name}: {why}")
            self._refused[key] = (self._clock(), told)
            raise told from fault
        self._refused.pop(key, None)
        self._held.add(key)

    def _hang(self, bases: Bases, key: tuple[str, str], which: tuple[str, int]) -> None:
        with self._open(*which) as opened:
            parent = opened.manifest.parent
            if opened.manifest.kind != "adapter" or parent is None or parent.model != bases.model:
                raise ModelRefused(
                    "content", f"{key[1]}: expected an adapter of {bases.model}, got another kind of model"
                )
            if self._digest(parent.model, parent.version) != parent.manifest:
                raise ModelRefused(
                    "content",
                    f"{key[1]}: made for another {parent.model} version {parent.version} than the one here; train it "
                    "on this one",
                )
            bases.adopt(*key, parent.version, opened.folder)
