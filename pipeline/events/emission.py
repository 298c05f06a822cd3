"""A record to send, and where it goes."""

from __future__ import annotations

from typing import NamedTuple


class Emission(NamedTuple):
    topic: str
    partition: int
    key: bytes
    value: bytes


def lane_partition(lane: int, partitions: int) -> int:
    """Where responses of a lane go; direct producers (-1) and lanes that do not exist share the last partition."""
    return lane if 0 <= lane < partitions else partitions - 1
