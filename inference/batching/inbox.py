"""Requests on their way between event loops and the worker thread, all under one lock. No torch.

Callers put into the inbox from any thread. The worker takes out all that came since its last step, and hands each event
loop its chunks of a step in one call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from inference.batching.sequence import Sequence
from inference.types import Chunk, EngineClosed, InvalidRequest, QueuePosition

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class OpenRequest:
    """A request as its caller sees it: its sequence, and the chunks that arrive on the caller's loop."""

    sequence: Sequence
    loop: asyncio.AbstractEventLoop
    chunks: asyncio.Queue[Chunk] = field(default_factory=asyncio.Queue)

    @property
    def request_id(self) -> str:
        return self.sequence.request.request_id


@dataclass(eq=False, slots=True)
class LoopFuture(Generic[T]):
    """A future of an event loop that another thread resolves."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]

    @classmethod
    def create(cls) -> LoopFuture[T]:
        """A future of the running loop."""
        loop = asyncio.get_running_loop()
        return cls(loop, loop.create_future())

    def resolve(self, value: T) -> None:
        """Set the result, from any thread."""
        _call(self.loop, self._set, value)

    def _set(self, value: T) -> None:
        if not self.future.done():
            self.future.set_result(value)


@dataclass(frozen=True, slots=True)
class PositionQuery:
    """A caller's question for the queue position of a request."""

    request_id: str
    answer: LoopFuture[QueuePosition | None]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """All that came in since the worker's last step. ``leaving`` are request ids; ``stopping`` ends the worker."""

    joining: list[OpenRequest]
    leaving: list[str]
    queries: list[PositionQuery]
    stopping: bool


class RequestInbox:
    """The open requests of one engine, and everything that its worker has not seen yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[str, OpenRequest] = {}
        self._joining: list[OpenRequest] = []
        self._leaving: list[OpenRequest] = []
        self._queries: list[PositionQuery] = []
        self._drains: list[LoopFuture[None]] = []
        self._refusing = False
        self._stopping = False

    def require_open(self) -> None:
        """Raise ``EngineClosed`` where no more requests are taken."""
        if self._refusing:
            raise EngineClosed("the engine is draining; send the request to another one")

    def enter(self, request: OpenRequest) -> None:
        """Let a request join. Raises ``EngineClosed``, or ``InvalidRequest`` for an id that is open."""
        with self._changed:
            # asked again under the lock: a drain that saw no open request has returned by now
            self.require_open()
            if request.request_id in self._open:
                raise InvalidRequest("request_id: a request of this id is already running")
            self._open[request.request_id] = request
            self._joining.append(request)
            self._changed.notify()

    def leave(self, request: OpenRequest) -> None:
        """Ask for the early end of a request."""
        with self._changed:
            self._leaving.append(request)
            self._changed.notify()

    def find(self, request_id: str) -> OpenRequest | None:
        """The open request of an id."""
        with self._changed:
            return self._open.get(request_id)

    async def position(self, request_id: str) -> QueuePosition | None:
        """The worker's answer, None for a request that is not open."""
        with self._changed:
            if request_id not in self._open or self._stopping:
                return None
            query = PositionQuery(request_id, LoopFuture.create())
            self._queries.append(query)
            self._changed.notify()
        return await query.answer.future

    async def drain(self) -> None:
        """Refuse further requests; returns when none is open."""
        with self._changed:
            self._refusing = True
            if not self._open:
                return
            ended: LoopFuture[None] = LoopFuture.create()
            self._drains.append(ended)
        await ended.future

    def stop(self) -> None:
        """Refuse further requests and end the worker."""
        with self._changed:
            self._refusing = self._stopping = True
            self._changed.notify()

    def take(self) -> Arrivals:
        """All that came in; waits while there is nothing to do."""
        with self._changed:
            while not (self._leaving or self._stopping or self._open or self._queries):
                self._changed.wait()
            # a request that ended on its own must not take out a later one of the same id
            leaving = [one.request_id for one in self._leaving if self._open.get(one.request_id) is one]
            if self._stopping:
                leaving = list(self._open)
            arrivals = Arrivals(self._joining, leaving, self._queries, self._stopping)
            self._joining = []
            self._leaving = []
            self._queries = []
        return arrivals

    def deliver(self, chunks: Iterable[Chunk]) -> None:
        """Hand out chunks, and wake who waits for the last answer."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OpenRequest, Chunk]]] = {}
        with self._changed:
            for chunk in chunks:
                request = self._open.get(chunk.request_id)
                if request is None:  # given up while its step hung
                    continue
                by_loop.setdefault(request.loop, []).append((request, chunk))
                if chunk.finish is not None:
                    del self._open[chunk.request_id]
            ended: list[LoopFuture[None]] = []
            if not self._open:
                ended, self._drains = self._drains, []
        for loop, batch in by_loop.items():
            if not _call(loop, _put, batch):
                for request, _ in batch:
                    self.leave(request)
        for drain in ended:
            drain.resolve(None)

    def give_up(self) -> list[OpenRequest]:
        """Refuse further requests, answer open queries, end the worker; the open requests, which have to be ended."""
        with self._changed:
            self._refusing = self._stopping = True
            requests = list(self._open.values())
            queries, self._queries = self._queries, []
        for query in queries:
            query.answer.resolve(None)
        return requests


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> bool:
    """Run a function on a loop; False when that loop is gone."""
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:
        return False
    return True


def _put(batch: list[tuple[OpenRequest, Chunk]]) -> None:
    for request, chunk in batch:
        request.chunks.put_nowait(chunk)
