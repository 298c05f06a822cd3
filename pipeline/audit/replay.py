"""A partition's history is derived again: each decision byte for byte, each outcome from the report it repeats.

The rules are handed in, since deciding lies above the log. Folding goes on after a fault, so one bad record is one
fault and not a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import ConfigError, Fatal
from pipeline.events.codec import encode
from pipeline.events.control import Control
from pipeline.events.messages import Completion
from pipeline.events.records import (
    AHEAD_MS,
    DECIDER,
    ControlMark,
    Decision,
    Facts,
    LogRecord,
    Outcome,
    SnapshotMark,
    Tick,
    Upgrade,
    landed,
    time_of,
)
from pipeline.events.signed_control import ControlFold

_REPEATED = tuple(name for name in Completion.__struct_fields__ if name in Outcome.__struct_fields__)


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
    landed: Callable[[LogRecord, int], LogRecord] | None = landed
    """Gives a record as it counts, of its append time; None where records were taken at their word."""
    convert: Callable[[Any, Upgrade], Fold] | None = None
    mark: Callable[[Any], Upgrade] | None = None
    """Gives the ``Upgrade`` record that leads to these rules from the ledger before."""


class Replay:
    """The replay folds the records of ``decisions[partition]`` from the first one, deriving each again.

    ``rules`` are those of each decider that this build knows, oldest first; a log begins under the oldest, and an
    ``Upgrade`` record says from where on the next ones hold.
    ``control`` gives (offset, stored bytes) of the control documents in offset order, from the sealed log of
    ``control``, and ``pin`` says whose it is (``ControlFold``). ``ledger`` is a stored one, of the first of ``rules``,
    for a replay that begins behind it.
    """

    def __init__(
        self,
        rules: Sequence[Rules],
        partition: int,
        control: Iterable[tuple[int, bytes]],
        ledger: Fold | None = None,
        pin: str = "",
    ) -> None:
        self.derived = self.foreign = self.settled = self.admitted = self.denied = self.ended = self.overshoot = 0
        self._rules, self._later = rules[0], list(rules[1:])
        self._partition = partition
        self.ledger = self._rules.ledger() if ledger is None else ledger
        self._fold = ControlFold(pin)
        self.control = self._fold.control
        self._documents = iter(control)
        self._beyond = False
        """The log was lifted to a decider that this build does not know."""
        self._next: tuple[int, bytes] | None = next(self._documents, None)

    @property
    def open(self) -> int:
        """Count the admitted requests without an outcome so far."""
        return len(self.ledger.open)

    def push(self, record: LogRecord, body: bytes, appended: int | None = None) -> list[str]:
        """Say what is wrong with the next record; nothing where it is as the rules give it.

        ``appended`` is the append time that its leaf holds, Unix ms; None in a log of the build before.
        """
        if self._beyond:
            self.foreign += isinstance(record, Decision)
            return []
        counts, faults = self._timed(record, appended)
        try:
            faults += self._check(record, body)
            self.ledger.apply(counts)
        except Fatal:
            # the ledger applies nothing that cannot follow; most of it was named above
            faults = faults or ["a record that cannot follow on the state of its request"]
        except Exception as error:  # whatever a forged record makes the rules trip over is a fault of the record
            faults.append(f"cannot be derived: {type(error).__name__}")
        return faults

    def _timed(self, record: LogRecord, appended: int | None) -> tuple[LogRecord, list[str]]:
        """Give the record as it counts. Time that goes further than the log did lies at most AHEAD_MS behind."""
        if self._rules.landed is None:
            return record, []
        if appended is None:
            return record, ["a leaf without the append time of its record"]
        record = self._rules.landed(record, appended)
        time = time_of(record)
        if max(self.ledger.time, appended + AHEAD_MS) < time:
            return record, [f"time is {time - appended} ms ahead of the append time: expected at most {AHEAD_MS}"]
        return record, []

    def _check(self, record: LogRecord, body: bytes) -> list[str]:
        if isinstance(record, Decision):
            return self._decision(record, body)
        if isinstance(record, Outcome):
            return self._outcome(record, body)
        faults, ahead = [], record.time - self.ledger.time
        if ahead < 0:
            faults.append(f"time goes back by {-ahead} ms")
        elif ahead and not isinstance(record, Tick):
            faults.append(f"time goes on by {ahead} ms at a mark, which tells none")
        match record:
            case ControlMark():
                faults += self._load(record.control)
            case SnapshotMark() if record.digest != self.ledger.digest():
                faults.append("the snapshot that is marked here is not of this history")
            case Upgrade():
                faults += self._upgrade(record)
        return faults

    def fold(self, record: LogRecord, appended: int) -> None:
        """Fold the next record in without deriving it again. An outcome of nothing open changes nothing.

        Raises Fatal where a decision cannot follow, and ConfigError at the mark of a later build.
        """
        record, _ = self._timed(record, appended)
        if isinstance(record, Upgrade):
            self._upgrade(record)
        if self._beyond:
            raise ConfigError("the log goes on under a decider that this build does not know; ask a newer build")
        try:
            self.ledger.apply(record)
        except Fatal:
            # a partition's worker passes it over as well
            if not isinstance(record, Outcome):
                raise

    def derive(self, record: Decision) -> Decision | None:
        """Give the next decision as the rules do for its facts; None where rules or documents are not known here."""
        if self._beyond or self._load(record.control) or record.decider != self._rules.decider:
            return None
        return self._rules.decide(self.ledger, self.control, self._partition, record.facts)

    def _upgrade(self, record: Upgrade) -> list[str]:
        """Go on under the rules that the record names; those of a later build are not known here."""
        if record.from_ != self._rules.decider:
            return [f"an upgrade from decider {record.from_}, where {self._rules.decider} is in force"]
        if record.to > max([self._rules.decider, *(rules.decider for rules in self._later)]):
            self._beyond = True
            return []
        if not self._later or self._later[0].decider != record.to:
            return [f"an upgrade from decider {record.from_} to {record.to}, which does not follow it"]
        before, self._rules = self.ledger, self._later.pop(0)
        faults, least = [], before.position.next_request
        if self._rules.mark is not None and not least <= record.requests <= self._rules.mark(before).requests:
            faults.append(f"the upgrade goes on at request {record.requests}, expected {least} or what was answered")
        if self._rules.convert is not None:
            self.ledger = self._rules.convert(before, record)
        return faults

    def _decision(self, record: Decision, body: bytes) -> list[str]:
        faults = self._load(record.control)
        next_request, facts = self.ledger.position.next_request, record.facts
        if facts.start < next_request:
            faults.append(f"a second decision for request {facts.start}")
        elif facts.start - facts.skipped != next_request:
            faults.append(f"requests {next_request} to {facts.start - facts.skipped - 1} have no decision")
        if not facts.orderly:
            faults.append(f"requests {facts.first} to {facts.offset} are answered together, though they name a caller")
        if facts.time < self.ledger.time:
            faults.append(f"time goes back by {self.ledger.time - facts.time} ms")
        if record.verdict == "admit" and facts.kind == "inference":
            self.admitted += 1
        elif record.verdict == "deny":
            self.denied += 1
        if record.decider != self._rules.decider:
            faults.append(f"a decision of decider {record.decider}, where {self._rules.decider} is in force")
            return faults
        self.derived += 1
        if encode(self._rules.decide(self.ledger, self.control, self._partition, facts)) != body:
            faults.append("the decision is not what the rules give for its facts")
        return faults

    def _outcome(self, record: Outcome, body: bytes) -> list[str]:
        reservation = self.ledger.open.get(record.request)
        if reservation is None:
            return ["an outcome without an open admitted request"]
        self.ended += 1
        faults = []
        if record.completion < 0:
            agreed = record.time if self._rules.landed is None else self.ledger.time
            if min(record.time, agreed) < reservation.deadline + self._rules.grace_ms:
                faults.append("expired before deadline and grace were over")
            made: Outcome | None = self._rules.expired(self.ledger, reservation, record.time)
        else:
            made = self._rules.outcome(self.ledger, record.completion, record.time, _reported(record))
            used = record.input_tokens + record.output_tokens
            self.overshoot += any(c.unit == "tokens" and c.amount < used for c in reservation.charges)
        self.settled += 1
        if made is None or encode(made) != body:
            faults.append("the outcome is not what the rules settle")
        return faults

    def _load(self, version: int) -> list[str]:
        """Bring the control documents to ``version``."""
        if version < self.control.version:
            return [f"control version goes back from {self.control.version} to {version}"]
        while self._next is not None and self._next[0] <= version:
            self._fold.read(*self._next)
            self._next = next(self._documents, None)
        if self.control.version != version:
            return [f"control version {version} is not in the log, which ends at {self.control.version}"]
        return []


def _reported(record: Outcome) -> Completion:
    """Give the completion as far as the outcome repeats it; attempt and ticket are not part of the history."""
    return Completion(attempt="", **{name: getattr(record, name) for name in _REPEATED})
