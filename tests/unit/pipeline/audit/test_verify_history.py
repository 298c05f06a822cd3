"""A false history that is sealed in good order is found by deriving it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.audit.checkpoint import Verifiers
from pipeline.audit.replay import Replay
from pipeline.audit.verify import Verifier
from pipeline.events.codec import encode
from pipeline.events.messages import Completion
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
from tests.tickets import TICKETS, ticketed
from tests.unit.pipeline.audit.audit_world import (
    DOCUMENTS,
    KEYS,
    RULES,
    START,
    Store,
    appended,
    control,
    decisions,
    history,
    stored,
)
from tests.unit.pipeline.audit.tampering import COLUMN, signed_again, whats


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
