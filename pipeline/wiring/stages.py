"""One function per process of the pipeline; each serves until ``stop`` is set.

What only one of them needs, it imports itself: six processes start together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.admit.service import admit
from pipeline.config import Settings
from pipeline.gateway.service import gateway
from pipeline.generate.service import generate
from pipeline.kafka.membership import Assign
from pipeline.notify.service import notify
from pipeline.seal.service import seal
from pipeline.watch.service import watch

Stage = Callable[[Settings, asyncio.Event, Assign], Awaitable[None]]
STAGES: dict[str, Stage] = {
    "gateway": gateway,
    "admit": admit,
    "generate": generate,
    "seal": seal,
    "watch": watch,
    "notify": notify,
}
