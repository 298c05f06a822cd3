"""Acts on the model registry as records of ``access``: each attempt, done or refused, in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from inference.registry.event_forwarder import Forwarder
from inference.registry.events import RegistryEvent
from inference.registry.refusal import ModelRefused
from pipeline.errors import Retryable
from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.kafka.writer import Publisher
from pipeline.topics import partition_of

_log = logging.getLogger(__name__)
_LOOK_S = 1.0


class ModelActs:
    """Forwards the acts of one registry's folder; several processes may do this for one folder."""

    def __init__(self, home: Path, publisher: Publisher, partitions: int) -> None:
        self._forwarder = Forwarder(home)
        self._publisher = publisher
        self._partitions = partitions

    async def forward(self) -> int:
        """Write the acts that are not in ``access`` yet; gives the count. Raises Retryable, ModelRefused, OSError."""
        with self._forwarder.pending() as events:
            for event in events:
                await self._publisher.send("access", partition_of(b"", self._partitions), b"", encode(act(event)))
            return len(events)

    async def follow(self, stop: asyncio.Event) -> None:
        """Write acts as they come until ``stop``, and what came just before it."""
        while True:
            try:
                await self.forward()
            except (Retryable, ModelRefused, OSError) as fault:
                _log.error("model acts are not in the log yet: %s", fault)
            if stop.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)


def act(event: RegistryEvent) -> Access:
    """``model.load``, ``model.export.refused``, …; the target names model and version."""
    verb = f"model.{event.act}" if event.outcome == "done" else f"model.{event.act}.{event.outcome}"
    return Access(event.time, event.actor, verb, target=f"{event.model}@{event.version}")
