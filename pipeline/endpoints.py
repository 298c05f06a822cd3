"""A client reaches Kafka and the store by these, under its own name. What authentication needs is added here.

``pipeline.kafka.clients`` and ``pipeline.clickhouse.client`` make every client of these; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """A Kafka cluster, and who asks it."""

    bootstrap: str
    """host:port of one or more brokers, by comma."""

    def client_options(self) -> dict[str, object]:
        """Options that aiokafka's consumers, producers and admin clients share."""
        return {"bootstrap_servers": self.bootstrap}

    def faust_options(self) -> dict[str, object]:
        """Options of a Faust app that say the same."""
        return {"broker": [f"kafka://{server}" for server in self.bootstrap.split(",")]}


@dataclass(frozen=True, slots=True)
class ClickHouseSettings:
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
