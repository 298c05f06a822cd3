"""One Metadata request to a Kafka broker, by hand: is it ready to serve clients?

Metadata v4 with request header v1 (Kafka protocol guide); supported by every broker from 0.11 on.
"""

from __future__ import annotations

import socket
import struct

_METADATA_KEY = 3
_VERSION = 4
_CORRELATION = 7
_MAX_REPLY = 1 << 20


def ask_brokers(host: str, port: int, timeout_s: float = 2.0) -> dict[int, tuple[str, int]]:
    """Node id -> (host, port) of the live brokers; {} while no controller is known.

    Raises OSError when nothing answers in `timeout_s` seconds, ValueError for a broken answer.
    """
    client = b"sluice-probe"
    body = struct.pack(
        f">hhih{len(client)}si?",
        _METADATA_KEY,
        _VERSION,
        _CORRELATION,
        len(client),
        client,
        0,
        False,
    )
    with socket.create_connection((host, port), timeout_s) as link:
        link.settimeout(timeout_s)
        link.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _exactly(link, 4))
        if not 8 <= size <= _MAX_REPLY:
            raise ValueError(f"expected a Metadata answer of 8 to {_MAX_REPLY} bytes, got {size}")
        return _parse(_exactly(link, size))


def _exactly(link: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = link.recv(size - len(got))
        if not part:
            raise ConnectionError(f"the connection ended after {len(got)} of {size} bytes")
        got += part
    return bytes(got)


def _parse(reply: bytes) -> dict[int, tuple[str, int]]:
    position = 0

    def number(code: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from(f">{code}", reply, position)
        position += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal position
        size = number("h")
        if size < 0:
            return ""
        position += size
        return reply[position - size : position].decode("utf-8")

    brokers: dict[int, tuple[str, int]] = {}
    try:
        if number("i") != _CORRELATION:
            raise ValueError("the answer belongs to another request")
        number("i")  # throttle time
        for _ in range(number("i")):
            node, host, port = number("i"), text(), number("i")
            text()  # rack
            brokers[node] = (host, port)
        text()  # cluster id
        controller = number("i")
    except struct.error as error:
        raise ValueError(f"expected a Metadata v{_VERSION} answer: {error}") from error
    return brokers if controller >= 0 else {}
