"""A record of ``requests`` has one form and one signature. WIRE.md says the same for other languages.

The signature is HMAC-SHA256 (RFC 2104) over the length-prefixed header values in the order of SIGNED and the value's
exact bytes, so nothing is parsed before it is known to be genuine.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from pipeline.errors import Malformed
from pipeline.events.keyed import hmac_sha256
from pipeline.events.records import EndUser, Sampling

PREFIX = b"sluice-request-v1"
SIGNATURE = "sluice-signature"
SIGNED = (
    "sluice-key",
    "sluice-time",
    "sluice-session",
    "sluice-counter",
    "sluice-request",
    "sluice-kind",
    "sluice-lane",
    "sluice-wrap",
)
MAX_VALUE_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 2048
MAX_LOGPROB_TOKENS = 4096
"""Tokens of an answer of which log-probabilities are told."""
SKEW_MS = 60_000

ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]
_ID, _NUMBER = rb"([A-Za-z0-9._:-]{1,128})", rb"(-?[0-9]{1,15})"
_IDENTIFIER, _WHOLE = re.compile(_ID), re.compile(_NUMBER)
_SHAPES = (_IDENTIFIER, _WHOLE, _IDENTIFIER, _WHOLE, _IDENTIFIER, _IDENTIFIER, _WHOLE)
_PLAIN = re.compile(b"\n".join(shape.pattern for shape in _SHAPES))
"""The headers before the wrap, joined by a byte that none of them may hold."""
_LENGTHS = tuple(struct.pack(">I", length) for length in range(MAX_HEADER_BYTES + 1))


class InferenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An ``inference`` record has this value. ``sealed`` is the JSON list of messages, sealed (see texts)."""

    model: ShortText
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    sealed: bytes
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...],
        msgspec.Meta(max_length=4),
    ] = ()
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 60_000
    idempotency: Annotated[str, msgspec.Meta(max_length=128)] = ""
    min_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.1, le=10.0)] = 1.0
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    logprobs: bool = False
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0
    logit_bias: Annotated[
        tuple[
            tuple[
                Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)], Annotated[float, msgspec.Meta(ge=-100.0, le=100.0)]
            ],
            ...,
        ],
        msgspec.Meta(max_length=64),
    ] = ()
    end_user: EndUser = ""

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=self.stop,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs,
            logit_bias=self.logit_bias,
        )


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``cancel`` record has this value."""

    target: ShortText


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sealed text is a list of turns."""

    role: Annotated[str, msgspec.Meta(pattern="^(system|user|assistant|document)$")]
    content: str


_inference = msgspec.json.Decoder(InferenceBody)
_cancel = msgspec.json.Decoder(CancelBody)
_messages = msgspec.json.Decoder(tuple[Message, ...])


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The headers of a record are parsed and not yet believed."""

    key: str
    time: int
    session: str
    counter: int
    request: str
    kind: str
    lane: int
    wrap: bytes
    signature: bytes
    signed: tuple[bytes, ...]

    def genuine(self, secret: bytes, value: bytes) -> bool:
        """Tell whether the signature is that of ``secret`` over these headers and ``value``."""
        return hmac.compare_digest(self.signature, _mac(secret, self.signed, value))


def sign(
    secret: bytes,
    key: str,
    request: str,
    kind: str,
    value: bytes,
    *,
    time: int,
    session: str,
    counter: int,
    lane: int = -1,
    wrap: bytes = b"",
) -> list[tuple[str, bytes]]:
    """Give the Kafka headers of a record that ``secret`` vouches for. ``time`` in Unix ms."""
    text = (key, str(time), session, str(counter), request, kind, str(lane))
    signed = (*(t.encode() for t in text), wrap)
    return [*zip(SIGNED, signed, strict=True), (SIGNATURE, _mac(secret, signed, value))]


def open_envelope(headers: Sequence[tuple[str, bytes]]) -> Envelope:
    """Read the envelope of a record. Raises Malformed naming the header that is absent, double or not as specified."""
    by_name = dict(headers)
    if len(by_name) != len(headers):
        raise Malformed("a header occurs twice")
    # Kafka knows headers without a value
    signature = by_name.get(SIGNATURE) or b""
    if len(signature) != 32:
        raise Malformed(f"{SIGNATURE}: expected 32 bytes, got {len(signature)}")
    try:
        signed = tuple([by_name[name] for name in SIGNED])
        match, wrap = _PLAIN.fullmatch(b"\n".join(signed[:-1])), signed[-1]
        fits = match is not None and len(wrap) <= MAX_HEADER_BYTES
    except (KeyError, TypeError):
        missing = next(name for name in SIGNED if by_name.get(name) is None)
        raise Malformed(f"header {missing} is missing or has no value") from None
    if match is None or not fits:
        raise Malformed(_fault(signed))
    key, time, session, counter, request, kind, lane = match[0].decode().split("\n")
    return Envelope(key, int(time), session, int(counter), request, kind, int(lane), wrap, signature, signed)


def decode_inference(value: bytes) -> InferenceBody:
    """Read the body of an ``inference`` record. Raises Malformed."""
    try:
        return _inference.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not an inference body: {error}") from error


def decode_cancel(value: bytes) -> CancelBody:
    """Read the body of a ``cancel`` record. Raises Malformed."""
    try:
        return _cancel.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a cancel body: {error}") from error


def decode_messages(text: bytes) -> tuple[Message, ...]:
    """Read the opened text: 1 to 256 turns, the last one not the assistant's. Raises Malformed without content."""
    try:
        messages = _messages.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a list of messages: {error}") from error
    if not 1 <= len(messages) <= 256 or not any(m.content for m in messages):
        raise Malformed(f"expected 1 to 256 messages with content, got {len(messages)}")
    return messages


def _mac(secret: bytes, signed: Sequence[bytes], value: bytes) -> bytes:
    parts = [PREFIX]
    for field in signed:
        parts += (_LENGTHS[len(field)] if len(field) <= MAX_HEADER_BYTES else struct.pack(">I", len(field)), field)
    return hmac_sha256(secret, b"".join((*parts, _LENGTHS[32], hashlib.sha256(value).digest())))


def _fault(signed: Sequence[bytes]) -> str:
    """Say what is wrong with the headers, one of which is not as it must be."""
    for name, raw, shape in zip(SIGNED, signed, _SHAPES, strict=False):
        if shape.fullmatch(raw) is None:
            expected = "1 to 128 letters, digits and ._:-" if shape is _IDENTIFIER else "a whole number of 15 digits"
            return f"header {name}: expected {expected}, got {len(raw)} bytes"
    return f"header {SIGNED[-1]}: expected at most {MAX_HEADER_BYTES} bytes, got {len(signed[-1])}"
