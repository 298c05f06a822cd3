"""SEAL refuses to go on where going on would hide a loss, and fills every column of the table."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.audit.rows import typed
from pipeline.errors import ConfigError, Fatal
from pipeline.events.chain import Entry, Position, links
from pipeline.events.codec import encode
from pipeline.events.messages import Manifest
from pipeline.events.records import Decision, Outcome
from pipeline.seal.batch import begin, heartbeat, resume, seal
from pipeline.tables import MANIFESTS, RECORDS
from tests.unit.pipeline.audit.audit_world import KEYS, START, Store, chained, decisions, history, plain, seal_all

VALUES = [encode(record) for record in history()]
ENTRIES = chained(VALUES)


def manifests(limit: int = 10) -> list[Manifest]:
    return [made.manifest for made in seal_all("decisions", ENTRIES, limit=limit)]


def test_batches_hold_whole_source_batches_within_the_limit() -> None:
    found = manifests(limit=12)
    assert [m.rows for m in found[:3]] == [10, 10, 10]
    assert all(m.rows + m.skipped == m.last + 1 - m.first for m in found)
    assert found[-1].rows == 0


def test_a_source_batch_above_the_limit_stands_alone() -> None:
    made = seal(begin("g1", "decisions", 0), ENTRIES, START, KEYS, 3)
    assert made is not None
    assert made.manifest.rows == 5


def test_an_incomplete_source_batch_waits() -> None:
    state = begin("g1", "decisions", 0)
    assert seal(state, ENTRIES[:3], START, KEYS) is None
    made = seal(state, ENTRIES[:7], START, KEYS)
    assert made is not None
    assert (made.consumed, made.state.position.offset) == (5, 5)


def test_nothing_is_sealed_from_nothing_and_a_heartbeat_says_so() -> None:
    state = begin("g1", "access", 0)
    assert seal(state, [], START, KEYS) is None
    beat = heartbeat(state, START, KEYS)
    assert (beat.manifest.rows, beat.manifest.size, beat.state.index) == (0, 0, 1)
    assert len(beat.columns) == len(RECORDS.columns)
    assert all(len(column) == 0 for column in beat.columns)


def test_invalid_records_alone_close_a_batch_once_the_limit_waits() -> None:
    junk = [Entry(offset, START, None, b"?") for offset in range(8)]
    state = begin("g1", "decisions", 0)
    assert seal(state, junk[:7], START, KEYS, 8) is None
    made = seal(state, junk, START, KEYS, 8)
    assert made is not None
    assert (made.manifest.rows, made.manifest.skipped, made.consumed) == (0, 8, 8)


def test_invalid_records_before_an_incomplete_batch_do_not_block_a_full_window() -> None:
    junk = [Entry(offset, START, None, b"?") for offset in range(6)]
    tail = [Entry(6 + i, START, link, b"v") for i, link in enumerate(links(Position(6), 4))]
    made = seal(begin("g1", "decisions", 0), [*junk, *tail[:2]], START, KEYS, 8)
    assert made is not None
    assert (made.manifest.rows, made.manifest.skipped, made.consumed) == (0, 6, 6)
    after = seal(made.state, tail, START, KEYS, 8)
    assert after is not None
    assert after.manifest.rows == 4


@pytest.mark.parametrize("entries", [ENTRIES[1:], [ENTRIES[0], ENTRIES[2], ENTRIES[1]], [ENTRIES[0], ENTRIES[0]]])
def test_a_gap_or_disorder_is_fatal(entries: list[Entry]) -> None:
    with pytest.raises(Fatal):
        seal(begin("g1", "decisions", 0), entries, START, KEYS)


@pytest.mark.parametrize(("kept_from", "lost"), [(0, False), (5, False), (6, True)])
def test_a_gap_is_a_loss_only_where_the_source_no_longer_reaches_back_to_it(kept_from: int, lost: bool) -> None:
    """The markers of a transaction take offsets 5 and 6, right behind what was sealed."""
    first = seal(begin("g1", "access", 0), plain([b"{}"] * 5), START, KEYS)
    assert first is not None
    behind = [entry._replace(offset=entry.offset + 7) for entry in plain([b"{}"] * 3)]
    if lost:
        with pytest.raises(Fatal, match="lost before they were sealed"):
            seal(first.state, behind, START, KEYS, kept_from=kept_from)
        return
    made = seal(first.state, behind, START, KEYS, kept_from=kept_from)
    assert made is not None
    found = made.manifest
    assert (found.first, found.last, found.rows, found.skipped) == (5, 9, 3, 2)
    store = Store("g1/access/0", entries=[*plain([b"{}"] * 5), *behind])
    for each in (first, made):
        store.rows += [list(row) for row in zip(*each.columns, strict=True)]
        store.manifests.append(each.row)
        store.sealed.append(each.manifest)
    assert store.verify(source=True).ok


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(ConfigError, match="decisions"):
        begin("g1", "requests", 0)


def test_resuming_refuses_what_does_not_hold_together() -> None:
    fresh, found = begin("g1", "decisions", 0), manifests()
    with pytest.raises(Fatal, match="does not follow"):
        resume(fresh, [found[0], found[2]])
    with pytest.raises(Fatal, match="expected manifests of"):
        resume(begin("g1", "decisions", 1), found)
    with pytest.raises(Fatal, match="its root"):
        resume(fresh, [msgspec.structs.replace(found[1], root=b"r" * 32)])
    with pytest.raises(Fatal, match="hashes"):
        resume(fresh, [msgspec.structs.replace(found[1], frontier=())])
    assert resume(fresh, []) == fresh


def test_tokens_differ_by_batch_and_repeat_with_the_batch() -> None:
    tokens = [made.token for made in seal_all("decisions", ENTRIES)]
    assert len(set(tokens)) == len(tokens)
    assert tokens == [made.token for made in seal_all("decisions", ENTRIES)]


def test_every_column_is_filled_in_declared_order() -> None:
    store = decisions()
    assert {len(row) for row in store.rows} == {len(RECORDS.columns)}
    assert {len(row) for row in store.manifests} == {len(MANIFESTS.columns)}
    records = [dict(zip(RECORDS.columns, row, strict=True)) for row in store.rows]
    assert [r["leaf"] for r in records] == list(range(len(records)))
    assert [r["body"] for r in records] == VALUES
    shown = {record["kind"] for record in records}
    assert shown == {"policy", "decision", "outcome", "snapshot", "tick"}
    for record, row in zip(history(), records, strict=True):
        if isinstance(record, Decision):
            assert row["reserved_tokens"] == (15 if record.verdict == "admit" else 0)
            assert row["reason"] == "".join(record.reasons)
            assert (row["rules"], row["severity"]) == (
                (("injection.override",), 3) if record.facts.findings else ((), 0)
            )
        elif isinstance(record, Outcome):
            assert (row["result"], row["output_tokens"]) == (record.result, record.output_tokens)
            assert row["latency_ms"] == record.latency_ms


def test_bytes_that_do_not_decode_are_sealed_as_malformed() -> None:
    assert typed("alerts", 7, b"\xff").kind == "malformed"
    assert typed("control", 7, b"[]") == typed("access", 7, b"")
    (made, _) = seal_all("alerts", plain([b"\xff"]))
    assert made.columns[-1] == [b"\xff"]
