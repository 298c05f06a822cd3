"""Plans the next step: its requests, their tokens and blocks. Pure integer arithmetic, no clock.

Continuous batching (Yu et al., OSDI 2022): requests join and leave between steps. A step computes one token for each
answer first, then prompts in chunks, up to a budget of tokens (Sarathi-Serve, Agrawal et al., OSDI 2024). The order is
decided by virtual token counters (``fairness``) alone: never by the contents of the cache, which would let one tenant
see another's prompts in the order of answers (PromptPeek, NDSS 2025). Where blocks run out, the newest request of the
most served tenant is preempted: it gives up its blocks and is computed again later. So is, where all slots are taken, a
request of a tenant that holds more than its equal part of them, for one of a tenant that holds less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from inference.batching.blocks import BlockPool, BlockTable, NoBlocks
from inference.batching.fairness import INPUT_PRICE, OUTPUT_PRICE, WEIGHT, VirtualCounters
from inference.batching.waiting import Job, WaitingQueues
from inference.ports import ScheduledTokens


@dataclass(slots=True)
class SchedulerTotals:
    """Totals since the start: tokens computed, prompt tokens found in the cache, requests preempted."""

    computed: int = 0
    reused: int = 0
    preempted: int = 0


class QueueFull(Exception):
    """The waiting queue is at its bound; try later or elsewhere."""


class Scheduler:
    """Waiting queues, running set and block tables of one engine.

    At most ``slots`` requests run, a step computes at most ``budget`` tokens (at least one for each running request),
    and at most ``max_waiting`` requests wait (more only of tenants that hold less than their part of the queue). Every
    request must fit ``pool`` alone.
    """

    def __init__(self, *, slots: int, budget: int, max_waiting: int, pool: BlockPool) -> None:
        if slots < 1 or budget < slots or max_waiting < 0:
            got = f"{slots}, {budget} and {max_waiting}"
            raise ValueError(f"expected slots >= 1, budget >= slots and max_waiting >= 0, got {got}")
        self.pool = pool
        self.counters = VirtualCounters()
        self.totals = SchedulerTotals()
        self.slots = self._most_slots = slots
        self.budget = self._most_budget = budget
        self._waiting = WaitingQueues(self.counters, max_waiting)
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._admissions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(
        self, request_id: str, tenant: str, tokens: Sequence[int], *, root: bytes = b"", weight: int = WEIGHT
    ) -> None:
        """Queue a request; raises ``QueueFull``, or ``KeyError`` for an id already here.

        ``tokens`` is read again at every step. An empty ``root`` keeps the request out of the prefix cache.
        """
        if request_id in self._jobs:
            raise KeyError(request_id)
        if self._waiting.is_full_for(tenant, self.slots - self.running):
            raise QueueFull
        self.counters.enter(tenant)
        job = Job(request_id, tenant, tokens, root, weight)
        self._jobs[request_id] = job
        self._waiting.append(job)

    def remove(self, request_id: str, *, spoiled: bool = False) -> None:
        """Forget a request and give up its blocks; ``spoiled`` keeps those it named from being found again."""
        job = self._jobs.pop(request_id)
        if self._running.pop(request_id, None) is None:
            self._waiting.remove(job)
        self.pool.release(job.table, spoiled=spoiled)
        self.counters.leave(job.tenant)

    def plan(self) -> tuple[ScheduledTokens, ...]:
        """Admit the requests that fit, then share the step's budget: one token for each answer, then prompts.

        Prompts are cut to the rest of the budget, those of the least served tenant first. ``pool.moves`` must be
        carried out before the tokens are computed.
        """
        while self._waiting and self._admit():
            pass
        for job in list(self._running.values()):
            if job.request_id in self._running:
                self._grow(job)
        counts = dict.fromkeys(self._running, 1)
        left = self.budget - self.running
        prompts = [job for job in self._running.values() if job.pending > 1]
        prompts.sort(key=lambda job: self.counters[job.tenant])
        for job in prompts:
            extra = min(left, job.pending - 1)
            counts[job.request_id] += extra
            left -= extra
        return tuple(self._scheduled(self._running[request_id], count) for request_id, count in counts.items())

    def computed(self, scheduled: ScheduledTokens, *, drawn: bool) -> None:
        """Record that planned tokens were computed; ``drawn`` where a token is drawn after them."""
        job = self._jobs[scheduled.request_id]
        job.computed += scheduled.count
        self.totals.computed += scheduled.count
        if job.root and job.computed // self.pool.size > len(job.table.keys):
            self.pool.name_full(job.table, job.tokens[: job.computed])
        if drawn:
            self.counters.charge(job.tenant, OUTPUT_PRICE, job.weight)

    def shrink(self) -> bool:
        """Halve the slots and the budget of a step, after memory ran out; False where they are at their least."""
        if self.running <= 1 and self.budget <= 1:
            return False
        self.slots = max(1, self.running // 2)
        self.budget = max(self.slots, self.budget // 2)
        while self.running > self.slots:
            self._preempt(next(reversed(self._running.values())))
        return True

    def grow_back(self) -> None:
        """One slot and a share of the budget more, towards the sizes before ``shrink``."""
        self.slots = min(self._most_slots, self.slots + 1)
        self.budget = max(self.slots, min(self._most_budget, self.budget * 2))

    def queue_position(self, request_id: str) -> int | None:
        """Number of waiting requests that go before this one by the counters of now; None where it does not wait."""
        if request_id not in self._jobs or request_id in self._running:
            return None
        return self._waiting.ahead_of(request_id)

    def _admit(self) -> bool:
        """Start the next request; False where there is no slot or no block for it."""
        job = self._waiting.next()
        if self.running >= self.slots and not self._make_room(job.tenant):
            return False
        table = self.pool.match(job.root, job.tokens) if job.root else BlockTable(job.root)
        # a block to grow into for each that runs, or the newcomer would soon be preempted
        need = self.pool.needed(len(job.tokens) + 1) - len(table.blocks) + self.running
        if self.running and self.pool.available < need:
            self.pool.release(table)
            return False
        job.computed = self.pool.fork(table, job.tokens) if job.root else 0
        job.table = table
        self.pool.extend(table, len(job.tokens))
        self._start(job)
        return True

    def _start(self, job: Job) -> None:
        self._waiting.remove(job)
        self._running[job.request_id] = job
        self._admissions += 1
        job.admission = self._admissions
        self.totals.reused += job.computed
        if not job.charged:
            self.counters.charge(job.tenant, INPUT_PRICE * job.pending, job.weight)
            job.charged = True

    def _make_room(self, tenant: str) -> bool:
        """Preempt a request of a tenant with more than an equal part of the slots, if ``tenant`` has less."""
        part = max(1, self.slots // self.counters.active)
        slots = Counter(job.tenant for job in self._running.values())
        above = [owner for owner, count in slots.items() if count > part]
        if slots[tenant] >= part or not above:
            return False
        self._preempt(self._newest_of(self.counters.most(above)))
        return True

    def _grow(self, job: Job) -> None:
        """Take blocks up to the next token; where there are none, preempt others, or the request itself."""
        while job.request_id in self._running:
            try:
                self.pool.extend(job.table, job.computed + 1)
                break
            except NoBlocks:
                tenants = {other.tenant for other in self._running.values()}
                self._preempt(self._newest_of(self.counters.most(tenants)))

    def _newest_of(self, tenant: str) -> Job:
        return max((job for job in self._running.values() if job.tenant == tenant), key=lambda job: job.admission)

    def _preempt(self, job: Job) -> None:
        """Put a running request back at the head of its tenant's queue, without its blocks."""
        del self._running[job.request_id]
        self.pool.release(job.table)
        job.computed = 0
        self.totals.preempted += 1
        self._waiting.put_back(job)

    def _scheduled(self, job: Job, count: int) -> ScheduledTokens:
        end = job.computed + count
        blocks = tuple(job.table.blocks[: self.pool.needed(end)])
        return ScheduledTokens(job.request_id, job.computed, count, end == len(job.tokens), blocks)
