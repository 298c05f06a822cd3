"""One codec turns records into bytes and back."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pipeline.errors import Malformed
from pipeline.events.records import LogRecord

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_log_decoder: msgspec.json.Decoder[LogRecord] = msgspec.json.Decoder(LogRecord)
_decoders: dict[object, msgspec.json.Decoder[object]] = {}

encode = _encoder.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises; the last one on values within values without end, also where no field takes them."""


def decode_log(value: bytes) -> LogRecord:
    """Read a record of ``decisions``. Raises Malformed."""
    try:
        return _log_decoder.decode(value)
    except _UNREADABLE as error:
        raise Malformed(f"not a decisions record: {error}") from error


def decode(kind: type[T], value: bytes) -> T:
    """Read a record of the given type. Raises Malformed, naming the field but never its content."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(value)  # type: ignore[return-value]
    except _UNREADABLE as error:
        raise Malformed(f"not a {kind.__name__} record: {error}") from error
