"""Test vectors and JSON Schema of the wire, made by the code that reads it: ``python -m pipeline.producer.vectors``.

WIRE.md says what each field means. Values are fixed, so the files change only when the wire does.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pipeline.events import wire
from pipeline.events.wire import CancelBody, InferenceBody, Message
from pipeline.keys import encryption
from pipeline.keys.api_key import kafka_password
from pipeline.topics import partition_of

HERE = Path(__file__).parent
VECTORS, SCHEMA = HERE / "vectors.json", HERE / "bodies.schema.json"
SECRET = bytes(range(64, 96))
CONTENT_KEY = b"\x11" * 32
PRIVATE = bytes(range(32))
SALT, NONCE = b"\x22" * 16, b"\x33" * 12
TIME = 1_790_000_000_000
REQUEST = "acme-1:0f1e2d3c4b5a69788796a5b4c3d2e1f0"
MESSAGES = (Message("system", "Be brief."), Message("user", "Qu’est-ce que 漢字? 🙂"))
WRAP = "4cRQh+32lA1un8d2ksstNFN7833ux3Q+Y9mDz/4b0HHFTZt34ol4Pc6xiTSm8dB1lBOlhTSCDvDnBN9LfxOsGDRmY6YFfGuFbzo64F37vvk="
"""A content key wrapped once for PRIVATE; wrapping draws a fresh key pair each time, so this cannot be made again."""
ORGANISATIONS = ("a", "ab", "abc", "acme", "globex", "initech-eu", "0.team_b", "x" * 63)
COUNTS = (1, 4, 64, 100)


def vectors() -> dict[str, Any]:
    """The content of vectors.json. Bytes are hex, header values and sealed texts base64."""
    sealed = _sealed()
    body = InferenceBody("glossary", 64, sealed, 0.5, 0.9, 40, 7, ("\n\n",), 30_000, "order-1234")
    inference = msgspec.json.encode(body)
    cancel = msgspec.json.encode(CancelBody(REQUEST))
    return {
        "api_key": {
            "text": f"sk-sluice-k.acme-1.{base64.urlsafe_b64encode(SECRET).rstrip(b'=').decode()}",
            "key": "k.acme-1",
            "secret": SECRET.hex(),
            "kafka_password": kafka_password(SECRET),
        },
        "signed": [
            _signed("inference", REQUEST, inference, 1, base64.b64decode(WRAP)),
            _signed("cancel", "acme-1:00000000000000000000000000000001", cancel, 2, b""),
        ],
        "sealed": _seal_vector(sealed),
        "wrapped": {
            "private": PRIVATE.hex(),
            "public": X25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw().hex(),
            "info": "sluice/content-key/v1",
            "wrap": WRAP,
            "content_key": CONTENT_KEY.hex(),
        },
        "partitions": [
            {"organisation": name, "count": count, "partition": partition_of(name.encode(), count)}
            for name in ORGANISATIONS
            for count in COUNTS
        ],
    }


def schema() -> dict[str, Any]:
    """The content of bodies.schema.json: JSON Schema 2020-12 of the two values and of the text inside ``sealed``."""
    refs, parts = msgspec.json.schema_components(
        [InferenceBody, CancelBody, tuple[Message, ...]], ref_template="#/$defs/{name}"
    )
    messages = {**refs[2], "minItems": 1, "maxItems": 256}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of records in the topic requests",
        "anyOf": refs[:2],
        "$defs": {**parts, "Messages": messages},
    }


def _sealed() -> bytes:
    drawn = {16: SALT, 12: NONCE}
    return encryption.encrypt_text(CONTENT_KEY, _bound(), msgspec.json.encode(MESSAGES), drawn.__getitem__)


def _bound() -> bytes:
    return encryption.associated_data("g1", "acme", "request", "messages", REQUEST)


def _seal_vector(sealed: bytes) -> dict[str, Any]:
    return {
        "content_key": CONTENT_KEY.hex(),
        "generation": "g1",
        "tenant": "acme",
        "client_request": REQUEST,
        "associated_data": _bound().hex(),
        "salt": SALT.hex(),
        "nonce": NONCE.hex(),
        "text": msgspec.json.encode(MESSAGES).decode(),
        "sealed": base64.b64encode(sealed).decode(),
    }


def _signed(kind: str, request: str, value: bytes, counter: int, wrap: bytes) -> dict[str, Any]:
    session = "5e55105e55105e55105e55105e551000"
    headers = wire.sign(
        SECRET, "k.acme-1", request, kind, value, time=TIME, session=session, counter=counter, lane=-1, wrap=wrap
    )
    return {
        "secret": SECRET.hex(),
        "value": value.decode(),
        "headers": {name: base64.b64encode(raw).decode() for name, raw in headers},
    }


def render(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(render(vectors()), encoding="utf-8")
    SCHEMA.write_text(render(schema()), encoding="utf-8")
