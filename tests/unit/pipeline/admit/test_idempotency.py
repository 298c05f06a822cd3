"""An idempotency key is held while its run is open or answered; the table keeps to that through any journal."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.admit.decide import decide, expired, following, outcome
from pipeline.admit.idempotency import _SEGMENT_ROWS, IDEMPOTENCY_MS, IdempotencyKeys, digest_of
from pipeline.admit.journal import UndoJournal
from pipeline.admit.ledger import Ledger
from pipeline.events.messages import Completion
from pipeline.events.records import Decision, Facts, Result
from tests.laws.test_admit_laws import CONTROL, START

NAMES = [digest_of("ann", f"order-{number}") for number in range(6)]
ENDS: dict[str, str] = {"finished": "duplicate", "withheld": "duplicate", "failed": "", "expired": "", "cancelled": ""}
"""The answer to a retry after a run that ended so; empty where it is admitted anew."""


def ask(ledger: Ledger, offset: int, time: int, key: str = "once") -> Decision:
    facts = Facts(
        offset, time, "inference", key="acme-key", client_request=f"r{offset}", session="s", counter=offset + 1,
        idempotency=key, model="glossary", max_tokens=5, input_bound=5, deadline=time + 1_000,
    )  # fmt: skip
    made = decide(ledger, CONTROL, 0, following(facts, ledger.position))
    ledger.apply(made)
    return made


def end(ledger: Ledger, request: str, result: Result) -> None:
    reservation = ledger.open[request]
    if result == "expired":
        ledger.apply(expired(ledger, reservation, reservation.deadline + 5_000))
        return
    report = Completion(request, "acme", "acme", result, "w", "a", input_tokens=5)
    made = outcome(ledger, reservation.offset, ledger.time, report)
    assert made is not None
    ledger.apply(made)


@pytest.mark.parametrize("result", get_args(Result))
@pytest.mark.parametrize("through", ["live", "restored", "a lost race"])
def test_only_an_answer_keeps_its_key_from_a_retry(result: Result, through: str) -> None:
    ledger = Ledger()
    first = ask(ledger, 0, START)
    while_open = ask(ledger, 1, START + 20_000)
    assert (while_open.reasons, while_open.first) == (("duplicate",), first.request)
    if through == "a lost race":
        ledger.begin()
        end(ledger, first.request, result)
        ledger.rollback()
        assert ask(ledger, 2, START + 20_001).first == first.request
    end(ledger, first.request, result)
    if through == "restored":
        ledger = Ledger.load(ledger.dump())
    retry = ask(ledger, ledger.position.next_request, START + 40_000)
    assert retry.reasons == tuple(filter(None, [ENDS[result]]))
    assert retry.first == (first.request if ENDS[result] else "")
    again = ask(ledger, ledger.position.next_request, START + 60_000)
    assert again.first == (first.request if ENDS[result] else retry.request)


def test_a_key_is_free_again_after_a_day() -> None:
    ledger = Ledger()
    first = ask(ledger, 0, START)
    end(ledger, first.request, "finished")
    assert ask(ledger, 1, START + IDEMPOTENCY_MS - 1).reasons == ("duplicate",)
    assert ask(ledger, 2, START + IDEMPOTENCY_MS).verdict == "admit"


def test_an_outcome_frees_no_key_that_another_request_holds() -> None:
    """Only after a day, and only then, can two runs have had one key."""
    keys, journal = IdempotencyKeys(), UndoJournal()
    keys.hold(NAMES[0], 1, START, journal)
    keys.hold(NAMES[0], 2, START + IDEMPOTENCY_MS, journal)
    keys.free(NAMES[0], 1, START + IDEMPOTENCY_MS, journal)
    assert keys.holder(NAMES[0], START + IDEMPOTENCY_MS) == 2


class KeysMachine(RuleBasedStateMachine):
    """The table stands beside a dictionary with all the memory there is."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.journal = IdempotencyKeys(), UndoJournal()
        self.held: dict[bytes, tuple[int, int]] = {}
        self.now, self.offset = START, 0
        self.before: tuple[int, dict[bytes, tuple[int, int]]] | None = None
        """Time and keys at ``begin``."""

    @rule(name=st.sampled_from(NAMES))
    def hold(self, name: bytes) -> None:
        self.offset += 1
        self.keys.hold(name, self.offset, self.now, self.journal)
        self.held[name] = self.offset, self.now

    @rule(count=st.integers(1, 2 * _SEGMENT_ROWS))
    def hold_others(self, count: int) -> None:
        for _ in range(count):
            self.hold(digest_of("bob", str(self.offset)))

    @rule(name=st.sampled_from(NAMES))
    def free(self, name: bytes) -> None:
        offset, time = self.held.get(name, (0, 0))
        self.keys.free(name, offset, self.now, self.journal)
        if time > self.now - IDEMPOTENCY_MS:
            del self.held[name]

    @rule(pause=st.sampled_from((1, IDEMPOTENCY_MS // 2, IDEMPOTENCY_MS)))
    def wait(self, pause: int) -> None:
        self.now += pause

    @precondition(lambda self: self.before is None)
    @rule()
    def begin(self) -> None:
        self.before = self.now, dict(self.held)
        self.journal.begin()

    @precondition(lambda self: self.before is not None)
    @rule(undone=st.booleans())
    def finish(self, undone: bool) -> None:
        assert self.before is not None
        if undone:
            self.journal.rollback()
            self.now, self.held = self.before
        else:
            self.journal.commit()
        self.before = None

    @rule()
    def release(self) -> None:
        self.keys.release(self.before[0] if self.before else self.now)

    @precondition(lambda self: self.before is None)
    @rule()
    def restore(self) -> None:
        self.keys = IdempotencyKeys.load(memoryview(b"".join(self.keys.rows(self.now))))

    @invariant()
    def tells_and_stores_the_same(self) -> None:
        live = {name: held for name, held in self.held.items() if held[1] > self.now - IDEMPOTENCY_MS}
        assert [self.keys.holder(name, self.now) for name in NAMES] == [live.get(name, (None,))[0] for name in NAMES]
        rows = sorted((offset, time, name) for name, (offset, time) in live.items())
        packed = [name + offset.to_bytes(8, "little") + time.to_bytes(8, "little") for offset, time, name in rows]
        assert b"".join(self.keys.rows(self.now)) == b"".join(packed)


KeysMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestKeys = KeysMachine.TestCase


def test_keys_of_days_ago_take_no_memory() -> None:
    keys, journal = IdempotencyKeys(), UndoJournal()
    day = 3 * _SEGMENT_ROWS
    for number in range(5 * day):
        time = START + number * IDEMPOTENCY_MS // day
        keys.hold(digest_of("ann", str(number)), number, time, journal)
        keys.release(time)
    assert len(keys._segments) <= 5
    assert sum(map(len, keys._slots)) < 5 * day
    held = [keys.holder(digest_of("ann", str(number)), time) for number in range(5 * day)]
    assert held == [None] * (4 * day) + list(range(4 * day, 5 * day))
