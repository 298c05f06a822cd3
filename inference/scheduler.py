"""Which tokens of which requests the next step computes. Pure integer arithmetic, no clock.

Continuous batching (Yu et al., OSDI 2022): requests join and leave between steps. Fairness by
virtual token counters (Sheng et al., OSDI 2024): each tenant's counter grows by the tokens served
to it, the waiting tenant with the smallest counter is admitted next, and a tenant that returns
after idling is lifted to the smallest active counter, so credit cannot be hoarded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

INPUT_WEIGHT = 1
OUTPUT_WEIGHT = 2
"""Price of a token in virtual units; an output token costs a pass of its own."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Compute tokens ``start .. start + count`` of a request into its slot.

    ``last`` is set when these reach the end of what is known, so the next token can be drawn.
    """

    request_id: str
    slot: int
    start: int
    count: int
    last: bool


@dataclass(slots=True)
class _Job:
    tenant: str
    known: int
    fed: int = 0
    slot: int = -1


class QueueFull(Exception):
    """The waiting queue is at its bound; try later or elsewhere."""


class Scheduler:
    """Waiting queue, running set and slots of one engine.

    At most ``slots`` requests run, a step computes at most ``budget`` tokens (at least one for
    each running request that is past its prompt), at most ``max_waiting`` requests wait.
    """

    def __init__(self, *, slots: int, budget: int, max_waiting: int) -> None:
        if slots < 1 or budget < slots or max_waiting < 0:
            raise ValueError("expected slots >= 1, budget >= slots, max_waiting >= 0")
        self._budget = budget
        self._max_waiting = max_waiting
        self._free = list(range(slots - 1, -1, -1))
        self._waiting: dict[str, deque[str]] = {}
        self._jobs: dict[str, _Job] = {}
        self._running: dict[str, None] = {}
        self._counters: dict[str, int] = {}
        self._active: dict[str, int] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._jobs) - len(self._running)

    def counter(self, tenant: str) -> int:
        """Virtual tokens served to a tenant in this busy period."""
        return self._counters.get(tenant, 0)

    def add(self, request_id: str, tenant: str, input_tokens: int) -> None:
        """Queue a request; raises ``QueueFull``, or ``KeyError`` for an id already here."""
        if request_id in self._jobs:
            raise KeyError(request_id)
        if self.waiting >= self._max_waiting + len(self._free):
            raise QueueFull
        if tenant not in self._active:
            floor = min((self._counters[other] for other in self._active), default=0)
            self._counters[tenant] = max(self._counters.get(tenant, 0), floor)
        self._active[tenant] = self._active.get(tenant, 0) + 1
        self._jobs[request_id] = _Job(tenant, input_tokens)
        self._waiting.setdefault(tenant, deque()).append(request_id)

    def remove(self, request_id: str) -> int | None:
        """Forget a request; returns the slot it held, now free, or None if it held none."""
        job = self._jobs.pop(request_id)
        if request_id in self._running:
            del self._running[request_id]
            self._free.append(job.slot)
        else:
            self._dequeue(job.tenant, request_id)
        self._active[job.tenant] -= 1
        if not self._active[job.tenant]:
            del self._active[job.tenant]
            self._forget_idle()
        return job.slot if job.slot >= 0 else None

    def plan(self) -> tuple[Feed, ...]:
        """Admit what fits, then share the step's budget: one token for each answer, then prompts.

        Prompts are cut to what is left of the budget, those of the least served tenant first.
        """
        while self._free and self._waiting:
            self._admit()
        left = self._budget - self.running
        counts = dict.fromkeys(self._running, 1)
        reading = [name for name in self._running if self._pending(name) > 1]
        reading.sort(key=lambda name: self._counters[self._jobs[name].tenant])
        for name in reading:
            extra = min(left, self._pending(name) - 1)
            counts[name] += extra
            left -= extra
        return tuple(self._feed(name, count) for name, count in counts.items())

    def fed(self, feed: Feed, *, drawn: bool) -> None:
        """Record that a planned feed was computed, and whether a token was drawn after it."""
        job = self._jobs[feed.request_id]
        job.fed += feed.count
        if drawn:
            job.known += 1
            self._counters[job.tenant] += OUTPUT_WEIGHT

    def _admit(self) -> None:
        tenant = min(self._waiting, key=lambda name: (self._counters[name], name))
        request_id = self._waiting[tenant].popleft()
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        job = self._jobs[request_id]
        job.slot = self._free.pop()
        self._running[request_id] = None
        self._counters[tenant] += INPUT_WEIGHT * job.known

    def _pending(self, request_id: str) -> int:
        job = self._jobs[request_id]
        return job.known - job.fed

    def _feed(self, request_id: str, count: int) -> Feed:
        job = self._jobs[request_id]
        return Feed(request_id, job.slot, job.fed, count, job.fed + count == job.known)

    def _dequeue(self, tenant: str, request_id: str) -> None:
        self._waiting[tenant].remove(request_id)
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    def _forget_idle(self) -> None:
        """Drop counters that a returning tenant would be lifted above anyway; bounds memory."""
        floor = min((self._counters[name] for name in self._active), default=None)
        self._counters = {
            name: count
            for name, count in self._counters.items()
            if name in self._active or (floor is not None and count > floor)
        }
