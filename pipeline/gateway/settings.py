"""What an operator sets for one gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ceilings of one process. Times in ms, sizes in bytes."""

    body_bytes: int = 1024 * 1024
    connections: int = 12_000
    open_requests: int = 10_000
    held_requests: int = 10_000
    held_bytes: int = 64 * 1024 * 1024
    write_ms: int = 20_000
    grace_ms: int = 7_000
    """How long after its deadline a request is still waited for; admit writes ``expired`` 5 s after it."""
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``lane`` is the partition of ``responses`` that this gateway reads; give each gateway its own where possible."""

    bootstrap: str
    keyring: Path
    host: str = "127.0.0.1"
    port: int = 8080
    lane: int = 0
    advertised_bootstrap: str = ""
    """Bootstrap servers told to direct producers; empty is ``bootstrap``."""
    bounds: Bounds = field(default_factory=Bounds)

    def require_lane(self, partitions: int) -> None:
        """Raises ConfigError where the lane is not a partition."""
        if not 0 <= self.lane < partitions:
            raise ConfigError(
                f"gateway.lane: expected 0 to {partitions - 1} (partitions of responses), got {self.lane}"
            )
