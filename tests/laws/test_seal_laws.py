"""What SEAL promises beyond the seven laws: what it seals verifies, and no other bytes do."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.checkpoint import LogKeys, Verifiers
from pipeline.audit.leaves import leaf_value
from pipeline.audit.merkle import leaf_hash
from pipeline.audit.verify import Verifier
from pipeline.events.chain import Entry, Position, batch_digest, links
from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.events.records import Tick
from pipeline.seal.batch import Sealed, SealState, begin, seal
from pipeline.tables import RECORDS

KEYS = LogKeys("sluice.test/log", b"e" * 32, b"m" * 32)
VERIFIERS = Verifiers(KEYS.verifier_keys)
LEAF, OFFSET, TIME, BODY = (RECORDS.columns.index(name) for name in ("leaf", "offset", "time", "body"))

sizes = st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=8)
cuts = st.lists(st.integers(1, 7), min_size=1, max_size=20)
limits = st.integers(1, 9)


def chained_log(batches: Sequence[tuple[int, bool]]) -> list[Entry]:
    """Valid batches; before those marked, a loser's batch of the same size."""
    at, entries, time = Position(), [], 0
    for count, raced in batches:
        if raced:
            stale = links(Position(at.offset, b"\x07" * 32), count)
            entries += [Entry(at.offset + i, 9, link, b"lost") for i, link in enumerate(stale)]
            at = Position(at.offset + count, at.digest)
        values = [encode(Tick(time + i)) for i in range(count)]
        time += count
        entries += [
            Entry(at.offset + i, 9, link, value)
            for i, (link, value) in enumerate(zip(links(at, count), values, strict=True))
        ]
        at = Position(at.offset + count, batch_digest(at.digest, at.offset, values))
    return entries


def plain_log(batches: Sequence[tuple[int, bool]]) -> list[Entry]:
    count = sum(size for size, _ in batches)
    return [Entry(i, i, None, encode(Access(i, "ann", "read"))) for i in range(count)]


def run(topic: str, entries: Sequence[Entry], arrivals: Sequence[int], limit: int) -> list[Sealed]:
    """Feed entries as they arrive."""
    state: SealState = begin("g1", topic, 0)
    found: list[Sealed] = []
    waiting: list[Entry] = []
    rest, turn = list(entries), 0
    while rest or waiting:
        step = arrivals[turn % len(arrivals)]
        waiting, rest, turn = waiting + rest[:step], rest[step:], turn + 1
        made = seal(state, waiting, 1000 * turn, KEYS, limit)
        if made is None:
            if not rest:
                break
            continue
        found.append(made)
        state, waiting = made.state, waiting[made.consumed :]
    return found


def rows(found: Sequence[Sealed]) -> list[tuple[object, ...]]:
    return [row for made in found for row in zip(*made.columns, strict=True)]


def leaves_of(found: Sequence[tuple[object, ...]]) -> list[bytes]:
    return [leaf_hash(leaf_value(r[OFFSET], r[TIME], r[BODY])) for r in found]  # type: ignore[arg-type]


def leaves(found: Sequence[Sealed]) -> list[bytes]:
    return leaves_of(rows(found))


logs = st.one_of(
    st.tuples(st.just("decisions"), sizes.map(chained_log)),
    st.tuples(st.just("access"), sizes.map(plain_log)),
)


@settings(max_examples=60, deadline=None)
@given(logs, cuts, limits)
def test_what_is_sealed_verifies(log: tuple[str, list[Entry]], arrivals: list[int], limit: int) -> None:
    topic, entries = log
    found = run(topic, entries, arrivals, limit)
    verifier = Verifier(VERIFIERS)
    verifier.origin(f"g1/{topic}/0", [made.row for made in found], rows(found), source=entries)
    report = verifier.report()
    assert report.faults == ()
    assert (report.rows, report.source_batches) == (len(rows(found)), len(found))


@settings(max_examples=60, deadline=None)
@given(logs, limits, st.data())
def test_another_byte_anywhere_gives_another_root(
    log: tuple[str, list[Entry]], limit: int, data: st.DataObject
) -> None:
    topic, entries = log
    found = run(topic, entries, [50], limit)
    if not leaves(found):
        return
    sealed = rows(found)
    at = data.draw(st.integers(0, len(sealed) - 1))
    body = bytearray(sealed[at][BODY])  # type: ignore[call-overload]
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    changed = [*sealed[at][:BODY], bytes(body)]
    verifier = Verifier(VERIFIERS)
    altered = [*sealed[:at], changed, *sealed[at + 1 :]]
    verifier.origin(f"g1/{topic}/0", [made.row for made in found], altered)
    assert any("signed root" in fault.what for fault in verifier.report().faults)
