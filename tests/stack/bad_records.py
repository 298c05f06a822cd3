"""Records that a program with Write on ``requests`` could send, each with the reason that admit must give."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from pipeline.events import wire
from pipeline.gateway.auth import parse_bearer
from tests.deployment_site import Deployment

Headers = Sequence[tuple[str, bytes | None]]
ASK: dict[str, Any] = {"model": "echo", "max_tokens": 8}
TURN = {"role": "user", "content": "What is a dog?"}
DEEP = "[" * 100_000
HOUR_MS = 3_600_000


class NotUtf8(str):
    """A header name whose bytes are no UTF-8: other clients can send one."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@dataclass(frozen=True)
class Case:
    name: str
    reason: str
    value: bytes | None
    headers: Headers

    @property
    def readable(self) -> bool:
        """The client's library can build it."""
        return not any(isinstance(name, NotUtf8) for name, _ in self.headers)


class Forge:
    """Builds records of one tenant, right but for what is asked to be wrong."""

    def __init__(self, deployment: Deployment, tenant: str, key: str) -> None:
        parsed = parse_bearer(key)
        assert parsed is not None
        self.key, self.secret = parsed
        self.tenant, self._vault = tenant, deployment.vault
        self.used = 0
        """The counter of the last record."""

    def sealed(self, name: str, text: bytes, tenant: str = "") -> str:
        sealed = self._vault.encrypt(tenant or self.tenant, "request", "messages", self.request(name), text)
        return base64.b64encode(sealed).decode()

    def request(self, name: str) -> str:
        return f"{self.tenant}-app:{re.sub('[^a-z0-9]', '-', name)}"

    def body(self, name: str, messages: object = (TURN,), **fields: Any) -> bytes:
        text = messages if isinstance(messages, bytes) else json.dumps(messages).encode()
        return json.dumps({**ASK, "sealed": self.sealed(name, text), **fields}).encode()

    def signed(self, name: str, value: bytes, **fields: Any) -> list[tuple[str, bytes]]:
        self.used += 1
        chosen = {"time": int(time.time() * 1000), "session": "forge", "counter": self.used, **fields}
        kind, secret = chosen.pop("kind", "inference"), chosen.pop("secret", self.secret)
        key = chosen.pop("key", self.key)
        return wire.sign(secret, key, self.request(name), kind, value, **chosen)

    def good(self, name: str, **fields: Any) -> tuple[bytes, Headers]:
        value = self.body(name, **fields)
        return value, self.signed(name, value)


def bodies(forge: Forge) -> list[Case]:
    """Genuine records whose value or text cannot be read, or asks for what there is not."""

    def case(name: str, reason: str, value: bytes, **signed: Any) -> Case:
        return Case(name, reason, value, forge.signed(name, value, **signed))

    def text(name: str, reason: str, messages: object, **fields: Any) -> Case:
        return case(name, reason, forge.body(name, messages, **fields))

    broken = forge.body("cut sealed")
    return [
        case("empty value", "malformed", b""),
        case("invalid utf-8", "malformed", b'{"model":"\xff"}'),
        case("deep value", "malformed", DEEP.encode()),
        case("a tenant in the body", "malformed", forge.body("a", tenant="globex")),
        case("wrong type", "malformed", forge.body("a", max_tokens="8")),
        case("not a number", "malformed", forge.body("a", temperature=float("nan"))),
        case("infinite", "malformed", forge.body("a", top_p=float("inf"))),
        case("no tokens", "malformed", forge.body("a", max_tokens=0)),
        case("a kind of its own", "malformed", forge.body("a"), kind="other"),
        case("a lane that does not exist", "malformed", forge.body("a"), lane=99),
        case("cancel with a stranger", "malformed", b'{"target":"x","y":1}', kind="cancel"),
        case("cancel of nothing", "no_such_request", b'{"target":"acme-app:none"}', kind="cancel"),
        text("empty messages", "malformed", []),
        text("empty content", "malformed", [{**TURN, "content": ""}]),
        text("too many messages", "malformed", [TURN] * 257),
        text("unknown role", "malformed", [{**TURN, "role": "root"}]),
        text("deep text", "malformed", DEEP.encode()),
        text("text in latin-1", "malformed", b'[{"role":"user","content":"\xe9"}]'),
        case("sealed for another request", "undecryptable", forge.body("another")),
        case("cut sealed", "undecryptable", broken.replace(b'sealed": "', b'sealed": "AAAA')),
        text("unknown model", "unknown_model", [TURN], model="nothing"),
        text("too many tokens", "max_tokens_exceeded", [TURN], max_tokens=4000),
        text("over the plan", "input_too_long", [{**TURN, "content": "x" * 70_000}]),
        text("a million tokens", "input_too_long", [{**TURN, "content": "1" * 1_000_000}]),
        case("another clock", "clock_skew", forge.body("another clock"), time=int(time.time() * 1000) - HOUR_MS),
        case("the same counter", "replayed", forge.body("the same counter"), counter=forge.used),
    ]


def envelopes(forge: Forge) -> list[Case]:
    """Records whose headers are not those of the wire, or are somebody else's."""

    def case(name: str, reason: str, change: Callable[[list[tuple[str, bytes]]], Headers], **signed: Any) -> Case:
        value = forge.body(name)
        return Case(name, reason, value, change(forge.signed(name, value, **signed)))

    def put(header: str, raw: bytes | None) -> Callable[[list[tuple[str, bytes]]], Headers]:
        return lambda headers: [(name, raw if name == header else held) for name, held in headers]

    return [
        Case("nothing at all", "malformed", None, []),
        Case("garbage", "malformed", b"\xff\xfenot json", [("x", b"y")]),
        Case("a header name that is no text", "malformed", b"{}", [(NotUtf8("x"), b"y")]),
        case("no signature", "malformed", lambda headers: headers[:-1]),
        case("a signature without a value", "malformed", put("sluice-signature", None)),
        case("a key without a value", "malformed", put("sluice-key", None)),
        case("a header twice", "malformed", lambda headers: [*headers, headers[0]]),
        case("a time that is no number", "malformed", put("sluice-time", "١".encode())),
        case("a huge header", "malformed", put("sluice-wrap", b"w" * 100_000)),
        case("a changed header", "unsigned", put("sluice-counter", b"7777")),
        case("another key's secret", "unsigned", list, secret=b"\x01" * 32),
        case("unknown key", "unknown_key", list, key="k-none"),
    ]


async def send(producer: AIOKafkaProducer, case: Case) -> int:
    """Write one record as it is, whatever the client library thinks of it; gives its offset."""
    batch = producer.create_batch()
    if not case.readable:
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, 0, 1 << 20)
    assert batch.append(timestamp=None, key=b"k", value=case.value, headers=list(case.headers)) is not None
    return int((await (await producer.send_batch(batch, "requests", partition=0))).offset)
