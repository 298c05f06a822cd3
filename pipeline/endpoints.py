"""A client reaches Kafka and the store by these, under its own name.

``pipeline.kafka.clients`` and ``pipeline.clickhouse.client`` make every client of these: what authentication needs is
added here and there, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class KafkaEndpoint:
    """A Kafka cluster, and who asks it."""

    bootstrap: str
    """host:port of one or more brokers, by comma."""


@dataclass(frozen=True, slots=True)
class ClickHouseEndpoint:
    """A database on a ClickHouse server, and the account that asks it."""

    url: str
    user: str
    password: str = field(repr=False)
    database: str = "sluice"

    @property
    def address(self) -> str:
        """The URL without anything secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port}"
