"""Sends the script through the stock OpenAI client, curl, and signed Kafka records, and keeps what each caller saw."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from pipeline.demo.cast import Cast
from pipeline.demo.script import ClientKind, Scene, ScriptedRequest
from pipeline.errors import PipelineError
from pipeline.producer.client import Producer
from pipeline.producer.outcomes import Refused

_SAMPLES = 6
_LONG_S = 60.0


@dataclass(slots=True)
class TrafficSeen:
    """What callers saw: per tenant, an answer or the reason; every surprise in words."""

    answers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    doors: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    samples: dict[str, str] = field(default_factory=dict)
    """A few questions with their answers."""


class Callers:
    """One client per principal and door; use as an async context manager."""

    def __init__(self, url: str, cast: Cast, seen: TrafficSeen) -> None:
        self._url, self._cast, self.seen = url, cast, seen
        # one pool of connections for all: each would read the certificates of the world anew
        self._http = DefaultAsyncHttpxClient()
        self._openai = {
            who: AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=_LONG_S, http_client=self._http)
            for who, key in cast.keys.items()
        }
        self._producers: dict[str, Producer] = {}

    async def __aenter__(self) -> Callers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        for producer in self._producers.values():
            await producer.close()

    async def play(self, scene: Scene, tick: Callable[[], None]) -> None:
        """Send the lines of a scene, as many together as it says."""
        for who in {line.principal for line in scene.lines if line.door == "kafka"} - self._producers.keys():
            self._producers[who] = Producer(self._url, self._cast.keys[who])
            await self._producers[who].start()
        room = asyncio.Semaphore(scene.together)

        async def one(line: ScriptedRequest) -> None:
            async with room:
                await self._send(line)
            tick()

        await asyncio.gather(*(one(line) for line in scene.lines))

    async def _send(self, line: ScriptedRequest) -> None:
        ways: dict[ClientKind, Callable[[ScriptedRequest], Awaitable[str]]] = {
            "openai": self._chat,
            "openai-stream": self._stream,
            "curl": self._curl,
            "kafka": self._record,
        }
        text = reason = ""
        try:
            text = await ways[line.door](line)
        except Refused as refused:
            reason = refused.code
        except APIStatusError as error:
            reason = _code(error.body)
        except (PipelineError, aiohttp.ClientError, OpenAIError, TimeoutError, OSError) as error:
            reason = type(error).__name__
        self._note(line, text, reason)

    def _note(self, line: ScriptedRequest, text: str, reason: str) -> None:
        tenant = line.principal.split("-")[0]
        self.seen.doors[line.door] += 1
        if reason:
            self.seen.refusals[tenant, reason] += 1
        else:
            self.seen.answers[tenant] += 1
            if len(self.seen.samples) < _SAMPLES:
                self.seen.samples[line.messages[-1][1]] = text.strip()
        if reason not in line.right:
            expected = " or ".join(right or "an answer" for right in line.right)
            self.seen.surprises.append(f"{line.principal} by {line.door}: expected {expected}, got {reason or 'one'}")

    async def _chat(self, line: ScriptedRequest) -> str:
        answer = await self._openai[line.principal].chat.completions.create(
            model="glossary", messages=_openai_turns(line), max_tokens=line.max_tokens
        )
        return answer.choices[0].message.content or ""

    async def _stream(self, line: ScriptedRequest) -> str:
        pieces, usage = [], None
        async for chunk in await self._openai[line.principal].chat.completions.create(
            model="glossary",
            messages=_openai_turns(line),
            max_tokens=line.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            pieces += [choice.delta.content or "" for choice in chunk.choices]
        if usage is None:
            self.seen.surprises.append(f"{line.principal}: a stream without usage")
        return "".join(pieces)

    async def _curl(self, line: ScriptedRequest) -> str:
        body = json.dumps({"messages": _turns(line), "model": "glossary", "max_tokens": line.max_tokens})
        headers = {"Authorization": f"Bearer {self._cast.keys[line.principal]}", "Content-Type": "application/json"}
        if shutil.which("curl"):
            raw = await _run_curl(f"{self._url}/inference", headers, body)
        else:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{self._url}/inference", data=body) as answer,
            ):
                raw = await answer.read()
        found = json.loads(raw)
        if "error" in found:
            raise Refused(0, _code(found), "")
        return str(found["text"])

    async def _record(self, line: ScriptedRequest) -> str:
        ticket = await self._producers[line.principal].submit(
            _turns(line), model="glossary", max_tokens=line.max_tokens
        )
        return (await ticket.result()).text


async def _run_curl(url: str, headers: dict[str, str], body: str) -> bytes:
    # the key goes in by standard input: arguments are visible to every user of the machine
    config = "".join(f'header = "{name}: {value}"\n' for name, value in headers.items())
    config += f'url = "{url}"\ndata = {json.dumps(body)}\nsilent\nmax-time = {_LONG_S:.0f}\n'
    curl = await asyncio.create_subprocess_exec(
        "curl", "--config", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    raw, _ = await curl.communicate(config.encode())
    return raw


def _turns(line: ScriptedRequest) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in line.messages]


def _openai_turns(line: ScriptedRequest) -> Any:
    # the client has a type of its own for each role; a document is a tool's result to it
    roles = {"document": "tool"}
    turns = [{"role": roles.get(role, role), "content": content} for role, content in line.messages]
    return [turn | {"tool_call_id": "page"} if turn["role"] == "tool" else turn for turn in turns]


def _code(body: object) -> str:
    found = body if isinstance(body, dict) else {}
    inner = found.get("error", found)
    return str(inner.get("code") or inner.get("type") or "unknown")
