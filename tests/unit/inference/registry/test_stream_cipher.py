"""Chunks cannot be altered, cut, added, swapped or read as another file."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.registry.refusal import ModelRefused
from inference.registry.stream_cipher import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES, ciphertext_size, decrypt, encrypt

KEY, CONTEXT = b"k" * 32, b"model\x1f1\x1fw"
TEXT = bytes(range(256)) * (CHUNK_BYTES // 128)  # two whole chunks
STEP = CHUNK_BYTES + TAG_BYTES


def entropy(count: int) -> bytes:
    return bytes(range(count))


def seal(text: bytes, key: bytes = KEY) -> bytes:
    return b"".join(bytes(p) for p in encrypt(io.BytesIO(text).readinto, len(text), key, CONTEXT, entropy))


def unseal(raw: bytes, size: int, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    return b"".join(bytes(piece) for piece in decrypt(io.BytesIO(raw).readinto, size, key, context))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_any_size_comes_back(size: int) -> None:
    raw = seal(TEXT[:size])
    assert len(raw) == ciphertext_size(size)
    assert unseal(raw, size) == TEXT[:size]


CUTS: list[tuple[Callable[[bytes], bytes], int]] = [
    (lambda raw: raw[:-STEP], CHUNK_BYTES),  # cut at a chunk, and the length with it
    (lambda raw: raw[:-STEP], 2 * CHUNK_BYTES),
    (lambda raw: raw[:-1], 2 * CHUNK_BYTES),
    (lambda raw: raw + b"x", 2 * CHUNK_BYTES),
    (lambda raw: raw[:HEADER_BYTES] + raw[HEADER_BYTES + STEP :] + raw[HEADER_BYTES:-STEP], 2 * CHUNK_BYTES),
    (lambda raw: raw[:-STEP] + raw[HEADER_BYTES:-STEP], 2 * CHUNK_BYTES),
    (lambda raw: raw[:HEADER_BYTES], 0),
    (lambda raw: b"", 2 * CHUNK_BYTES),
    (lambda raw: raw[:4] + (0).to_bytes(4, "big") + raw[8:], 2 * CHUNK_BYTES),
    (lambda raw: raw[:4] + b"\xff" * 4 + raw[8:], 2 * CHUNK_BYTES),
]


@pytest.mark.parametrize(("cut", "size"), CUTS)
def test_cut_swapped_or_longer_files_do_not_open(cut: Callable[[bytes], bytes], size: int) -> None:
    with pytest.raises(ModelRefused) as refusal:
        unseal(cut(seal(TEXT)), size)
    assert refusal.value.code == "sealed"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, ciphertext_size(1000) - 1), st.integers(0, 7))
def test_no_bit_can_change(place: int, bit: int) -> None:
    raw = bytearray(seal(TEXT[:1000]))
    raw[place] ^= 1 << bit
    with pytest.raises(ModelRefused):
        unseal(bytes(raw), 1000)


def test_another_key_or_another_file_does_not_open() -> None:
    raw = seal(TEXT[:100])
    for key, context in ((b"x" * 32, CONTEXT), (KEY, b"model\x1f2\x1fw")):
        with pytest.raises(ModelRefused):
            unseal(raw, 100, key, context)
