"""What a verification found: counts, and the first faults."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One discrepancy. ``leaf`` is -1 where the batch as a whole is concerned."""

    origin: str
    batch: int
    leaf: int
    what: str
    """Never holds content of a record."""


class Report(msgspec.Struct, frozen=True):
    """The account of a verification."""

    origins: int
    batches: int
    rows: int
    skipped: int
    """Records of the sources that were not valid."""
    source_batches: int
    """Batches compared with the source topic."""
    kinds: dict[str, int]
    admitted: int
    denied: int
    ended: int
    open: int
    """Admitted requests without an outcome at the end of the log."""
    overshoot: int
    """Outcomes above their reservation."""
    derived: int
    """Decisions and outcomes derived again."""
    not_derivable: int
    """Decisions of another decider version: not re-derivable by this build."""
    faults: tuple[Fault, ...]
    """The first ones, in the order of the log."""
    faults_total: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.faults_total == 0


class Faults:
    """Counts all, keeps the first ``limit``."""

    def __init__(self, limit: int) -> None:
        self.first: list[Fault] = []
        self.total = 0
        self._limit = limit

    def add(self, origin: str, batch: int, leaf: int, what: str) -> None:
        self.total += 1
        if len(self.first) < self._limit:
            self.first.append(Fault(origin, batch, leaf, what))
