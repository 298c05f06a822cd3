"""Refusals in OpenAI's error shape, so that stock clients raise the right exception and back off as told."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from pipeline.errors import PipelineError
from pipeline.events.messages import Response
from pipeline.events.reasons import LIMIT_REASONS, REASONS

FIRST_HEADER = "x-sluice-first-request"
"""On the refusal of a repeat: the id of the request that holds its idempotency key, as the audit log names it."""
MAX_STOCK_WAIT_MS = 60_000
"""Stock clients sleep for at most this long; beyond it they would retry too early, so they are told not to."""


class Refusal(PipelineError):
    """An HTTP answer other than success. ``message`` tells what to do and holds no content of the request."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})
        self.first = ""
        """duplicate: the request that holds the idempotency key."""
        self.local = True
        """False where a stage refused: then the decision is the record of it, not ``access``."""

    def body(self) -> bytes:
        """The JSON body ``{"error": {message, type, param, code}}``, with ``first_request`` where there is one."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": {**error, "first_request": self.first} if self.first else error})


def because(
    reason: str,
    *,
    limit: str = "",
    retry_after_ms: int = 0,
    message: str = "",
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """The refusal of a reason in REASONS (an unknown one reads as ``failed``), with its limit and its wait."""
    known = REASONS.get(reason) or REASONS["failed"]
    text = message or known.message
    if limit:
        text += f" Limit: {limit}."
    added = dict(headers or {})
    if retry_after_ms > 0:
        added["Retry-After"] = str(math.ceil(retry_after_ms / 1000))
        added["retry-after-ms"] = str(retry_after_ms)
    if known.status == 409 or retry_after_ms > MAX_STOCK_WAIT_MS:
        added["x-should-retry"] = "false"
    return Refusal(reason, text, status=known.status, kind=known.type, headers=added)


_ENDS = {"context": "input_too_long"}
"""Ways to end that have a reason of their own."""


def of_response(response: Response) -> Refusal:
    """The refusal that a ``refusal`` response, or an ``end`` other than finished, stands for."""
    reason = response.reason if response.event == "refusal" else _ENDS.get(response.finish, response.result)
    message = ""
    if response.result == "withheld" and response.reason:
        message = f"{REASONS['withheld'].message} Guard: {response.reason}."
    if response.found:
        message = f"{REASONS[reason].message} Found: {response.found}."
    headers = {}
    if response.first:
        message = f"{REASONS[reason].message} It is {response.first}. "
        message += f"GET /v1/requests/{response.first} gives its answer where it reached nobody."
        headers[FIRST_HEADER] = response.first
    if response.limit and response.retry_after_ms <= 0 and response.reason in LIMIT_REASONS.values():
        message = "The request alone asks for more than a limit ever gives at once. Lower max_tokens or send less text."
        headers["x-should-retry"] = "false"
    refusal = because(
        reason, limit=response.limit, retry_after_ms=response.retry_after_ms, message=message, headers=headers
    )
    refusal.first = response.first
    refusal.local = False
    return refusal


def invalid(param: str | None, message: str, code: str = "invalid_value") -> Refusal:
    """A request that was not understood; ``param`` names the field."""
    return Refusal(code, message, param=param)


def no_answer(headers: Mapping[str, str] | None = None) -> Refusal:
    """The refusal of a request whose deadline passed."""
    return because("expired", message="No answer by the deadline.", headers=headers)


def unknown_result(idempotent: bool, headers: Mapping[str, str]) -> Refusal:
    """The refusal of a request whose record the broker did not confirm: it may or may not run."""
    advice = (
        "Send it again with the same Idempotency-Key: it will not run twice."
        if idempotent
        else "It may still run. To retry safely, send an Idempotency-Key with each request."
    )
    return Refusal(
        "unknown_result",
        f"The request could not be confirmed as written. {advice}",
        status=503,
        kind="api_error",
        headers={**headers, "Retry-After": "1", "x-should-retry": "true" if idempotent else "false"},
    )
