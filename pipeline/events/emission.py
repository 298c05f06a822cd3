"""An emission is a record to send, with its place."""

from __future__ import annotations

from typing import NamedTuple


class Emission(NamedTuple):
    """A record goes to one partition of a topic."""

    topic: str
    partition: int
    key: bytes
    value: bytes


def lane_partition(lane: int, partitions: int) -> int:
    """Give the partition of a lane's responses; direct producers (-1) and unknown lanes share the last one."""
    return lane if 0 <= lane < partitions else partitions - 1
