"""The verifier against every way of altering a sealed log that we know of. The untouched log is the control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.audit.checkpoint import Verifiers, sign_checkpoint
from pipeline.audit.replay import Replay
from pipeline.audit.rows import manifest_row, statement
from pipeline.audit.verify import Verifier
from pipeline.events.codec import decode_log, encode
from pipeline.events.messages import Access, Alert, Completion, Delivery, Manifest
from pipeline.events.records import (
    DECIDER,
    ControlMark,
    Decision,
    Facts,
    LogRecord,
    Outcome,
    SnapshotMark,
    Tick,
    Upgrade,
    time_of,
)
from pipeline.events.wire import InferenceBody
from pipeline.seal.batch import begin, seal
from pipeline.stage import InputBatch
from pipeline.tables import RECORDS
from tests.tickets import TICKETS, ticketed
from tests.unit.pipeline.audit.audit_world import (
    DOCUMENTS,
    KEYS,
    OTHER_KEYS,
    RULES,
    START,
    Store,
    appended,
    chained,
    control,
    decisions,
    history,
    plain,
    stored,
)

COLUMN = {name: at for at, name in enumerate(RECORDS.columns)}
BODY = COLUMN["body"]
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


def whats(store: Store, **options: Any) -> str:
    report = store.verify(**options)
    assert not report.ok
    return "\n".join(f.what for f in report.faults)


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


def test_what_admit_writes_in_batches_is_derived_again() -> None:
    ledger, documents = Ledger(), control()
    records: list[LogRecord] = []
    for turn in range(6):
        asked = [
            Intake(
                Facts(
                    offset=offset,
                    time=START + 100 * turn - offset,
                    kind="inference",
                    key="k1",
                    client_request=f"r{offset}",
                    model="glossary",
                    max_tokens=10,
                    input_bound=5,
                    deadline=START + 5_000,
                ),
                InferenceBody("glossary", 10, b"sealed"),
            )
            for offset in range(4 * turn, 4 * turn + 4)
        ]
        held = list(ledger.open.values())[:2]
        told = [ticketed(Completion(h.request, "acme", "acme", "finished", "w", "a")) for h in held]
        reports = [Raw(10 * turn + at, START, encode(one), ()) for at, one in enumerate(told)]
        items: list[Raw | Intake] = [*reports, Raw(90, 0, b"?", ()), *asked]
        more, passed = True, 0
        while more:
            step = AdmitStage(documents, 0, TICKETS).step(ledger, InputBatch(items, START + 4_000 * turn, told=passed))
            ledger.commit()
            records += step.records
            items, more, passed = items[step.consumed :], step.more, ledger.time if step.ticked else 0
    assert {type(record) for record in records} == {ControlMark, Decision, Outcome, Tick}
    report = decisions(records).verify(source=True, replay=True)
    assert report.faults == ()
    assert (report.admitted + report.denied, report.open) == (24, len(ledger.open))


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


def signed_again(store: Store, at: int, time: int, **changes: Any) -> None:
    """The true keys sign a false manifest."""
    draft = msgspec.structs.replace(store.sealed[at], checkpoint="", **changes)
    note = sign_checkpoint(KEYS, draft.origin, draft.size, draft.root, time // 1000, (statement(draft),))
    store.manifests[at] = manifest_row(msgspec.structs.replace(draft, checkpoint=note))


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


def rewrite(change: Callable[[list[LogRecord]], object]) -> str:
    records = history()
    change(records)
    return whats(decisions(records), replay=True)


def index_of(records: list[LogRecord], kind: type, nth: int = 2) -> int:
    return [i for i, record in enumerate(records) if isinstance(record, kind)][nth]


def dated(record: Any, time: int) -> LogRecord:
    changed: LogRecord = msgspec.structs.replace(record, facts=msgspec.structs.replace(record.facts, time=time))
    return changed


def edit(kind: type, nth: int = 2, **changes: Any) -> Callable[[list[LogRecord]], object]:
    def change(records: list[LogRecord]) -> None:
        at = index_of(records, kind, nth)
        records[at] = msgspec.structs.replace(records[at], **changes)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.pop(index_of(r, Decision)), "have no decision"),
        (lambda r: r.insert(9, r[index_of(r, Decision, 1)]), "a second decision"),
        (lambda r: r.append(r[index_of(r, Outcome)]), "without an open admitted request"),
        (edit(Tick, 0, time=START), "time goes back"),
        (lambda r: r.__setitem__(index_of(r, Decision), dated(r[index_of(r, Decision)], START)), "time goes back"),
        (edit(SnapshotMark, 0, digest=b"d" * 32), "not of this history"),
        (edit(Outcome, charges=()), "not what the rules settle"),
        (edit(Outcome, latency_ms=1), "not what the rules settle"),
        (edit(Outcome, sequence=77), "not what the rules settle"),
        (edit(Outcome, completion=-1, result="expired"), "expired before"),
        (edit(Decision, tenant="beta"), "not what the rules give"),
        (edit(Decision, charges=()), "not what the rules give"),
        (edit(Decision, control=3), "goes back"),
        (edit(Decision, control=99), "is not in the log"),
    ],
)
def test_a_false_history_sealed_in_good_order_is_found_by_deriving_it(change: Any, expected: str) -> None:
    assert expected in rewrite(change)


@pytest.mark.parametrize(("ahead", "right"), [(5_000, True), (5_001, False)])
def test_a_time_is_at_most_five_seconds_ahead_of_the_append_time(ahead: int, right: bool) -> None:
    records = history()
    at = index_of(records, Decision, -1)
    entries = appended(records[: at + 1])
    time = records[at].facts.time  # type: ignore[union-attr]
    behind = [entry._replace(time=time - ahead) if entry.value == encode(records[at]) else entry for entry in entries]
    report = stored("decisions", behind).verify(replay=True)
    assert report.ok == right
    assert right or [f.what for f in report.faults] == [
        f"time is {ahead} ms ahead of the append time: expected at most 5000"
    ]


def test_a_tick_counts_for_no_more_than_its_append_time() -> None:
    """A fast clock's tick, and the expiry that its writer took it for."""
    entries = appended([record for record in history() if not isinstance(record, SnapshotMark)])
    early = [entry._replace(time=START + 10_000) if entry.time > START + 10_000 else entry for entry in entries]
    faults = stored("decisions", early).verify(replay=True).faults
    assert any("expired before deadline" in fault.what for fault in faults)


def test_leaves_of_a_lifted_log_hold_append_times() -> None:
    store = decisions()
    assert {manifest.leaves for manifest in store.sealed} == {3}
    signed_again(store, 0, store.sealed[0].time, leaves=1)
    assert "a leaf without the append time of its record" in whats(store, replay=True)
    signed_again(store, 0, store.sealed[0].time, leaves=4)
    assert "expected leaves of form 1 to 3, got 4" in whats(store)


def test_a_batch_that_the_build_before_sealed_comes_out_of_its_source_again() -> None:
    """A sealer that takes over inserts the last batch once more, in the form in which it was signed."""
    entries, state = appended(history()), begin("g1", "decisions", 0)
    before = seal(state, entries, START, KEYS, 10, 1)
    assert before is not None
    again = seal(state, entries, START, KEYS, 10, before.manifest.leaves)
    assert again is not None
    assert (again.manifest.root, again.columns) == (before.manifest.root, before.columns)
    behind = seal(before.state, entries[before.consumed :], START, KEYS, 10)
    assert behind is not None
    store = Store(entries=entries)
    for made in (before, behind):
        store.rows += [list(row) for row in zip(*made.columns, strict=True)]
        store.manifests.append(made.row)
    assert store.verify(source=True).ok
    times = [row[COLUMN["time"]] for row in store.rows]
    assert times[: len(before.columns[0])] == [time_of(record) for record in history()][: len(before.columns[0])]
    assert times[-1] == {entry.offset: entry.time for entry in entries}[store.rows[-1][COLUMN["offset"]]]


def test_what_a_later_build_decides_is_counted_and_not_called_a_fault_behind_its_mark() -> None:
    records = history()
    at = index_of(records, Decision)
    behind = [record for record in records[at:] if isinstance(record, Decision)]
    before = records[at - 1]
    assert isinstance(before, Decision)
    records.insert(at, Upgrade(before.facts.time, DECIDER, DECIDER + 1, before.facts.offset + 1))
    records[at + 1] = msgspec.structs.replace(records[at + 1], decider=DECIDER + 1)
    report = decisions(records).verify(replay=True)
    assert (report.not_derivable, report.ok) == (len(behind), True)


@pytest.mark.parametrize("decider", [DECIDER - 1, DECIDER + 1])
def test_a_decision_of_another_decider_is_a_fault_where_no_mark_leads_to_it(decider: int) -> None:
    def change(records: list[LogRecord]) -> None:
        at = index_of(records, Decision)
        records[at] = msgspec.structs.replace(records[at], decider=decider)

    assert "a decision of decider" in rewrite(change)


def test_an_altered_control_log_shows_in_the_decisions() -> None:
    store = decisions()
    documents = [d.replace(b'"amount": 80', b'"amount": 10') for d in DOCUMENTS]
    verifier = Verifier(Verifiers(KEYS.verifier_keys))
    replay = Replay(RULES, 0, enumerate(documents))
    verifier.origin(store.name, store.manifests, store.rows, replay=replay)
    assert any("not what the rules give" in f.what for f in verifier.report().faults)


def test_faults_are_counted_in_full_and_kept_up_to_the_bound() -> None:
    store = decisions()
    for row in store.rows:
        row[COLUMN["tenant"]] = "x"
    verifier = Verifier(Verifiers(KEYS.verifier_keys), max_faults=5)
    verifier.origin(store.name, store.manifests, store.rows)
    assert len(verifier.report().faults) == 5
    assert verifier.report().faults_total == len(store.rows)


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
