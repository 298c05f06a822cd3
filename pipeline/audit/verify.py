"""Verification takes rows and manifests and gives every discrepancy. It trusts the verifier keys and nothing else.

Works on iterables, in memory that does not grow with the log. Rows and manifests are sequences in the column order
of ``tables``; times are Unix ms, bodies bytes. Rows come ordered by leaf, manifests by batch, both up to the last
manifest. What is checked is listed at ``Verifier.origin``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.audit.checkpoint import Verifiers
from pipeline.audit.faults import Fault, Faults, Report
from pipeline.audit.replay import Replay
from pipeline.audit.source import SourceRecords
from pipeline.audit.walk import Row, Walk
from pipeline.events.chain import Entry
from pipeline.events.signed_control import ControlFold

__all__ = ["Fault", "Report", "Row", "Verifier"]


class Verifier:
    """The verifier checks origins one after the other and keeps the account."""

    def __init__(self, verifiers: Verifiers, max_faults: int = 100) -> None:
        self._verifiers = verifiers
        self._faults = Faults(max_faults)
        self._origins = self._batches = self._rows = self._skipped = self._source_batches = 0
        self._kinds: dict[str, int] = {}
        self._replays: list[Replay] = []

    def origin(
        self,
        name: str,
        manifests: Iterable[Row],
        rows: Iterable[Row],
        *,
        newest: str | None = None,
        source: Iterable[Entry] | None = None,
        replay: Replay | None = None,
        acts: ControlFold | None = None,
    ) -> None:
        """Check one log.

        Manifests are dense, contiguous in source offsets and chained by checkpoint; every checkpoint bears both
        signatures and binds its manifest; the rows give the root of each manifest, none missing, double or extra, and
        every typed column is that of the body. ``newest`` is a signed checkpoint known from elsewhere: the log must
        contain it. ``source`` are the Kafka records of the partition as far as they are kept, from a batch boundary
        or earlier: they must give the same valid records and chain digests. ``replay`` derives decisions and outcomes.
        ``acts`` tells who were operators and when: a signature in ``access`` must be one of theirs.
        """
        records = SourceRecords(source) if source is not None else None
        log = Walk(name, self._verifiers, self._faults, records, replay, acts)
        self._origins += 1
        log.expect(newest)
        pending: Iterator[Row] = iter(rows)
        following: Row | None = next(pending, None)
        for row in manifests:
            if not log.open(row):
                continue
            while following is not None and log.within(following):
                log.row(following)
                following = next(pending, None)
            log.close()
        while following is not None:
            log.stray(following)
            following = next(pending, None)
        log.end()
        self._count(log)
        if replay is not None:
            self._replays.append(replay)

    def report(self) -> Report:
        """Give the account so far."""
        replays = self._replays
        return Report(
            origins=self._origins,
            batches=self._batches,
            rows=self._rows,
            skipped=self._skipped,
            source_batches=self._source_batches,
            kinds=dict(sorted(self._kinds.items())),
            admitted=sum(r.admitted for r in replays),
            denied=sum(r.denied for r in replays),
            ended=sum(r.ended for r in replays),
            open=sum(r.open for r in replays),
            overshoot=sum(r.overshoot for r in replays),
            derived=sum(r.derived + r.settled for r in replays),
            not_derivable=sum(r.foreign for r in replays),
            faults=tuple(self._faults.first),
            faults_total=self._faults.total,
        )

    def _count(self, log: Walk) -> None:
        self._batches += log.batches
        self._rows += log.rows
        self._skipped += log.skipped
        self._source_batches += log.source_batches
        for kind, count in log.kinds.items():
            self._kinds[kind] = self._kinds.get(kind, 0) + count
