"""GENERATE answers one admitted request by a stream of encrypted chunks and one completion.

Reads ``work``, ``control``; writes ``completions``, ``responses``, ``findings``. Owns nothing that outlives a run: a
run that is lost is run again under another attempt, and admit takes the first completion that arrives.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from detectors.base import Finding
from inference.types import (
    Chunk,
    FinishReason,
    GenerationRequest,
    MarkAccount,
    QueuePosition,
    SamplingParams,
    TokenLogprob,
    Turn,
)
from pipeline.events import logprobs
from pipeline.events.codec import encode
from pipeline.events.messages import Completion, FindingEvent, Response, Work
from pipeline.events.records import Result, Watermark
from pipeline.events.wire import Message
from pipeline.generate.guard import cleaned, verdict, withheld_for

MARKED_TEMPERATURE = 0.7
"""A degraded answer is drawn at this temperature at least: the watermark lies in the choice of words."""
_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "document": "user"}
_RESULTS: dict[FinishReason, Result] = {
    FinishReason.STOP: "finished",
    FinishReason.LENGTH: "finished",
    FinishReason.CANCELLED: "cancelled",
    FinishReason.CONTEXT: "failed",
    FinishReason.DEADLINE: "expired",
    FinishReason.ERROR: "failed",
}


class Guard(Protocol):
    """A guard looks at the output as it streams: some of it may leave now, some waits, some is a finding."""

    def push(self, text: str) -> str: ...
    def flush(self) -> str: ...
    @property
    def verdict(self) -> str:
        """release, redact, withhold or review; withhold ends the answer."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]: ...


Encrypt = Callable[[str, bytes], bytes]
"""Field name and plaintext to encrypted bytes, for one request."""
Trace = Callable[[str], bytes]
"""Delivered text to the fingerprints by which a copy is found."""


def generation(work: Work, messages: Sequence[Message]) -> GenerationRequest:
    """Ask the engine; documents are read as the user's words."""
    return GenerationRequest(
        request_id=work.request,
        tenant=work.tenant,
        turns=tuple(Turn(_ROLES[m.role], m.content) for m in cleaned(work, messages)),
        max_tokens=work.max_tokens,
        sampling=_sampling(work),
        weight=work.weight,
        risk=work.risk / 100,
        adapter=work.adapter,
        estimated=work.estimated,
    )


def _sampling(work: Work) -> SamplingParams:
    """Give the sampling parameters. A degraded answer tells no log-probabilities and leaves the watermark a choice of
    words."""
    sampling = msgspec.structs.asdict(work.sampling)
    # the engine counts the likeliest tokens, and tells the drawn one's with at least one of them
    top = sampling.pop("top_logprobs")
    asked = SamplingParams(**{**sampling, "logprobs": max(1, top) if sampling["logprobs"] else 0})
    if not work.degrade:
        return asked
    return dataclasses.replace(
        asked,
        temperature=max(asked.temperature, MARKED_TEMPERATURE),
        top_k=0 if asked.top_k == 1 else asked.top_k,
        logit_bias=(),
        logprobs=0,
    )


@dataclass(slots=True)
class RunUsage:
    """A run takes so many tokens, and ms from its beginning to its first and last one."""

    input_tokens: int = 0
    output_tokens: int = 0
    first_token_ms: int = 0
    last_token_ms: int = 0


class AnswerStream:
    """The stream of one attempt at one request."""

    def __init__(
        self, work: Work, attempt: str, worker: str, encrypt: Encrypt, guard: Guard, trace: Trace | None = None
    ) -> None:
        self._work = work
        self._attempt = attempt
        self._worker = worker
        self._encrypt = encrypt
        self._guard = guard
        self._trace = trace
        self._watermark: MarkAccount | None = None
        self._digest = hashlib.sha256()
        self._text: list[str] = []
        self._ready: list[str] = []
        """Text that may leave, and has not left yet."""
        self._token_logprobs: list[TokenLogprob] = []
        self._position = self._version = 0
        self.usage = RunUsage()

    def push(self, chunk: Chunk, elapsed_ms: int) -> bool:
        """Take in one chunk of the engine; True where text begins to wait for ``take``."""
        usage = self.usage
        usage.input_tokens, usage.output_tokens = chunk.input_tokens, chunk.output_tokens
        if not usage.first_token_ms and chunk.output_tokens:
            usage.first_token_ms = max(1, elapsed_ms)
        usage.last_token_ms = max(elapsed_ms, usage.first_token_ms)
        self._token_logprobs += chunk.logprobs
        text = self._guard.push(chunk.text) if chunk.text else ""
        if chunk.finish is not None:
            self._version = chunk.version
            text += self._guard.flush()
            self._watermark = chunk.mark
        if not text:
            return False
        first = not self._ready
        if first:
            self._position = chunk.position
        self._ready.append(text)
        self._text.append(text)
        return first

    def take(self) -> Response | None:
        """Give the text that may leave as one response, at the position of its first chunk; None where none waits."""
        if not self._ready:
            return None
        raw, position = "".join(self._ready).encode(), self._position
        self._ready.clear()
        self._digest.update(raw)
        return Response(
            request=self._work.request,
            client_request=self._work.client_request,
            tenant=self._work.tenant,
            event="chunk",
            attempt=self._attempt,
            position=position,
            sealed=self._encrypt(f"{self._attempt}:{position}", raw),
            prefix=self._digest.digest(),
        )

    def logprobs_payload(self) -> bytes:
        """Give the encrypted log-probabilities of the answer, empty where none are told."""
        if self._guard.findings or not self._token_logprobs:
            return b""
        packed = logprobs.pack(self._token_logprobs, self._work.sampling.top_logprobs)
        return self._encrypt(f"{self._attempt}:logprobs", packed) if packed else b""

    @property
    def withheld(self) -> bool:
        """Tell whether the guard ended the answer; nothing more of it leaves."""
        return self._guard.verdict == "withhold"

    def completion(self, finish: FinishReason | None) -> Completion:
        """Report on the run; ``finish`` None says that the deadline came first."""
        result: Result = "withheld" if self.withheld else _RESULTS[finish] if finish else "expired"
        delivered = "".join(self._text)
        text = delivered.encode()
        findings = self._guard.findings
        keep = text and (self._work.keep == "all" or (self._work.keep == "findings" and findings))
        return Completion(
            request=self._work.request,
            organisation=self._work.organisation,
            tenant=self._work.tenant,
            result=result,
            worker=self._worker,
            attempt=self._attempt,
            model=self._work.model,
            finish="guard" if self.withheld else finish.value if finish else "deadline",
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
            first_token_ms=self.usage.first_token_ms,
            findings=findings,
            text_digest=hashlib.sha256(text).digest(),
            text=self._encrypt("text", text) if keep else b"",
            version=self._version,
            watermark=Watermark(**dataclasses.asdict(self._watermark)) if self._watermark else None,
            fingerprints=self._trace(delivered) if self._trace else b"",
            ticket=self._work.ticket,
        )


def end(work: Work, completion: Completion, written: bytes, logprobs_payload: bytes = b"") -> Response:
    """Give the last response, once ``written``, the completion's bytes, is acknowledged."""
    return Response(
        request=work.request,
        client_request=work.client_request,
        tenant=work.tenant,
        event="end",
        attempt=completion.attempt,
        result=completion.result,
        finish=completion.finish,
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        reason=withheld_for(work, completion.findings) if completion.result == "withheld" else "",
        logprobs=logprobs_payload if completion.result == "finished" else b"",
        completion=hashlib.sha256(written).digest(),
    )


def position_response(work: Work, attempt: str, queued: QueuePosition) -> Response:
    """Tell the place in the queue of a request that has not begun to run."""
    return Response(
        request=work.request,
        client_request=work.client_request,
        tenant=work.tenant,
        event="place",
        attempt=attempt,
        ahead=queued.position,
        eta_ms=-1 if queued.eta_s is None else round(queued.eta_s * 1000),
    )


def finding(work: Work, completion: Completion, time: int) -> bytes | None:
    """Give the record for ``findings`` where the guard found something; ``time`` in Unix ms."""
    findings = completion.findings
    if not findings:
        return None
    account = (work.organisation, work.tenant, work.principal)
    return encode(FindingEvent(work.request, time, *account, "generate", verdict(work, findings), (), findings))


def failed(work: Work, attempt: str, worker: str) -> Completion:
    """Report on a request that no engine could be asked about."""
    base = Completion(work.request, work.organisation, work.tenant, "failed", worker, attempt, work.model, "error")
    return msgspec.structs.replace(base, text_digest=hashlib.sha256(b"").digest(), ticket=work.ticket)
