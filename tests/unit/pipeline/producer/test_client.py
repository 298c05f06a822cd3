"""A wrong call of the producer is told at once: by type, in bounds, without the text."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from pipeline.errors import ConfigError, Malformed
from pipeline.events.wire import InferenceBody, decode_inference
from pipeline.producer import Producer, SyncProducer
from pipeline.producer.outcomes import Wire

KEY = "sk-sluice-k." + "A" * 43
WIRE = Wire("g1", "", "requests", 1, "o", "t", "a:", base64.b64encode(bytes(32)).decode(), ("glossary",), 64, 2**20, 0)


class Opened(Producer):
    """Past its start, with nothing behind it; ``body`` is what would be written."""

    body: InferenceBody

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", KEY)
        self.wire = WIRE

    async def write(self, kind: str, client_request: str, value: bytes) -> tuple[int, int]:
        self.body = decode_inference(value)
        return 0, 0


def submitted(messages: Any, **options: Any) -> InferenceBody:
    producer = Opened()
    asyncio.run(producer.submit(messages, **options))
    return producer.body


@pytest.mark.parametrize("messages", [None, 5, [5], [None], b"prompt", {"role": "user", "content": "canary"}])
def test_what_is_no_list_of_messages(messages: Any) -> None:
    with pytest.raises(Malformed, match=r"expected a prompt, or a list of \{role, content\}"):
        submitted(messages)


@pytest.mark.parametrize("messages", ["canary \ud800", [{"role": "user", "content": "canary \udfff"}]])
def test_text_that_has_no_bytes(messages: Any) -> None:
    with pytest.raises(Malformed, match="without lone surrogates") as raised:
        submitted(messages)
    assert "canary" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(("field", "value"), [("max_tokens", 0), ("max_tokens", -1), ("model", "")])
def test_a_value_that_does_not_fit_is_not_taken_for_none(field: str, value: object) -> None:
    with pytest.raises(Malformed, match=field):
        submitted("hello", **{field: value})


def test_what_is_left_out_is_the_plans() -> None:
    body = submitted("hello")
    assert (body.model, body.max_tokens) == ("glossary", 64)


def test_a_producer_that_is_not_open_says_how_to_open_it() -> None:
    async def job() -> None:
        producer = Producer("http://127.0.0.1:1", KEY)
        for _ in range(2):
            with pytest.raises(ConfigError, match="not open"):
                await producer.submit("hello")
            with pytest.raises(ConfigError, match="not open"):
                await producer.answer("a:1", 1)
            await producer.close()

    asyncio.run(job())
    with pytest.raises(ConfigError, match="not open"):
        SyncProducer("http://127.0.0.1:1", KEY).submit("hello")


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1", "127.0.0.1:8080"])
def test_a_gateway_url_that_is_none_is_the_callers_to_mend(url: str) -> None:
    async def start() -> None:
        async with Producer(url, KEY):
            raise AssertionError("started")

    with pytest.raises(ConfigError, match=r"expected http\(s\)://host:port"):
        asyncio.run(start())
