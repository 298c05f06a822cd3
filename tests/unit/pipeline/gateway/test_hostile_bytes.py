"""Bytes at the HTTP port that are no request: a bounded answer in OpenAI's shape, and neither log nor answer quotes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib

import pytest

from tests.unit.pipeline.gateway.listening_gateway import BODY, CANARY, FIT, HEAD, KEY, listening, told


def play(raw: bytes) -> tuple[int, dict[str, str], bytes, list[str]]:
    """Status, error, everything that came, and the refusals counted."""

    async def job() -> tuple[bytes, list[str]]:
        async with asyncio.timeout(20), listening() as (port, state):
            found = await told(port, raw)
            good = await told(port, HEAD + FIT + b"\r\n" + BODY)
            assert b" 503 " in good.split(b"\r\n")[0]
            return found, state.refusals[:-1]

    found, counted = asyncio.run(job())
    last = found[[begun.start() for begun in re.finditer(rb"HTTP/1\.[01] [0-9]{3} ", found)][-1] :]
    return int(last.split()[1]), json.loads(last.partition(b"\r\n\r\n")[2])["error"], found, counted


NO_HTTP = {
    "text": f"{CANARY} hello\r\n\r\n".encode(),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99),
    "a key without its colon": f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {KEY}\r\n\r\n".encode(),
    "a key with a nul": f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\0\r\n\r\n".encode(),
    "line feeds alone": f"GET /v1/models HTTP/1.1\nHost: x\nAuthorization: Bearer {KEY}\n\n".encode(),
    "two lengths": HEAD + FIT + b"Content-Length: 3\r\n\r\n" + BODY,
    "length and chunks": HEAD + FIT + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a chunk that lies": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a strange transfer encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
    "another version": b"GET /v1/models HTTP/3.7\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_bytes_that_are_no_request_are_answered_and_never_quoted(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status, error, found, counted = play(NO_HTTP[name])
    assert (status, error["code"], error["type"]) == (400, "malformed_http", "invalid_request_error")
    assert 40 < len(error["message"]) < 300
    assert CANARY not in found.decode("latin1") + caplog.text
    assert "Traceback" not in caplog.text
    assert "malformed_http" in counted


def test_a_body_longer_than_its_length_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> bytes:
        async with asyncio.timeout(20), listening() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"Content-Length: 10\r\n\r\n" + BODY)
            found = await reader.read()
            writer.close()
            return found

    found = asyncio.run(job())
    assert b"invalid_json" in found or b"malformed_http" in found
    assert CANARY not in found.decode() + caplog.text


@pytest.mark.parametrize(
    "head",
    [b"X: " + b"a" * 9000 + b"\r\n", f"Authorization: {KEY}".encode() + b"a" * 9000 + b"\r\n", b"X: 1\r\n" * 200],
    ids=["long", "long key", "many"],
)
def test_headers_without_end_are_told_their_bounds(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    status, error, found, _ = play(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert (status, error["code"]) == (431, "headers_too_large")
    assert CANARY not in found.decode() + caplog.text


@pytest.mark.parametrize(
    ("encoding", "body"),
    [(b"gzip", BODY), (b"deflate", BODY), (b"br", BODY), (b"zstd", BODY), (b"foo", BODY), (b"gzip", b"\x1f\x8b\x08")],
)
def test_a_body_that_is_not_encoded_as_it_says(encoding: bytes, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    length = b"Content-Length: %d\r\n" % len(body)
    status, error, found, _ = play(HEAD + b"Content-Encoding: " + encoding + b"\r\n" + length + b"\r\n" + body)
    assert (status, error["code"]) in ((415, "invalid_encoding"), (400, "invalid_json"))
    assert CANARY not in found.decode() + caplog.text
    assert "Traceback" not in caplog.text


def test_a_body_that_is_encoded_as_it_says_is_read() -> None:
    body = zlib.compress(BODY)
    length = b"Content-Length: %d\r\n" % len(body)
    assert play(HEAD + b"Content-Encoding: deflate\r\n" + length + b"\r\n" + body)[0] == 503


@pytest.mark.parametrize(
    ("line", "status", "code", "said"),
    [
        ("GET /v1/chat/completions", 405, "method_not_allowed", "expected POST"),
        ("OPTIONS /v1/models", 405, "method_not_allowed", "expected GET, HEAD"),
        ("POST /v1/completions", 404, "not_found", "POST /v1/chat/completions"),
        ("POST /v1/embeddings", 404, "not_found", "GET /v1/models/{model}"),
        (f"GET /{CANARY}", 404, "not_found", "POST /inference"),
    ],
)
def test_what_is_not_served_is_told_with_what_is(line: str, status: int, code: str, said: str) -> None:
    found = play(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert (found[0], found[1]["code"]) == (status, code)
    assert said in found[1]["message"]
    assert CANARY.encode() not in found[2]
    assert b"Server: sluice\r\n" in found[2]
    assert (b"\r\nAllow: " in found[2]) == (status == 405)


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (HEAD + b"Expect: 100-continue\r\n", [100, 503]),
        (HEAD.replace(CANARY.encode(), b"x") + b"Expect: 100-continue\r\n", [401]),
        (HEAD + b"Expect: cookies\r\n", [417]),
    ],
    ids=["a go-ahead", "no go-ahead for a wrong key", "something else"],
)
def test_expectations(head: bytes, statuses: list[int]) -> None:
    _, _, found, _ = play(head + FIT + b"\r\n" + BODY)
    assert [int(part[:3]) for part in found.decode().split("HTTP/1.1 ")[1:]] == statuses
