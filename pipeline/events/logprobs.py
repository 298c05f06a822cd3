"""Log-probabilities of an answer, as they travel sealed beside its end.

They name the tokens, so they are told only where the guards let the model's own words out: of an answer with findings
none are. In the record: msgpack of one ``Told`` per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inference.types import TokenLogprob
from pipeline.errors import Malformed
from pipeline.events.wire import MAX_TOLD


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A token's bytes, its natural log-probability, and the same of the likeliest in its place."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Told, ...]).decode


def pack(found: Sequence[TokenLogprob], top: int) -> bytes:
    """Of an answer's tokens, each with at most ``top`` of the likeliest; empty for none."""
    told = [
        Told(
            one.pieces[0],
            one.logprob,
            tuple((piece, value) for (_, value), piece in zip(one.top, one.pieces[1:], strict=True))[:top],
        )
        for one in found[:MAX_TOLD]
        if one.pieces
    ]
    return _encode(told) if told else b""


def content(packed: bytes) -> list[dict[str, Any]]:
    """OpenAI's ``logprobs.content`` of what ``pack`` made. Raises Malformed."""
    try:
        told = _decode(packed)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a readout: {error}") from error
    return [{**_entry(one.piece, one.logprob), "top_logprobs": [_entry(*other) for other in one.top]} for one in told]


def _entry(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
