"""Sends the scenarios through the stock OpenAI client, curl, and signed Kafka records, and reports what callers saw."""

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

from pipeline.demo.people import Credentials
from pipeline.demo.scenarios import ClientKind, Scenario, ScriptedRequest
from pipeline.errors import PipelineError
from pipeline.producer.client import Producer
from pipeline.producer.outcomes import Refused

_SAMPLES = 6
_LONG_S = 60.0


@dataclass(slots=True)
class TrafficReport:
    """Answers and refusals as callers saw them, and each surprise in words."""

    answers: Counter[str] = field(default_factory=Counter)
    """By tenant."""
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By tenant and reason."""
    calls: Counter[str] = field(default_factory=Counter)
    """By kind of client."""
    surprises: list[str] = field(default_factory=list)
    samples: dict[str, str] = field(default_factory=dict)
    """A few questions with their answers."""


class Clients:
    """One client per principal and kind; use as an async context manager."""

    def __init__(self, url: str, credentials: Credentials, report: TrafficReport) -> None:
        self._url = url
        self._credentials = credentials
        self._report = report
        # one pool of connections for all: each would read the certificates of the world anew
        self._http = DefaultAsyncHttpxClient()
        self._openai = {
            principal: AsyncOpenAI(
                base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=_LONG_S, http_client=self._http
            )
            for principal, key in credentials.keys.items()
        }
        self._producers: dict[str, Producer] = {}

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        for producer in self._producers.values():
            await producer.close()

    async def send(self, scenario: Scenario, advance: Callable[[], None]) -> None:
        """Send the requests of a scenario, as many at a time as it says."""
        direct = {request.principal for request in scenario.requests if request.client == "kafka"}
        for principal in direct - self._producers.keys():
            self._producers[principal] = Producer(self._url, self._credentials.keys[principal])
            await self._producers[principal].start()
        limit = asyncio.Semaphore(scenario.concurrency)

        async def one(request: ScriptedRequest) -> None:
            async with limit:
                await self._send(request)
            advance()

        await asyncio.gather(*(one(request) for request in scenario.requests))

    async def _send(self, request: ScriptedRequest) -> None:
        senders: dict[ClientKind, Callable[[ScriptedRequest], Awaitable[str]]] = {
            "openai": self._chat,
            "openai-stream": self._stream,
            "curl": self._curl,
            "kafka": self._record,
        }
        text = reason = ""
        try:
            text = await senders[request.client](request)
        except Refused as refused:
            reason = refused.code
        except APIStatusError as error:
            reason = _code(error.body)
        except (PipelineError, aiohttp.ClientError, OpenAIError, TimeoutError, OSError) as error:
            reason = type(error).__name__
        self._count(request, text, reason)

    def _count(self, request: ScriptedRequest, text: str, reason: str) -> None:
        tenant = request.principal.split("-")[0]
        report = self._report
        report.calls[request.client] += 1
        if reason:
            report.refusals[tenant, reason] += 1
        else:
            report.answers[tenant] += 1
            if len(report.samples) < _SAMPLES:
                report.samples[request.messages[-1][1]] = text.strip()
        if reason not in request.expected:
            expected = " or ".join(reason or "an answer" for reason in request.expected)
            got = reason or "an answer"
            report.surprises.append(f"{request.principal} by {request.client}: expected {expected}, got {got}")

    async def _chat(self, request: ScriptedRequest) -> str:
        answer = await self._openai[request.principal].chat.completions.create(
            model="glossary", messages=_openai_turns(request), max_tokens=request.max_tokens
        )
        return answer.choices[0].message.content or ""

    async def _stream(self, request: ScriptedRequest) -> str:
        texts = []
        usage = None
        async for chunk in await self._openai[request.principal].chat.completions.create(
            model="glossary",
            messages=_openai_turns(request),
            max_tokens=request.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            texts += [choice.delta.content or "" for choice in chunk.choices]
        if usage is None:
            self._report.surprises.append(f"{request.principal}: expected usage at the end of a stream, got none")
        return "".join(texts)

    async def _curl(self, request: ScriptedRequest) -> str:
        body = json.dumps({"messages": _turns(request), "model": "glossary", "max_tokens": request.max_tokens})
        key = self._credentials.keys[request.principal]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if shutil.which("curl"):
            raw = await _run_curl(f"{self._url}/inference", headers, body)
        else:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{self._url}/inference", data=body) as answer,
            ):
                raw = await answer.read()
        document = json.loads(raw)
        if "error" in document:
            raise Refused(0, _code(document), "")
        return str(document["text"])

    async def _record(self, request: ScriptedRequest) -> str:
        ticket = await self._producers[request.principal].submit(
            _turns(request), model="glossary", max_tokens=request.max_tokens
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


def _turns(request: ScriptedRequest) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in request.messages]


def _openai_turns(request: ScriptedRequest) -> Any:
    # the client has a type of its own for each role; a document is a tool's result to it
    roles = {"document": "tool"}
    turns = [{"role": roles.get(role, role), "content": content} for role, content in request.messages]
    return [turn | {"tool_call_id": "page"} if turn["role"] == "tool" else turn for turn in turns]


def _code(body: object) -> str:
    document = body if isinstance(body, dict) else {}
    error = document.get("error", document)
    return str(error.get("code") or error.get("type") or "unknown")
