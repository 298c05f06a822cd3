"""A local HTTP server that speaks vLLM's chat completions over the echo engine, and others that break the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

from inference.engines.echo import EchoEngine
from inference.types import Chunk, FinishReason, GenerationRequest, SamplingParams, Turn

KEY = "sk-upstream"
CONTEXT = 4096


class ModelServer:
    """Serves on loopback in a thread of its own; what a model's name says is how it misbehaves."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.acting = ""
        """How to misbehave whatever the model's name; empty: as that says."""
        self.broken = threading.Semaphore(0)
        """One for each client that went away in the middle."""
        self._engine = EchoEngine(max_context=CONTEXT)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._completions)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        self.asked.append(asked)
        self.keys.append(request.headers.get("Authorization", ""))
        fault = _FAULTS.get(self.acting or asked["model"])
        try:
            if fault is not None:
                return await fault(request, sum(one["model"] == asked["model"] for one in self.asked))
            return await self._echo(request, asked)
        except (asyncio.CancelledError, ConnectionError):
            self.broken.release()
            raise

    async def _echo(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        turns = tuple(Turn(m["role"], m["content"]) for m in asked["messages"])
        ask = GenerationRequest(f"n{len(self.asked)}", "t", turns, asked["max_tokens"], SamplingParams())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        chunks = self._engine.submit(ask)
        first = await anext(chunks)
        if first.finish is FinishReason.CONTEXT:
            error = {"message": "maximum context length is 4096", "code": 400}
            return web.json_response({"error": error}, status=400)
        await response.prepare(request)
        await response.write(b": hello\r\n\r\n")
        async for chunk in _after(first, chunks):
            ends = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", None: None}
            await response.write(event(chunk.text, ends[chunk.finish], chunk))
        await response.write(event(None, None, chunk) + b"data: [DONE]\n\n")
        return response


async def _after(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    yield first
    if first.finish is None:
        async for chunk in rest:
            yield chunk


def event(text: str | None, finish: str | None = None, chunk: Chunk | None = None) -> bytes:
    """One event; ``text`` None has no choice, ``chunk`` gives the usage."""
    found: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "choices": []}
    if text is not None:
        found["choices"] = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
    if chunk is not None:
        found["usage"] = {"prompt_tokens": chunk.input_tokens, "completion_tokens": chunk.output_tokens}
    return b"data: " + json.dumps(found).encode() + b"\n\n"


Fault = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


def sends(*pieces: bytes, forever: bytes = b"", silent: bool = False) -> Fault:
    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        while forever:
            await response.write(forever)
        if silent:
            await asyncio.Event().wait()
        return response

    return answer


def answers(status: int, times: int, **headers: str) -> Fault:
    """So many answers of this status, then a good one."""

    async def answer(request: web.Request, count: int) -> web.StreamResponse:
        if count <= times:
            return web.Response(status=status, text="the prompt was xyzzy", headers=headers)
        return await sends(event("fine", "stop"), b"data: [DONE]\n\n")(request, count)

    return answer


_FAULTS: dict[str, Fault] = {
    "500 twice": answers(500, 2),
    "500 always": answers(500, 99),
    "429 slow": answers(429, 1, **{"Retry-After": "1"}),
    "401": answers(401, 99),
    "redirect": answers(302, 99, Location="http://127.0.0.1:1/"),
    "no json": sends(event("a "), b"data: {xyzzy\n\n"),
    "other json": sends(event("a "), b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'),
    "error event": sends(event("a "), b'data: {"error": {"message": "xyzzy"}}\n\n'),
    "strange end": sends(event("a ", "xyzzy")),
    "broken off": sends(event("a ")),
    "huge line": sends(event("a "), forever=b"x" * 65_536),
    "endless nothing": sends(event("a "), forever=event("")),
    "endless comments": sends(event("a "), forever=b": xyzzy\n" * 1000),
    "endless text": sends(forever=event("word ")),
    "bare": sends(event("one "), event("two", "stop"), b"data: [DONE]\n\n"),
    "short": sends(event("one "), event("two", "length"), b"data: [DONE]\n\n"),
    "greedy": sends(
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":99999,"completion_tokens":1}}\n\n',
        event("", "stop"),
    ),
    "thinks": sends(
        event("a", "stop"),
        b'data: {"choices":[],"usage":{"completion_tokens":40}}\n\n',
    ),
    "silent": sends(silent=True),
    "falls silent": sends(event("a "), silent=True),
}


@contextlib.contextmanager
def serving() -> Iterator[ModelServer]:
    server = ModelServer()
    try:
        yield server
    finally:
        server.close()
