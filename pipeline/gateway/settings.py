"""The settings and bounds of one gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ceilings of one process. Times in ms, sizes in bytes."""

    body_bytes: int = 1024 * 1024
    connections: int = 12_000
    address_connections: int = 4_000
    """Of one address. ``gateway.address_connections``; behind a proxy all callers have the proxy's."""
    open_requests: int = 10_000
    """Calls that wait for an answer; a tenant may have as many as are still free."""
    held_requests: int = 10_000
    held_bytes: int = 64 * 1024 * 1024
    write_ms: int = 20_000
    grace_ms: int = 7_000
    """Time after its deadline for which a request is still waited for; admit writes ``expired`` 5 s after it."""
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Addresses, keys and bounds of one gateway."""

    kafka: KafkaEndpoint
    keyring: Path
    pin: str = ""
    """Digest of the first deployment document."""
    host: str = "127.0.0.1"
    port: int = 8080
    reply_partition: int = 0
    """``gateway.lane``: the partition of ``responses`` that this gateway reads; one of its own where possible."""
    advertised_bootstrap: str = ""
    """Bootstrap servers told to direct producers; empty is that of ``kafka``. Protocol and mechanism likewise."""
    advertised_protocol: str = ""
    advertised_mechanism: str = ""
    certificate_file: str = ""
    """PEM of the certificate that it serves HTTPS under; empty: plain HTTP."""
    key_file: str = ""
    bounds: Bounds = field(default_factory=Bounds)

    def require_reply_partition(self, partitions: int) -> None:
        """Raise ConfigError where the reply partition does not exist."""
        if not 0 <= self.reply_partition < partitions:
            raise ConfigError(
                f"gateway.lane: expected 0 to {partitions - 1} (partitions of responses), got {self.reply_partition}; "
                "give each gateway one of them"
            )
