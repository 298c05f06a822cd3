"""A client that redacts seals no item; its report says which items and where, never their text."""

from __future__ import annotations

import asyncio
import base64
import re

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from detectors.pii import Actions
from pipeline.errors import ConfigError
from pipeline.events.wire import InferenceBody
from pipeline.keys import encryption
from pipeline.producer import Producer, Ticket
from pipeline.producer.outcomes import Wire
from pipeline.producer.redaction import Redact

API_KEY = "sk-sluice-app." + base64.urlsafe_b64encode(b"\x07" * 32).decode().rstrip("=")
CARD = "4111 1111 1111 1111"
PUBLIC = X25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key().public_bytes_raw()
WIRE = Wire("g1", "b", "requests", 1, "acme", "acme-t", "p.", base64.b64encode(PUBLIC).decode(), ("m",), 64, 100_000, 0)
MESSAGES = [
    {"role": "system", "content": "Answer my name is Jane Smith"},
    {"role": "user", "content": f"Dear Dr. Watson, card {CARD}, mail jane@corp.example"},
    {"role": "user", "content": "Thank you"},
]


class Recorder(Producer):
    """A producer whose records end here instead of at a broker."""

    def __init__(self, redact: Redact) -> None:
        super().__init__("http://127.0.0.1:1", API_KEY, redact=redact)
        self.wire = WIRE
        self.records: list[tuple[str, bytes]] = []

    async def write(self, kind: str, client_request: str, value: bytes) -> tuple[int, int]:
        self.records.append((client_request, value))
        return 0, 0

    def opened(self) -> list[dict[str, str]]:
        """The messages of the last record, as whoever holds the content key reads them."""
        request, value = self.records[-1]
        sealed = msgspec.json.decode(value, type=InferenceBody).sealed
        bound = encryption.associated_data("g1", "acme-t", "request", "messages", request)
        found: list[dict[str, str]] = msgspec.json.decode(encryption.decrypt_text(self._content_key, bound, sealed))
        return found


def sent(redact: Redact) -> tuple[list[dict[str, str]], Ticket]:
    producer = Recorder(redact)
    ticket = asyncio.run(producer.submit(MESSAGES))
    return producer.opened(), ticket


def test_messages_leave_as_they_are_where_nothing_is_asked() -> None:
    opened, ticket = sent(False)
    assert opened == MESSAGES
    assert not ticket.left.redacted


def test_items_are_taken_out_before_the_text_is_sealed() -> None:
    opened, ticket = sent(True)
    assert [message["content"] for message in opened] == [
        "Answer my name is [PERSON]",
        "Dear Dr. [PERSON], card [CREDIT_CARD], mail [EMAIL]",
        "Thank you",
    ]
    assert [message["role"] for message in opened] == ["system", "user", "user"]
    assert ticket.left.redacted
    assert ticket.left.counts == {"CREDIT_CARD": 1, "EMAIL": 1, "PERSON": 2}
    assert all(place.action == "redact" for place in ticket.left.places)


def test_the_report_points_at_the_messages_as_written_and_holds_no_text() -> None:
    _, ticket = sent(True)
    shown = [MESSAGES[place.message]["content"][place.start : place.end] for place in ticket.left.places]
    assert shown == ["Jane Smith", "Watson", CARD, "jane@corp.example"]
    told = msgspec.json.encode(ticket.left).decode() + repr(ticket.left)
    assert not any(item in told for item in shown)


def test_actions_by_type_keep_the_form_and_what_may_leave() -> None:
    opened, ticket = sent(Actions("token", {"PERSON": "keep"}, b"k" * 32))
    content = opened[1]["content"]
    assert re.fullmatch(r"Dear Dr\. Watson, card \d{4} \d{4} \d{4} \d{4}, mail [a-z]{4}@[a-z]{4}\.zz[a-z]{5}", content)
    assert CARD not in content
    assert [place.action for place in ticket.left.places] == ["keep", "keep", "token", "token"]
    assert sent(Actions("token", {"PERSON": "keep"}, b"k" * 32))[0] == opened


def test_actions_without_their_key_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="redact: expected a key of at least 16 bytes"):
        Recorder(Actions("hash"))
