"""A sealed log is compared with the topics that it was sealed from, as far as they still go."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.audit.rows import manifest_row
from pipeline.events.codec import encode
from pipeline.events.messages import Access, Alert, Delivery, Manifest
from tests.unit.pipeline.audit.audit_world import DOCUMENTS, chained, decisions, plain, stored
from tests.unit.pipeline.audit.tampering import BODY, COLUMN, whats


def test_one_lost_row_does_not_accuse_later_batches() -> None:
    store = decisions()
    store.rows.pop(2)
    assert {f.batch for f in store.verify().faults} == {0}


@pytest.mark.parametrize(
    ("topic", "values"),
    [
        ("alerts", [encode(Alert("a1", 5, "burst", 3, "acme", "acme", "ann", "Burst", 3, 1)), b"junk", b"{}"]),
        ("access", [encode(Access(5, "ann", "login", "acme", "viewer"))] * 12),
        ("deliveries", [encode(Delivery("a1", "acme", "soc", 5, 1, "delivered", 200))]),
        ("control", DOCUMENTS),
    ],
)
def test_topics_without_a_chain_seal_every_record(topic: str, values: list[bytes]) -> None:
    store = stored(topic, plain(values))
    report = store.verify(source=True)
    assert report.faults == ()
    assert (report.rows, report.skipped) == (len(values), 0)
    store.entries[0] = store.entries[0]._replace(value=b"other")
    assert "source does not hold" in whats(store, source=True)


def test_the_time_of_a_control_record_is_committed_to() -> None:
    store = stored("control", plain(DOCUMENTS))
    store.rows[1][COLUMN["time"]] += 1
    assert "signed root" in whats(store)


def test_a_source_that_starts_later_is_compared_from_there() -> None:
    store = decisions()
    store.entries = [e for e in store.entries if e.offset >= store.sealed[1].first]
    report = store.verify(source=True)
    assert report.ok
    assert report.source_batches == sum(1 for m in store.sealed[1:] if m.rows)


def test_a_hole_in_the_source_is_no_agreement() -> None:
    store = decisions()
    store.entries = [e for e in store.entries if e.offset != store.sealed[1].first]
    assert "source does not hold" in whats(store, source=True)


def test_manifests_read_back_from_the_audit_topic_make_the_same_rows() -> None:
    store = decisions()
    bodies = [row[-1] for row in store.manifests]
    again = [msgspec.json.decode(body, type=Manifest) for body in bodies if isinstance(body, bytes)]
    assert [manifest_row(m) for m in again] == store.manifests


def test_losers_records_are_in_no_row() -> None:
    store = decisions()
    assert chained([b"x"])[0].offset == 0
    assert all(row[BODY] != b"lost the race" for row in store.rows)
    assert any(entry.value == b"lost the race" for entry in store.entries)
