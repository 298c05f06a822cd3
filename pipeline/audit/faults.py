"""A verification finds counts and faults, of which the first are kept."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """The log has one discrepancy. ``leaf`` is -1 where the batch as a whole is concerned."""

    origin: str
    batch: int
    leaf: int
    what: str
    """Never holds content of a record."""


class Report(msgspec.Struct, frozen=True):
    """A verification ends with this account."""

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
        """Tell whether nothing is wrong."""
        return self.faults_total == 0


class Faults:
    """All faults are counted, the first ``limit`` kept."""

    def __init__(self, limit: int) -> None:
        self.first: list[Fault] = []
        self.total = 0
        self._limit = limit

    def add(self, origin: str, batch: int, leaf: int, what: str) -> None:
        self.total += 1
        if len(self.first) < self._limit:
            self.first.append(Fault(origin, batch, leaf, what))
