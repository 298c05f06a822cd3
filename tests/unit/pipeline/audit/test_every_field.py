"""The verifier derives every field of every record of ``decisions`` again, or the field is named here as an input."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from pipeline.admit.decide import decide
from pipeline.admit.ledger import Ledger
from pipeline.audit.rows import Typed, typed
from pipeline.clickhouse.native import declared, native_block
from pipeline.events.codec import decode_log, encode
from pipeline.events.messages import Completion
from pipeline.events.records import ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark, Tick, time_of
from pipeline.tables import RECORDS
from tests.unit.pipeline.audit.audit_world import START, chained, seal_all, stored
from tests.unit.pipeline.audit.every_field import Play, replayed
from tests.unit.pipeline.audit.filled import filled, other, value

KINDS: tuple[type[Any], ...] = get_args(LogRecord)
REPORTED = [name for name in Completion.__struct_fields__ if name in Outcome.__struct_fields__]
INPUTS: dict[type[Any], dict[str, str]] = {
    Decision: {"facts": "what the decision depends on; its own fields are walked below"},
    Outcome: {
        "completion": "where the worker's report lies, in a topic that is not sealed",
        **dict.fromkeys([n for n in REPORTED if n not in ("request", "organisation", "tenant")], "the worker's report"),
    },
    ControlMark: {"control": "the documents that the worker had read; never back"},
    Tick: {"time": "the worker's clock; never back"},
    SnapshotMark: {
        "position": "where the snapshot was taken",
        "slot": "where its chunks lie",
        "chunks": "how many they are",
    },
}
"""Fields that no rule can derive, each with the reason."""
FROM_THE_SOURCE = {
    "offset": "each request is answered once, in order",
    "skipped": "it goes on where the decision before ended",
    "first": "no offset is answered twice, and only strangers are answered together",
}
"""Facts that the verifier compares with what was decided before."""
DERIVED = [(kind, name) for kind in KINDS for name in kind.__struct_fields__ if name not in INPUTS.get(kind, {})]


def named(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else str(case)


@pytest.fixture(scope="module")
def played() -> Play:
    play = Play()
    play.play()
    return play


def test_the_history_has_every_kind_and_is_derived_again(played: Play) -> None:
    assert {type(record) for record in played.records} == set(KINDS)
    assert replayed(played.records).open == 0


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in k.__struct_fields__], ids=named)
def test_every_field_has_a_value_of_its_own_in_the_history(played: Play, kind: type[Any], name: str) -> None:
    default = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False)).get(name)
    found = [getattr(record, name) for record in played.records if type(record) is kind]
    assert any(one != default for one in found)


@pytest.mark.parametrize(("kind", "name"), DERIVED, ids=named)
def test_a_field_that_is_not_what_the_rules_give_is_a_fault(played: Play, kind: type[Any], name: str) -> None:
    for at, record in enumerate(played.records):
        if type(record) is kind:
            forged = msgspec.structs.replace(record, **{name: other(record, name)})
            assert replayed(played.records[:at]).push(forged, encode(forged), time_of(forged)), (at, name)


@pytest.mark.parametrize("name", Facts.__struct_fields__)
def test_a_decision_is_derived_again_from_any_value_of_a_fact(played: Play, name: str) -> None:
    play = Play()
    play.play()
    replay = replayed(play.records)
    assert isinstance(play.ledger, Ledger)
    facts = play.facts()
    changed = msgspec.structs.replace(facts, **{name: _fact(facts, name)})
    made = decide(play.ledger, play.documents, 0, changed)
    assert getattr(made.facts, name) == _fact(facts, name)
    assert bool(replay.push(made, encode(made), time_of(made))) == (name in FROM_THE_SOURCE)


@pytest.mark.parametrize("name", REPORTED)
def test_an_outcome_is_derived_again_from_any_value_of_a_report(name: str) -> None:
    play = Play()
    play.play()
    request = play.ask("beta").request
    made = play.outcome(request)
    assert getattr(made, name) == getattr(play.completion(request), name)
    assert replayed(play.records).push(made, encode(made), time_of(made)) == []


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_every_field_survives_in_the_sealed_row(kind: type[Any]) -> None:
    records = [filled(kind), filled(kind, 2)]
    rows = stored("decisions", chained([encode(record) for record in records])).rows
    columns = [dict(zip(RECORDS.columns, row, strict=True)) for row in rows]
    assert [decode_log(row["body"]) for row in columns] == records
    for row, record in zip(columns, records, strict=True):
        shown = {**(_fields(record.facts) if kind is Decision else {}), **_fields(record)}
        # the row's time is the append time; the record's own is in the body
        same = [name for name in shown.keys() & row.keys() if name not in ("kind", "offset", "time")]
        assert {name: row[name] for name in same} == {name: shown[name] for name in same}


@pytest.mark.parametrize("number", [-1, 2**63, 2**70])
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_number_that_no_column_holds_is_sealed_all_the_same(kind: type[Any], number: int) -> None:
    record = _numbered(filled(kind), number)
    value = encode(record)
    assert decode_log(value) == record
    columns = [[cell] for cell in typed("decisions", START, value)]
    kinds = declared()["records"]
    native_block(Typed._fields, [kinds[name] for name in Typed._fields], columns)
    assert seal_all("decisions", chained([value]))[0].manifest.rows == 1


def _numbered(record: Any, number: int) -> Any:
    """The record with the number in every field that can hold it, those of its facts as well."""
    whole = {name: number for name in record.__struct_fields__ if type(getattr(record, name)) is int}
    if isinstance(record, Decision):
        whole["facts"] = _numbered(record.facts, number)
    return msgspec.structs.replace(record, **whole)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _fact(facts: Facts, name: str) -> Any:
    """A value that is not the default; times and offsets must not run back."""
    later = {"offset": facts.offset + 1, "time": facts.time + 1, "deadline": facts.time + 7}
    return later.get(name, value(Facts, name))
