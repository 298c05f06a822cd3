"""Log-probabilities of an answer travel encrypted beside its end.

They name the tokens, so they are told only where the guards let the model's own words out: of an answer with findings
none are. The payload is msgpack of one ``LogprobEntry`` per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inference.types import TokenLogprob
from pipeline.errors import Malformed
from pipeline.events.wire import MAX_LOGPROB_TOKENS


class LogprobEntry(msgspec.Struct, frozen=True, array_like=True):
    """A token has its bytes, its natural log-probability, and the same of the likeliest in its place."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[LogprobEntry, ...]).decode


def pack(tokens: Sequence[TokenLogprob], top: int) -> bytes:
    """Encode an answer's tokens, each with at most ``top`` of the likeliest; empty for none."""
    entries = [
        LogprobEntry(
            one.pieces[0],
            one.logprob,
            tuple((piece, value) for (_, value), piece in zip(one.top, one.pieces[1:], strict=True))[:top],
        )
        for one in tokens[:MAX_LOGPROB_TOKENS]
        if one.pieces
    ]
    return _encode(entries) if entries else b""


def content(packed: bytes) -> list[dict[str, Any]]:
    """Give OpenAI's ``logprobs.content`` of a payload. Raises Malformed."""
    try:
        entries = _decode(packed)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a log-probabilities payload: {error}") from error
    return [
        {**_shown(one.piece, one.logprob), "top_logprobs": [_shown(*other) for other in one.top]} for one in entries
    ]


def _shown(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
