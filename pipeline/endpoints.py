"""A client reaches Kafka and the store by these, under its own name.

``pipeline.kafka.clients`` and ``pipeline.clickhouse.client`` make every client of these: what authentication needs is
added here and there, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """A client and the brokers prove to each other who they are."""

    protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as Kafka calls them."""
    mechanism: str = ""
    """Of SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER."""
    user: str = ""
    password: str = field(default="", repr=False)
    token_command: str = ""
    """OAUTHBEARER: prints a bearer token."""
    ca_file: str = ""
    """PEM of the authorities that the brokers' certificates come from; empty: those of the system."""
    certificate_file: str = ""
    """PEM of the client's own certificate and key, for mutual TLS."""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class KafkaEndpoint:
    """A Kafka cluster, and who asks it."""

    bootstrap: str
    """host:port of one or more brokers, by comma."""
    security: KafkaSecurity = KafkaSecurity()


@dataclass(frozen=True, slots=True)
class ClickHouseEndpoint:
    """A database on a ClickHouse server, and the account that asks it."""

    url: str
    user: str
    password: str = field(repr=False)
    database: str = "sluice"
    ca_file: str = ""
    """PEM of the authorities that the server's certificate comes from; empty: those of the system."""

    @property
    def address(self) -> str:
        """The URL without anything secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port}"
