"""Sealed outcomes as the store holds them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pipeline.clickhouse.store import ClickHouseStore
from pipeline.errors import Malformed
from pipeline.events.codec import decode_log
from pipeline.events.records import Outcome

_log = logging.getLogger(__name__)
_PAGE = 2_000
_SQL = """
SELECT origin, leaf, body FROM records
WHERE kind = 'outcome' AND time >= fromUnixTimestamp64Milli({since:Int64})
  AND (origin, leaf) > ({origin:String}, {leaf:UInt64})
ORDER BY origin, leaf LIMIT {page:UInt32}
"""


def sealed_outcomes(store: ClickHouseStore, since: int) -> Iterator[Outcome]:
    """Outcomes from ``since`` (Unix ms) on, by origin and place in its log; one page of rows in memory at a time."""
    origin, leaf = "", 0
    while rows := store.query(_SQL, {"since": since, "origin": origin, "leaf": leaf, "page": _PAGE}):
        for origin, leaf, body in rows:
            try:
                record = decode_log(body.encode() if isinstance(body, str) else body)
            except Malformed as error:
                _log.warning("%s leaf %d: passed over: %s", origin, leaf, error)
                continue
            if isinstance(record, Outcome):
                yield record
