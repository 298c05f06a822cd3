"""A partition's history is derived again: each decision byte for byte, each outcome from the report it repeats.

The rules are handed in, since deciding lies above the log. Folding goes on after a fault, so one bad record is one
fault and not a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import Fatal, Malformed
from pipeline.events.codec import encode
from pipeline.events.control import Control, parse
from pipeline.events.messages import Completion
from pipeline.events.records import DECIDER, ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark, Upgrade


class Reserved(Protocol):
    """An admitted request waits for its outcome."""

    @property
    def deadline(self) -> int: ...


class Folded(Protocol):
    """The sources of a partition are folded in so far."""

    next_request: int


class Fold(Protocol):
    """A partition has a state; ``pipeline.admit.ledger.Ledger`` is one."""

    @property
    def position(self) -> Folded: ...
    @property
    def open(self) -> Any: ...
    @property
    def time(self) -> int: ...
    def apply(self, record: LogRecord) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """History is made by these rules: ``Rules(Ledger, admit.decide, admit.outcome, admit.expired, ids.GRACE_MS)``.

    ``convert`` makes their ledger of the one before, at an ``Upgrade`` record.
    """

    ledger: Callable[[], Fold]
    decide: Callable[[Any, Control, int, Facts], Decision]
    outcome: Callable[[Any, int, int, Completion], Outcome | None]
    expired: Callable[[Any, Any, int], Outcome]
    grace_ms: int
    decider: int = DECIDER
    convert: Callable[[Any, Upgrade], Fold] | None = None


class Replay:
    """The replay folds the records of ``decisions[partition]`` from the first one, deriving each again.

    ``rules`` are those of each decider that this build knows, oldest first; a log begins under the oldest, and an
    ``Upgrade`` record says from where on the next ones hold.
    ``control`` gives (offset, stored bytes) of the control documents in offset order, from the sealed log of
    ``control``.
    """

    def __init__(self, rules: Sequence[Rules], partition: int, control: Iterable[tuple[int, bytes]]) -> None:
        self.derived = self.foreign = self.settled = self.admitted = self.denied = self.ended = self.overshoot = 0
        self._rules, self._later = rules[0], list(rules[1:])
        self._partition = partition
        self._ledger = self._rules.ledger()
        self._control = Control()
        self._documents = iter(control)
        self._foreign_decider = False
        """The last decision was another decider's."""
        self._next: tuple[int, bytes] | None = next(self._documents, None)

    @property
    def open(self) -> int:
        """Count the admitted requests without an outcome so far."""
        return len(self._ledger.open)

    def push(self, record: LogRecord, body: bytes) -> list[str]:
        """Say what is wrong with the next record; nothing where it is as the rules give it."""
        faults: list[str] = []
        try:
            if isinstance(record, Decision):
                faults += self._decision(record, body)
            elif isinstance(record, Outcome):
                faults += self._outcome(record, body)
            elif record.time < self._ledger.time:
                faults.append(f"time goes back by {self._ledger.time - record.time} ms")
            if isinstance(record, ControlMark):
                faults += self._load(record.control)
            if isinstance(record, SnapshotMark) and self._differs(record):
                faults.append("the snapshot that is marked here is not of this history")
            if isinstance(record, Upgrade):
                faults += self._upgrade(record)
            self._ledger.apply(record)
        except Fatal:
            # the ledger applies nothing that cannot follow; most of it was named above
            faults = faults or ["a record that cannot follow on the state of its request"]
        except Exception as error:  # whatever a forged record makes the rules trip over is a fault of the record
            faults.append(f"cannot be derived: {type(error).__name__}")
        return faults

    def _upgrade(self, record: Upgrade) -> list[str]:
        """Go on under the rules that the record names; those of a later build are not known here."""
        if record.from_ != self._rules.decider:
            return [f"an upgrade from decider {record.from_}, where {self._rules.decider} is in force"]
        if not self._later or self._later[0].decider != record.to:
            return []
        self._rules = self._later.pop(0)
        if self._rules.convert is not None:
            self._ledger = self._rules.convert(self._ledger, record)
        return []

    def _decision(self, record: Decision, body: bytes) -> list[str]:
        faults = self._load(record.control)
        next_request, facts = self._ledger.position.next_request, record.facts
        if facts.start < next_request:
            faults.append(f"a second decision for request {facts.start}")
        elif facts.start - facts.skipped != next_request:
            faults.append(f"requests {next_request} to {facts.start - facts.skipped - 1} have no decision")
        if not facts.orderly:
            faults.append(f"requests {facts.first} to {facts.offset} are answered together, though they name a caller")
        if facts.time < self._ledger.time:
            faults.append(f"time goes back by {self._ledger.time - facts.time} ms")
        if record.verdict == "admit" and facts.kind == "inference":
            self.admitted += 1
        elif record.verdict == "deny":
            self.denied += 1
        self._foreign_decider = record.decider != self._rules.decider
        if self._foreign_decider:
            self.foreign += 1
            return faults
        self.derived += 1
        if encode(self._rules.decide(self._ledger, self._control, self._partition, facts)) != body:
            faults.append("the decision is not what the rules give for its facts")
        return faults

    def _outcome(self, record: Outcome, body: bytes) -> list[str]:
        reservation = self._ledger.open.get(record.request)
        if reservation is None:
            return ["an outcome without an open admitted request"]
        self.ended += 1
        faults = []
        if record.completion < 0:
            if record.time < reservation.deadline + self._rules.grace_ms:
                faults.append("expired before deadline and grace were over")
            made: Outcome | None = self._rules.expired(self._ledger, reservation, record.time)
        else:
            made = self._rules.outcome(self._ledger, record.completion, record.time, _reported(record))
            used = record.input_tokens + record.output_tokens
            self.overshoot += any(c.unit == "tokens" and c.amount < used for c in reservation.charges)
        self.settled += 1
        if made is None or encode(made) != body:
            faults.append("the outcome is not what the rules settle")
        return faults

    def _differs(self, record: SnapshotMark) -> bool:
        """Tell whether a snapshot is of another history; a ledger of another decider says nothing to this build."""
        return not self._foreign_decider and record.digest != self._ledger.digest()

    def _load(self, version: int) -> list[str]:
        """Bring the control documents to ``version``."""
        if version < self._control.version:
            return [f"control version goes back from {self._control.version} to {version}"]
        while self._next is not None and self._next[0] <= version:
            offset, raw = self._next
            try:
                self._control.apply(offset, parse(raw))
            except Malformed:
                self._control.skip(offset)
            self._next = next(self._documents, None)
        if self._control.version != version:
            return [f"control version {version} is not in the log, which ends at {self._control.version}"]
        return []


def _reported(record: Outcome) -> Completion:
    """Give the completion as far as the outcome repeats it; attempt is not part of the history."""
    return Completion(
        request=record.request,
        organisation=record.organisation,
        tenant=record.tenant,
        result=record.result,
        worker=record.worker,
        attempt="",
        model=record.model,
        finish=record.finish,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        first_token_ms=record.first_token_ms,
        findings=record.findings,
        text_digest=record.text_digest,
        text=record.text,
        version=record.version,
        watermark=record.watermark,
        fingerprints=record.fingerprints,
        adapter=record.adapter,
    )
