"""The signed door: what is genuine, what is refused, and that refusals do not quote content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.topics import partition_of

SECRET = b"s" * 32
BODY = b'{"model":"glossary","max_tokens":8,"sealed":"AAAA"}'


def headers(value: bytes = BODY) -> list[tuple[str, bytes]]:
    return wire.sign(SECRET, "k1", "r1", "inference", value, time=5, session="s", counter=1)


def test_a_signed_record_is_genuine_and_says_what_was_signed() -> None:
    envelope = wire.open_envelope(headers())
    assert envelope.genuine(SECRET, BODY)
    assert (envelope.key, envelope.time, envelope.counter, envelope.lane) == ("k1", 5, 1, -1)


@given(st.integers(0, 7), st.binary(min_size=1, max_size=20))
def test_no_header_can_be_changed(index: int, other: bytes) -> None:
    changed = headers()
    name, value = changed[index]
    changed[index] = (name, value + other)
    try:
        envelope = wire.open_envelope(changed)
    except Malformed:
        return
    assert not envelope.genuine(SECRET, BODY)


def test_another_value_or_secret_is_not_genuine() -> None:
    envelope = wire.open_envelope(headers())
    assert not envelope.genuine(SECRET, BODY + b" ")
    assert not envelope.genuine(b"t" * 32, BODY)


@pytest.mark.parametrize("drop", [*wire.SIGNED, wire.SIGNATURE])
def test_a_missing_header_is_named(drop: str) -> None:
    with pytest.raises(Malformed, match=drop):
        wire.open_envelope([h for h in headers() if h[0] != drop])


BAD_BODIES = {
    "unknown field": b'{"model":"m","max_tokens":1,"sealed":"","tenant":"other"}',
    "wrong type": b'{"model":"m","max_tokens":"1","sealed":""}',
    "not a number": b'{"model":"m","max_tokens":1,"sealed":"","temperature":NaN}',
    "too hot": b'{"model":"m","max_tokens":1,"sealed":"","temperature":9}',
    "no tokens": b'{"model":"m","max_tokens":0,"sealed":""}',
    "invalid utf-8": b'{"model":"\xff","max_tokens":1,"sealed":""}',
    "deep": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        wire.decode_inference(BAD_BODIES[name])


@pytest.mark.parametrize("text", [b"[]", b'[{"role":"user","content":""}]', b'[{"role":"root","content":"canary"}]'])
def test_bad_messages_are_refused_without_quoting_them(text: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        wire.decode_messages(text)
    assert "canary" not in str(caught.value)


KAFKA_VECTORS = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}


@pytest.mark.parametrize("key", KAFKA_VECTORS)
def test_placement_is_that_of_the_java_client(key: bytes) -> None:
    expected = (KAFKA_VECTORS[key] & 0xFFFFFFFF & 0x7FFFFFFF) % 64
    assert partition_of(key, 64) == expected


@pytest.mark.parametrize("name", [*wire.SIGNED, wire.SIGNATURE])
def test_a_header_without_a_value_is_named(name: str) -> None:
    signed = wire.sign(b"s" * 32, "k", "r", "inference", b"v", time=1, session="s", counter=1)
    headers = [(held, None if held == name else value) for held, value in signed]
    with pytest.raises(Malformed, match=name):
        wire.open_envelope(headers)  # type: ignore[arg-type]
