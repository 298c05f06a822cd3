"""The verifier against every way of altering a sealed log that we know of. The untouched log is the control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.audit.rows import manifest_row
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision
from pipeline.tables import RECORDS
from tests.unit.pipeline.audit.audit_world import OTHER_KEYS, Store, decisions, history, plain, stored
from tests.unit.pipeline.audit.tampering import BODY, COLUMN, signed_again, whats

Tamper = Callable[[Store], object]


def forge(store: Store, at: int, **changes: Any) -> None:
    """Rewrite a manifest, its columns included."""
    made = msgspec.structs.replace(store.sealed[at], **changes)
    store.manifests[at] = manifest_row(made)


def swap_bodies(store: Store) -> None:
    for column in range(COLUMN["offset"], len(RECORDS.columns)):
        store.rows[4][column], store.rows[5][column] = store.rows[5][column], store.rows[4][column]


def flip(store: Store) -> None:
    body = bytearray(store.rows[7][BODY])
    body[len(body) // 2] ^= 1
    store.rows[7][BODY] = bytes(body)


def cut(store: Store, batches: int) -> None:
    store.manifests = store.manifests[:-batches]
    store.rows = store.rows[: store.sealed[-batches - 1].size]


def edit_signature(store: Store) -> None:
    note = store.sealed[1].checkpoint
    other = "B" if note[-1000] == "A" else "A"
    forge(store, 1, checkpoint=note[:-1000] + other + note[-999:])


TAMPERS: dict[str, tuple[Tamper, str]] = {
    "byte flipped in a body": (flip, "signed root"),
    "row dropped": (lambda s: s.rows.pop(12), "rows 12 to 12 are missing"),
    "row doubled": (lambda s: s.rows.insert(3, list(s.rows[3])), "double"),
    "row added behind": (lambda s: s.rows.append([*s.rows[-1][:2], len(s.rows), *s.rows[-1][3:]]), "no manifest"),
    "rows reordered": (lambda s: s.rows.reverse(), "missing"),
    "records swapped": (swap_bodies, "out of order"),
    "offset forged": (lambda s: s.rows[2].__setitem__(COLUMN["offset"], 900), "outside"),
    "offset forged within the batch": (lambda s: s.rows[9].__setitem__(COLUMN["offset"], 10), "signed root"),
    "body of another type": (lambda s: s.rows[2].__setitem__(BODY, None), "body of bytes"),
    "leaf of another type": (lambda s: s.rows[2].__setitem__(COLUMN["leaf"], "x"), "missing"),
    "manifest dropped": (lambda s: s.manifests.pop(1), "manifests 1 to 1 are missing"),
    "manifest doubled": (lambda s: s.manifests.insert(1, s.manifests[0]), "double or out of order"),
    "manifest unreadable": (lambda s: s.manifests.__setitem__(1, (b"{",)), "cannot be read"),
    "manifest column forged": (lambda s: s.manifests.__setitem__(1, ("x", *s.manifests[1][1:])), "columns"),
    "first moved": (lambda s: forge(s, 1, first=s.sealed[1].first + 1), "starts at offset"),
    "last moved": (lambda s: forge(s, 1, last=s.sealed[1].last + 1), "add up"),
    "skips moved": (lambda s: forge(s, 1, skipped=99), "add up"),
    "last and skips moved": (
        lambda s: forge(s, 1, last=s.sealed[1].last + 1, skipped=s.sealed[1].skipped + 1),
        "signed for another manifest",
    ),
    "time moved": (lambda s: forge(s, 1, time=s.sealed[1].time + 1), "signed for another manifest"),
    "chain digest edited": (lambda s: forge(s, 1, chain=b"\x01" * 32), "signed for another manifest"),
    "frontier edited": (lambda s: forge(s, 1, frontier=(b"\x01" * 32,)), "frontier"),
    "root edited": (lambda s: forge(s, 1, root=b"\x01" * 32), "signed root"),
    "size edited": (lambda s: forge(s, 1, size=s.sealed[1].size - 1), "the size is"),
    "origin edited": (lambda s: forge(s, 1, origin="g1/decisions/1"), "another origin"),
    "topic edited": (lambda s: forge(s, 1, topic="alerts"), "another origin"),
    "previous edited": (lambda s: forge(s, 1, previous=b""), "does not follow"),
    "checkpoint of another batch": (
        lambda s: forge(s, 1, checkpoint=s.sealed[2].checkpoint),
        "not over this manifest's",
    ),
    "signature edited": (edit_signature, "does not hold"),
    "signature line taken off": (
        lambda s: forge(s, 1, checkpoint=s.sealed[1].checkpoint.rsplit("\u2014", 1)[0]),
        "expected Ed25519 and ML-DSA-44",
    ),
}


def test_an_untouched_log_verifies_completely() -> None:
    store = decisions()
    report = store.verify(source=True, replay=True, newest=store.sealed[-1].checkpoint)
    assert report.faults == ()
    records = [decode_log(row[BODY]) for row in store.rows]
    assert report.rows == len(records) == sum(m.rows for m in store.sealed) == store.sealed[-1].size
    assert report.skipped == sum(m.skipped for m in store.sealed) > 0
    assert report.batches == len(store.sealed)
    assert report.source_batches == len(store.sealed) - 1
    assert report.kinds["decision"] == report.admitted + report.denied
    assert report.kinds["outcome"] == report.ended
    assert report.admitted - report.ended == report.open > 0
    assert report.derived == report.kinds["decision"] + report.kinds["outcome"]


@pytest.mark.parametrize("name", TAMPERS)
def test_every_tampering_is_found(name: str) -> None:
    tamper, expected = TAMPERS[name]
    store = decisions()
    tamper(store)
    assert expected in whats(store)


def test_a_forged_append_time_is_found() -> None:
    store = decisions()
    store.rows[9][COLUMN["time"]] += 1
    assert "the rows do not give the signed root" in whats(store)


@pytest.mark.parametrize("column", [c for c in RECORDS.columns if c not in ("leaf", "offset", "time", "body")])
def test_every_forged_column_is_found(column: str) -> None:
    store = decisions()
    row = store.rows[9]
    value = row[COLUMN[column]]
    forged: dict[type, Any] = {int: lambda v: v + 1, str: lambda v: v + "x", tuple: lambda v: (*v, "x")}
    row[COLUMN[column]] = forged[type(value)](value)
    report = store.verify()
    assert any(f.leaf == 9 and column in f.what for f in report.faults)


def test_a_cut_tail_is_found_with_a_known_checkpoint() -> None:
    store = decisions()
    newest = store.sealed[-1].checkpoint
    cut(store, 2)
    assert "it was cut" in whats(store, newest=newest)
    assert store.verify().ok


def test_a_cut_tail_is_found_with_the_source() -> None:
    store = decisions()
    store.entries = store.entries[:-3]
    assert "source" in whats(store, source=True)


def test_a_log_signed_with_other_keys_is_found() -> None:
    store = decisions(keys=OTHER_KEYS)
    report = store.verify()
    assert [f.batch for f in report.faults] == list(range(len(store.sealed)))
    assert all("signatures of known keys" in f.what for f in report.faults)


def test_a_history_rewritten_with_the_true_keys_is_a_fork() -> None:
    honest = decisions()
    records = history()
    first = next(i for i, r in enumerate(records) if isinstance(r, Decision) and r.verdict == "deny")
    records[first] = msgspec.structs.replace(records[first], reasons=("busy",))
    forked = decisions(records)
    assert forked.verify().ok
    assert "forked" in whats(forked, newest=honest.sealed[-1].checkpoint)
    forked.entries = honest.entries
    assert "source does not hold" in whats(forked, source=True)
    assert "not what the rules give" in whats(forked, replay=True)


def test_a_fork_with_other_batches_does_not_meet_the_known_checkpoint() -> None:
    honest = decisions()
    shifted = history()[1:]
    assert "no batch ends at" in whats(decisions(shifted, limit=15), newest=honest.sealed[0].checkpoint)


def test_a_chain_digest_that_the_source_does_not_give_is_found() -> None:
    store = decisions()
    signed_again(store, 0, store.sealed[0].time, chain=b"c" * 32)
    assert "source does not hold" in whats(store, source=True)


def test_a_checkpoint_dated_unlike_its_manifest_is_found() -> None:
    store = decisions()
    last = len(store.sealed) - 1
    signed_again(store, last, store.sealed[last].time)
    assert store.verify().ok
    signed_again(store, last, store.sealed[last].time + 60_000)
    assert "signed for another manifest" in whats(store)


def test_a_known_checkpoint_must_be_genuine_and_of_this_log() -> None:
    store = decisions()
    assert "another origin" in whats(store, newest=stored("alerts", plain([b"{}"])).sealed[0].checkpoint)
    assert "known checkpoint" in whats(store, newest="nonsense")
