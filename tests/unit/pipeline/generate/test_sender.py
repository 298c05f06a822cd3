"""What a worker sends: a record that cannot be sent is told to whoever waits for it, and holds up no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import Fatal
from pipeline.events.emission import Emission
from pipeline.generate.sender import Sender
from tests.patience import STUCK_S


class Broker:
    """Takes all but records of one value."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def send_all(self, records: list[Any]) -> None:
        await asyncio.sleep(0)
        if any(record[3] == b"too large" for record in records):
            raise Fatal("a record of 2000000 bytes does not fit one batch")
        self.taken += [record[3] for record in records]

    async def close(self) -> None:
        """Nothing is open."""


def emission(value: bytes) -> Emission:
    return Emission("completions", 0, b"o", value)


def test_a_record_that_no_batch_holds_is_told_and_the_others_are_sent() -> None:
    async def scene() -> tuple[list[Any], list[bytes]]:
        broker = Broker()
        sender = Sender(broker)  # type: ignore[arg-type]
        sender.start()
        async with asyncio.timeout(STUCK_S):
            sender.put_late(lambda: emission(b"made once"))
            together = [sender.written(emission(value)) for value in (b"before", b"too large", b"beside")]
            told = await asyncio.gather(*together, return_exceptions=True)
            await sender.written(emission(b"behind"))
            await sender.close()
        return told, broker.taken

    told, taken = asyncio.run(scene())
    assert [type(one) for one in told] == [type(None), Fatal, type(None)]
    assert taken == [b"made once", b"before", b"beside", b"behind"]


@pytest.mark.parametrize("value", [b"too large", b"fine"])
def test_a_sender_closes_whatever_it_could_not_send(value: bytes) -> None:
    async def scene() -> list[bytes]:
        broker = Broker()
        sender = Sender(broker)  # type: ignore[arg-type]
        sender.start()
        sender.put(emission(value))
        async with asyncio.timeout(STUCK_S):
            await sender.close()
        return broker.taken

    assert asyncio.run(scene()) == ([value] if value == b"fine" else [])
