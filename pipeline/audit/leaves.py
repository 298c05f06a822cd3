"""The bytes under a leaf's hash, one form for the sealer, the verifier and receipts."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from pipeline.errors import Malformed

_FRAME = struct.Struct(">Qq")


def leaf_value(offset: int, time: int, value: bytes) -> bytes:
    """Give the bytes under the leaf hash of RFC 6962."""
    return _FRAME.pack(offset, time) + value


def read_leaf(framed: bytes) -> tuple[int, int, bytes]:
    """Read offset, time and value of ``leaf_value``. Raises Malformed."""
    if len(framed) < _FRAME.size:
        raise Malformed(f"leaf: expected at least {_FRAME.size} bytes, got {len(framed)}")
    offset, time = _FRAME.unpack_from(framed)
    return offset, time, framed[_FRAME.size :]


def leaf_digests(offsets: Sequence[int], times: Sequence[int], values: Sequence[bytes]) -> list[bytes]:
    """Give ``merkle.leaf_hash`` of many framed records."""
    sha256, pack = hashlib.sha256, _FRAME.pack
    return [
        sha256(b"\x00" + pack(offset, time) + value).digest()
        for offset, time, value in zip(offsets, times, values, strict=True)
    ]
