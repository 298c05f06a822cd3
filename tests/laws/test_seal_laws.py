"""The laws of DESIGN over SEAL: accounting, determinism, split invariance, stopped = never stopped, closed world."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.checkpoint import LogKeys, Verifiers
from pipeline.audit.merkle import leaf_hash, root
from pipeline.audit.rows import leaf_value
from pipeline.audit.verify import Verifier
from pipeline.events.chain import ChainReader, Entry, Position, batch_digest, links
from pipeline.events.codec import encode
from pipeline.events.records import Access, Manifest, Tick
from pipeline.stages.seal import Sealed, SealState, begin, resume, seal
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


def run(
    topic: str, entries: Sequence[Entry], arrivals: Sequence[int], limit: int, restart: bool = False
) -> list[Sealed]:
    """Feed entries as they arrive; with ``restart`` nothing but the manifest's bytes survives between two batches."""
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
        if restart:
            again = resume(begin("g1", topic, 0), [made.manifest])
            assert again == state
            state, waiting = (
                again,
                [e for e in entries[: len(entries) - len(rest)] if e.offset >= again.position.offset],
            )
    return found


def rows(found: Sequence[Sealed]) -> list[tuple[object, ...]]:
    return [row for made in found for row in zip(*made.columns, strict=True)]


def leaves(found: Sequence[Sealed]) -> list[bytes]:
    return [leaf_hash(leaf_value(r[OFFSET], r[TIME], r[BODY])) for r in rows(found)]  # type: ignore[arg-type]


def strip(manifest: Manifest) -> tuple[object, ...]:
    return manifest.first, manifest.last, manifest.rows, manifest.skipped, manifest.size, manifest.root, manifest.chain


logs = st.one_of(
    st.tuples(st.just("decisions"), sizes.map(chained_log)),
    st.tuples(st.just("access"), sizes.map(plain_log)),
)


@settings(max_examples=60, deadline=None)
@given(logs, cuts, limits)
def test_accounting_every_valid_record_is_one_leaf(
    log: tuple[str, list[Entry]], arrivals: list[int], limit: int
) -> None:
    topic, entries = log
    found = run(topic, entries, arrivals, limit)
    reader = ChainReader()
    valid = [e for entry in entries for e in (reader.push(entry) if topic == "decisions" else [entry])]
    assert [(r[OFFSET], r[BODY]) for r in rows(found)] == [(e.offset, e.value) for e in valid]
    assert [r[LEAF] for r in rows(found)] == list(range(len(valid)))
    if found:
        assert found[-1].manifest.size == len(valid)
        assert found[-1].manifest.root == root(leaves(found))
        assert found[-1].manifest.rows > 0
    assert all(made.manifest.rows <= max(limit, 5) for made in found)


@settings(max_examples=60, deadline=None)
@given(logs, cuts, cuts, limits, limits)
def test_split_invariance_of_leaves_and_roots(
    log: tuple[str, list[Entry]], some: list[int], other: list[int], low: int, high: int
) -> None:
    topic, entries = log
    one, two = run(topic, entries, some, low), run(topic, entries, other, high)
    assert leaves(one) == leaves(two)
    by_size = {made.manifest.size: made.manifest.root for made in one}
    assert all(by_size.get(made.manifest.size, made.manifest.root) == made.manifest.root for made in two)
    assert [r[LEAF:] for r in rows(one)] == [r[LEAF:] for r in rows(two)]


@settings(max_examples=60, deadline=None)
@given(logs, cuts, limits)
def test_stopped_is_never_stopped(log: tuple[str, list[Entry]], arrivals: list[int], limit: int) -> None:
    topic, entries = log
    whole = run(topic, entries, [len(entries) + 1], limit)
    stopped = run(topic, entries, [len(entries) + 1], limit, restart=True)
    assert [strip(made.manifest) for made in whole] == [strip(made.manifest) for made in stopped]
    assert rows(whole) == rows(stopped)
    pieces = run(topic, entries, arrivals, limit, restart=True)
    assert leaves(pieces) == leaves(whole)


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
