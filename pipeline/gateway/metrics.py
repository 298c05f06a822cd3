"""The gateway's own metrics, which its parts count."""

from __future__ import annotations

from pipeline.metrics import GATEWAY, Meters


class Metrics(Meters):
    """The rows of the table that a gateway counts."""

    def __init__(self) -> None:
        super().__init__(GATEWAY)
