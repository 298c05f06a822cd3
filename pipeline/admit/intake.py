"""Intake turns records of ``requests`` into facts: genuine or not, readable or not, and what detectors saw in them.

The first half of ADMIT, free of state: a batch of raw records in, one ``Intake`` each out. The signature is checked
before anything is parsed, the text is opened last, and a fault is a reason, never an exception. The texts are screened
between ``RequestReader.open`` and ``DecryptedBatch.intakes``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from detectors.accounts.features import RequestParameters, sampling_features
from detectors.base import Finding, Part, Screened, Transcript
from inference.types import input_token_bound
from pipeline.admit import policy
from pipeline.admit.callers import Caller, caller_of
from pipeline.admit.clocks import Clocks
from pipeline.errors import Malformed
from pipeline.events import quoting, wire
from pipeline.events.control import Control, Plan
from pipeline.events.records import Facts
from pipeline.keys.vault import Vault

_UNREAD = Screened()
UNREADABLE = frozenset({"malformed", "unreadable_batch"})
"""Faults of records that could not be read; their bytes go to the dead letters."""


class Raw(NamedTuple):
    """A record lies so in the topic; ``time`` is the broker's, in Unix ms."""

    offset: int
    time: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    first: int = -1
    """The first offset of a batch that was not unpacked, whose last is ``offset``; -1 for a record that was read."""

    @property
    def start(self) -> int:
        """The first offset that it stands for."""
        return self.offset if self.first < 0 else self.first


class Intake(NamedTuple):
    """One request as its decision takes it, or a run of records of nobody's; ``body`` is None where nothing is run."""

    facts: Facts
    body: wire.InferenceBody | None = None
    wrap: bytes = b""
    unread: tuple[Raw, ...] = ()
    """The records themselves, where they cannot be read and go to the dead letters."""


class _Draft(msgspec.Struct, gc=False):
    """One record is known so far; a fault ends its way."""

    raw: Raw
    clocks: Clocks
    fault: str = ""
    envelope: wire.Envelope | None = None
    genuine: bool = False
    caller: Caller | None = None
    target: str = ""
    body: wire.InferenceBody | None = None
    text: bytes = b""
    transcript: Transcript = ()

    @property
    def time(self) -> int:
        return self.clocks.agreed(self.raw.time)

    @property
    def stranger(self) -> bool:
        """Nothing that the record says of its sender is believed."""
        return bool(self.fault) and not (self.genuine and self.caller)


class DecryptedBatch:
    """The records of a batch are verified and opened; their texts are still to be screened."""

    def __init__(self, drafts: Sequence[_Draft]) -> None:
        self._drafts = drafts
        self.texts: list[Transcript] = [draft.transcript for draft in drafts if draft.transcript]

    @property
    def records(self) -> int:
        """Count the records that were opened."""
        return len(self._drafts)

    def intakes(self, screened: Sequence[Screened]) -> list[Intake]:
        """Give one intake per record, in order; ``screened`` has one answer for each of ``texts``.

        Consecutive records of strangers with one fault make one intake: a flood of them costs a decision per batch.
        """
        answers = iter(screened)
        intakes: list[Intake] = []
        run: list[_Draft] = []
        for draft in self._drafts:
            if run and not _continues(run, draft):
                intakes.append(_stranger(run))
                run = []
            if draft.stranger:
                run.append(draft)
            else:
                intakes.append(_intake(draft, next(answers) if draft.transcript else _UNREAD))
        return [*intakes, _stranger(run)] if run else intakes


class RequestReader:
    """The reader opens the records of one partition."""

    def __init__(self, control: Control, vault: Vault, partition: int) -> None:
        self._control = control
        self._vault = vault
        self._partition = partition

    def open(self, batch: Iterable[Raw], clocks: Clocks, take: int = sys.maxsize) -> DecryptedBatch:
        """Verify, decrypt and parse; the texts are to be screened together.

        It opens ``take`` of them at a time, and stops once that many are no strangers'.
        """
        drafts: list[_Draft] = []
        known, rest = 0, iter(batch)
        while known < take and (opened := [_Draft(raw, clocks) for raw in islice(rest, take)]):
            # step by step over the batch, as a loop of one step keeps its code in the processor's cache
            for step in (self._read, self._verify, self._check, _parse, self._decrypt, _parse_messages):
                for draft in opened:
                    if not draft.fault:
                        step(draft)
            drafts += opened
            known += sum(not draft.stranger for draft in opened)
        return DecryptedBatch(drafts)

    def reopen(self, raw: Raw) -> Intake:
        """Give body and wrap of a record whose decision is known already; nothing is verified again."""
        envelope = wire.open_envelope(raw.headers)
        return Intake(Facts(raw.offset, raw.time), wire.decode_inference(raw.value), envelope.wrap)

    def _read(self, draft: _Draft) -> None:
        if draft.raw.first >= 0:
            draft.fault = "unreadable_batch"
            return
        try:
            envelope = draft.envelope = wire.open_envelope(draft.raw.headers)
        except Malformed:
            draft.fault = "malformed"
            return
        draft.caller = caller_of(self._control, envelope.key)
        if draft.caller is None:
            draft.fault = "unknown_key"

    def _verify(self, draft: _Draft) -> None:
        envelope, value = draft.envelope, draft.raw.value
        assert envelope is not None
        draft.genuine = envelope.genuine(self._vault.key_secret(envelope.key), value)
        if not draft.genuine:
            draft.fault = "unsigned"

    def _check(self, draft: _Draft) -> None:
        envelope, caller = draft.envelope, draft.caller
        assert envelope is not None
        assert caller is not None
        if not draft.clocks.fresh(envelope.time, draft.raw.time):
            draft.fault = "clock_skew"
        elif caller.home != self._partition:
            draft.fault = "misrouted"
        elif not -1 <= envelope.lane < self._control.require_deployment().partitions:
            draft.fault = "malformed"
        elif len(draft.raw.value) > wire.MAX_VALUE_BYTES:
            draft.fault = "input_too_long"

    def _decrypt(self, draft: _Draft) -> None:
        envelope, caller = draft.envelope, draft.caller
        body = draft.body
        if body is None or envelope is None or caller is None:
            return
        try:
            draft.text = self._vault.decrypt(
                caller.tenant.id, "request", "messages", envelope.request, body.sealed, envelope.wrap
            )
        except Malformed:
            draft.fault = "undecryptable"


def _parse(draft: _Draft) -> None:
    envelope, value = draft.envelope, draft.raw.value
    assert envelope is not None
    try:
        if envelope.kind == "inference":
            draft.body = wire.decode_inference(value)
        elif envelope.kind == "cancel":
            draft.target = wire.decode_cancel(value).target
        else:
            draft.fault = "malformed"
    except Malformed:
        draft.fault = "malformed"


def _parse_messages(draft: _Draft) -> None:
    if draft.body is None:
        return
    try:
        messages = wire.decode_messages(draft.text)
    except Malformed:
        draft.fault = "malformed"
    else:
        draft.transcript = tuple([Part(m.role, m.content) for m in messages])  # type: ignore[arg-type]


def _continues(run: Sequence[_Draft], draft: _Draft) -> bool:
    return draft.stranger and draft.fault == run[0].fault and draft.raw.start == run[-1].raw.offset + 1


def _stranger(run: Sequence[_Draft]) -> Intake:
    """Give the one intake of consecutive records whose senders are not known."""
    fault, last = run[0].fault, run[-1].raw
    first = run[0].raw.start
    facts = Facts(last.offset, run[-1].time, fault=fault, first=first if first < last.offset else -1)
    return Intake(facts, unread=tuple([draft.raw for draft in run]) if fault in UNREADABLE else ())


def _intake(draft: _Draft, screened: Screened) -> Intake:
    raw, body = draft.raw, draft.body
    envelope, caller = draft.envelope, draft.caller
    assert envelope is not None
    assert caller is not None
    unread = (raw,) if draft.fault in UNREADABLE else ()
    if body is None:
        return Intake(_facts(draft, envelope, fault=draft.fault, target=draft.target), unread=unread)
    findings = screened.findings
    turns = sorted({finding.turn for finding in findings if finding.turn < len(draft.transcript)})
    documents = tuple(turn for turn in turns if draft.transcript[turn].role == "document")
    quotes = policy.quoted_spans(caller.plan, findings, documents)
    facts = _facts(
        draft,
        envelope,
        fault=draft.fault,
        idempotency=body.idempotency,
        end_user=body.end_user,
        model=body.model,
        max_tokens=body.max_tokens,
        input_bound=input_token_bound(draft.transcript) + quoting.BYTES * len(quotes),
        deadline=draft.clocks.deadline(raw.time, body.timeout_ms),
        top_logprobs=body.top_logprobs if body.logprobs else -1,
        biases=len(body.logit_bias),
        findings=findings,
        documents=documents,
        features=_trace(body, screened),
        text_digest=hashlib.sha256(body.sealed).digest(),
        text=body.sealed if draft.transcript and keeps(caller.plan, findings) else b"",
    )
    return Intake(facts, body, envelope.wrap, unread)


def _trace(body: wire.InferenceBody, screened: Screened) -> tuple[int, ...]:
    """Trace by which the account is judged, empty where the text was not read."""
    if not screened.features:
        return ()
    parameters = RequestParameters(body.temperature, body.max_tokens, body.logprobs, body.top_logprobs, body.logit_bias)
    return *screened.features, *sampling_features(parameters)


def keeps(plan: Plan, findings: Sequence[Finding]) -> bool:
    """Tell whether the tenant's policy keeps the text of a request with these findings."""
    return plan.keep_texts == "all" or (plan.keep_texts == "findings" and bool(findings))


def _facts(draft: _Draft, envelope: wire.Envelope, **fields: Any) -> Facts:
    return Facts(
        offset=draft.raw.offset,
        time=draft.time,
        kind=envelope.kind if envelope.kind in ("inference", "cancel") else "unknown",  # type: ignore[arg-type]
        key=envelope.key,
        client_request=envelope.request,
        session=envelope.session,
        counter=envelope.counter,
        sent=envelope.time,
        lane=envelope.lane,
        **fields,
    )
