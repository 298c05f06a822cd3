"""The producer's results: the gateway's wire document, answers, and errors by what to do about them."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.errors import PipelineError, Retryable


class Refused(PipelineError):
    """The pipeline answered no. ``code`` is the reason, ``retry_after_s`` is 0 where waiting does not help.

    ``first_request``, on a ``duplicate``, is the id of the request that holds the idempotency key: ``answer`` takes it.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: float = 0.0, first_request: str = ""
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.first_request = first_request


class NotConfirmed(Retryable):
    """The broker did not confirm the write. Submit again with the same ``idempotency``; it will not run twice."""


class NoAnswer(Retryable):
    """No outcome was seen in time. The request may have ended; ask ``Ticket.result`` again."""


class Wire(msgspec.Struct, frozen=True):
    """The part of ``GET /v1/wire`` that this client needs; other fields are for other clients."""

    generation: str
    bootstrap: str
    topic: str
    partitions: int
    organisation: str
    tenant: str
    client_request_prefix: str
    hpke_public: str
    models: tuple[str, ...]
    max_tokens: int
    max_value_bytes: int
    time: int
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    kafka_user: str = ""
    """The brokers know the key's bearer by this name."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer."""

    input_tokens: int = 0
    output_tokens: int = 0


class Result(msgspec.Struct, frozen=True):
    """A finished request. ``request`` is its id in the audit log."""

    client_request: str
    text: str
    result: str
    request: str = ""
    finish: str = ""
    usage: Usage = Usage()
    logprobs: dict[str, Any] | None = None
    """OpenAI's shape, where they were asked for and the plan tells them."""
