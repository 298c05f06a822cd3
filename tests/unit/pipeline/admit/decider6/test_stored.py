"""What version 0.1.0 stored is folded and derived again by decider 6 to the same bytes, and converted once."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec

from pipeline.admit import emissions
from pipeline.admit.decider6.decide import decide
from pipeline.admit.decider6.ledger import Ledger6, Position6
from pipeline.admit.idempotency import IdempotencyKeys, digest_of
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.journal import UndoJournal
from pipeline.admit.ledger import Ledger
from pipeline.admit.upgrade import converted, fold, mark
from pipeline.events.codec import decode_log, encode
from pipeline.events.control import Control, parse
from pipeline.events.emission import Emission
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.events.wire import decode_inference

STORED = Path(__file__).parent / "stored"
DECISIONS = (STORED / "decisions.jsonl").read_bytes().splitlines()
LEDGER = (STORED / "ledger.json").read_bytes()
PARTITIONS = 4
OWNERS = [("acme-1", "once"), ("acme-1", "mine"), ("beta-1", "once")]


def documents() -> Control:
    control = Control()
    for version, line in enumerate((STORED / "control.jsonl").read_bytes().splitlines()):
        control.apply(version, parse(line))
    return control


def sent(record: LogRecord, control: Control) -> list[Emission]:
    """Everything that follows from a record."""
    if isinstance(record, Outcome):
        return emissions.after_outcome(record, PARTITIONS)
    if not isinstance(record, Decision):
        return []
    facts = record.facts
    body = decode_inference((STORED / "body.json").read_bytes())
    found = emissions.after_decision(record, 0, control, Intake(facts, body, b"wrap"))
    if facts.fault == "malformed":
        found.append(emissions.dead_letter((Raw(facts.offset, facts.time, b"?", ()),), 0, facts.fault))
    return found


def test_the_fold_of_stored_records_is_the_stored_ledger() -> None:
    ledger = Ledger6()
    for line in DECISIONS:
        ledger.apply(decode_log(line))
    assert ledger.dump() == LEDGER


def test_a_stored_ledger_is_written_again_to_its_bytes() -> None:
    assert Ledger6.load(LEDGER).dump() == LEDGER


def test_stored_decisions_derive_again_to_their_bytes() -> None:
    ledger, control = Ledger6(), documents()
    for line in DECISIONS:
        record = decode_log(line)
        if isinstance(record, Decision):
            assert encode(decide(ledger, control, 0, record.facts)) == line
        ledger.apply(record)


def test_what_follows_from_stored_records_has_the_stored_bytes() -> None:
    control = documents()
    made = [(number, *one) for number, line in enumerate(DECISIONS) for one in sent(decode_log(line), control)]
    stored = [json.loads(line) for line in (STORED / "emissions.jsonl").read_text().splitlines()]
    assert made == [(n, topic, where, *map(base64.b64decode, pair)) for n, topic, where, *pair in stored]


def test_a_converted_ledger_is_one_of_today() -> None:
    before = Ledger6.load(LEDGER)
    after = converted(before, mark(before))
    assert Ledger.load(after.dump()).dump() == after.dump()
    position = {name: getattr(after.position, name) for name in Position6.__struct_fields__}
    assert position == msgspec.structs.asdict(before.position)
    assert (set(after.open), after.accounts.packed) == (set(before.open), before.accounts.packed)


def test_keys_and_sessions_of_before_still_hold() -> None:
    before = Ledger6.load(LEDGER)
    waiting = next(iter(before.open.values()))
    before.idempotent[f"{waiting.principal}/mine"] = (waiting.request, waiting.time)
    after = converted(before, mark(before))
    held = [after.idempotency.holder(digest_of(principal, key), after.time) for principal, key in OWNERS]
    assert held == [0, waiting.offset, None]
    assert {r.client_request: r.idempotency for r in after.open.values() if r.idempotency} == {
        waiting.client_request: "mine"
    }
    assert {f"{key}/{session}" for key in after.sessions for session in after.sessions[key]} == set(before.sessions)


def test_deciding_goes_on_behind_everything_that_has_a_decision() -> None:
    """The old build could answer a request twice, and its position then lies below what it has answered."""
    ledger = Ledger6()
    for line in DECISIONS:
        ledger.apply(decode_log(line))
    end = ledger.position.next_request
    twice = next(record for line in DECISIONS if isinstance(record := decode_log(line), Decision))
    ledger.apply(twice)
    assert ledger.position.next_request < end
    lifted = fold(ledger, mark(ledger), ledger.time)
    assert lifted.position.next_request == end


def test_converted_keys_lie_in_the_order_of_their_requests() -> None:
    offsets = [9_000_000, 5, 4_095, 4_096, 12_287, 12_288, 0, 8_999_999]
    ledger = Ledger6()
    for nth, offset in enumerate(offsets):
        ledger.stored.idempotent[f"ann/{nth}"] = (f"g1-0-{offset}", 1_000_000_000 - offset % 7)
    ledger.stored.idempotent["ann/twice/told"] = ("g1-0-5", 1_000_000_000)
    slow, journal, time = IdempotencyKeys(), UndoJournal(), 0
    for name, (request, began) in sorted(
        ledger.stored.idempotent.items(), key=lambda held: (int(held[1][0].rpartition("-")[2]), held[0])
    ):
        time = max(time, began)
        slow.hold(digest_of(*name.split("/", 1)), int(request.rpartition("-")[2]), time, journal)
    made = converted(ledger, mark(ledger)).idempotency
    assert b"".join(made.rows(time)) == b"".join(slow.rows(time))
