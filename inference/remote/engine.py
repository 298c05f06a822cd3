"""An ``InferenceEngine`` over HTTP. No torch: the model, its cache and its batches are the server's.

Bounds, deadlines, retries before the first token, and a cache salt per tenant stay here, so that a server that keeps
prefixes shares none between tenants.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp

from inference.batching.streams import StreamEngine
from inference.bounds import MAX_DEADLINE_S
from inference.remote.answer import RemoteAnswer
from inference.remote.wire import Event, EventLines, UpstreamFault, body, read_event
from inference.types import (
    Chunk,
    ContextExceeded,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    QueuePosition,
)

ATTEMPTS = 3
"""Times that one request is sent at most; never again once text has come."""
PAUSE_S = 0.2
"""Before the second attempt; twice as long before each further one, or what ``Retry-After`` says up to MAX_PAUSE_S."""
MAX_PAUSE_S = 5.0
IDLE_S = 120.0
"""Longest silence of a server in the middle of an answer, or before it."""
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_FAULT_BYTES = 4096
_T = TypeVar("_T")


class _Cancelled(Exception):
    """``cancel`` was called while the request waited for its server."""


@dataclass(eq=False, slots=True)
class _RemoteRun:
    """One request under way, with its deadline and a way to cancel it."""

    request: GenerationRequest
    until: float
    """Deadline in the loop's time."""
    idle_s: float
    cancelled: bool = False
    scope: asyncio.Timeout | None = field(default=None)

    async def within(self, act: Awaitable[_T]) -> _T:
        """The result of ``act``. Raises _Cancelled, or UpstreamFault where it takes too long."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now if self.cancelled else min(now + self.idle_s, self.until)) as self.scope:
                return await act
        except TimeoutError:
            if self.cancelled:
                raise _Cancelled from None
            if asyncio.get_running_loop().time() >= self.until:
                raise UpstreamFault("no answer by the deadline", FinishReason.DEADLINE) from None
            raise UpstreamFault(f"the model server said nothing for {self.idle_s:g} s", again=True) from None
        finally:
            self.scope = None

    def cancel(self) -> None:
        self.cancelled = True
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(asyncio.get_running_loop().time())


class RemoteEngine(StreamEngine[_RemoteRun]):
    """Serves ``model`` of the server at ``url`` (up to and with ``/v1``); of one event loop at a time.

    ``key`` is sent as bearer token. ``salt_key`` derives the tenants' cache salts: the same for all workers of a
    deployment. ``max_context`` is the model's there; the server has the last word on the length of an input, as only
    it has the tokenizer. Each attempt has a connection of its own, which ends with the answer or its cancelling. A step
    is one event of one answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        salt_key: bytes,
        key: str = "",
        max_context: int = 4096,
        max_running: int = 256,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__((model,), max_context, max_running)
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._salt_key, self._idle_s = salt_key, idle_s
        self._headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``; the queue is the server's and not told."""
        return QueuePosition(0, None) if request_id in self._open else None

    def _accept(self, request: GenerationRequest) -> _RemoteRun:
        if request.sampling.logprobs:
            raise InvalidRequest("logprobs: this engine tells none")
        if request.max_tokens >= self.max_context:
            raise ContextExceeded(f"expected max_tokens below {self.max_context}, got {request.max_tokens}")
        left = MAX_DEADLINE_S if request.deadline_s is None else request.deadline_s
        return _RemoteRun(request, asyncio.get_running_loop().time() + left, self._idle_s)

    async def _answer(self, run: _RemoteRun) -> AsyncGenerator[Chunk, None]:
        answer = RemoteAnswer(run.request)
        try:
            async with contextlib.aclosing(self._events(run)) as events:
                async for event in events:
                    self._steps += 1
                    chunk = answer.accept(event)
                    if chunk is not None:
                        yield chunk
                        if chunk.finish is not None:
                            return
            last = answer.whole()
            if last is None:
                raise UpstreamFault("the model server broke off in the middle of an answer")
            yield last
        except _Cancelled:
            yield answer.end(FinishReason.CANCELLED)
        except UpstreamFault as fault:
            begun = answer.output_tokens > 0
            yield answer.end(FinishReason.ERROR if begun else fault.finish, str(fault))

    async def _events(self, run: _RemoteRun) -> AsyncGenerator[Event, None]:
        """Events of the first attempt that gives any."""
        for attempt in range(1, ATTEMPTS + 1):
            begun, pause = False, PAUSE_S * 2 ** (attempt - 1)
            try:
                async with contextlib.aclosing(self._attempt(run)) as events:
                    async for event in events:
                        begun = begun or bool(event.text or (event.usage and event.usage.completion_tokens))
                        yield event
                return
            except UpstreamFault as fault:
                if begun or not fault.again or attempt == ATTEMPTS:
                    raise
                pause = min(MAX_PAUSE_S, max(pause, fault.pause_s))
            await run.within(asyncio.sleep(pause))

    async def _attempt(self, run: _RemoteRun) -> AsyncGenerator[Event, None]:
        request = run.request
        salt = hmac.digest(self._salt_key, request.tenant.encode(), "sha256").hex()
        document = body(request, self.models[0], salt)
        limits = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=limits, headers=self._headers, auto_decompress=False
        ) as session:
            try:
                response = await run.within(session.post(self._url, json=document, allow_redirects=False))
                try:
                    await self._require_stream(run, response)
                    async with contextlib.aclosing(self._read(run, response)) as events:
                        async for event in events:
                            yield event
                finally:
                    response.close()
            except (aiohttp.ClientError, OSError):
                raise UpstreamFault("the model server cannot be reached or broke off", again=True) from None

    async def _require_stream(self, run: _RemoteRun, response: aiohttp.ClientResponse) -> None:
        if response.status == 200:
            return
        if response.status == 400:
            said = await run.within(response.content.read(_FAULT_BYTES))
            if b"context" in said:
                error = f"input and max_tokens together are more than the model's context of {self.max_context}"
                raise UpstreamFault(error, FinishReason.CONTEXT)
        wait = response.headers.get("Retry-After", "")
        again, pause = response.status in _RETRIED, float(wait) if wait.isdecimal() and len(wait) < 9 else 0.0
        raise UpstreamFault(f"the model server answered {response.status}", again=again, pause_s=pause)

    async def _read(self, run: _RemoteRun, response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
        lines = EventLines(run.request.max_tokens)
        while raw := await run.within(response.content.readany()):
            for payload in lines.push(raw):
                if run.cancelled:
                    raise _Cancelled
                if payload == b"[DONE]":
                    return
                yield read_event(payload)
