"""The same producer for programs without an event loop: one thread runs the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.producer.client import Producer, Ticket
from pipeline.producer.outcomes import Result
from pipeline.producer.redaction import Left, Redact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SyncTicket:
    """A written request; see Ticket for what its methods raise."""

    producer: SyncProducer
    ticket: Ticket

    @property
    def client_request(self) -> str:
        return self.ticket.client_request

    @property
    def request(self) -> str:
        return self.ticket.request

    @property
    def left(self) -> Left:
        return self.ticket.left

    def result(self, seconds: float | None = None) -> Result:
        return self.producer.call(self.ticket.result(seconds))

    def cancel(self) -> None:
        self.producer.call(self.ticket.cancel())


class SyncProducer:
    """Use as a context manager; its methods may be called from any thread."""

    def __init__(
        self,
        gateway_url: str,
        api_key: str,
        bootstrap: str | None = None,
        kafka_options: Mapping[str, Any] | None = None,
        redact: Redact = False,
        ca_file: str = "",
    ) -> None:
        self._producer = Producer(gateway_url, api_key, bootstrap, kafka_options, redact, ca_file)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sluice-producer", daemon=True)

    def __enter__(self) -> SyncProducer:
        self._thread.start()
        try:
            self.call(self._producer.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call(self._producer.close())
        finally:
            self._end()

    def submit(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> SyncTicket:
        """Write one request; parameters and errors as for ``Producer.submit``."""
        return SyncTicket(self, self.call(self._producer.submit(messages, **options)))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the producer's loop and wait for it. Raises ConfigError where the producer is not open."""
        if not self._thread.is_alive():
            work.close()
            raise ConfigError("expected an open producer, got one that is not open; use it in a with block")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
