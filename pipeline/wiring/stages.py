"""One function per process of the pipeline; each serves until ``stop`` is set.

What only one of them needs, it imports itself: six processes start together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from pipeline.admit.service import admit
from pipeline.config import Settings
from pipeline.gateway.service import gateway
from pipeline.generate.service import generate
from pipeline.kafka.membership import Assign
from pipeline.notify.service import notify
from pipeline.seal.service import seal
from pipeline.watch.service import watch


class RunStage(Protocol):
    """A stage's process: it serves until ``stop`` is set, its partitions assigned or shared out by the broker."""

    def __call__(self, settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> Coroutine[Any, Any, None]: ...


STAGES: dict[str, RunStage] = {
    "gateway": gateway,
    "admit": admit,
    "generate": generate,
    "seal": seal,
    "watch": watch,
    "notify": notify,
}
