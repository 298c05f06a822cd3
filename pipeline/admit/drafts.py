"""Records of ``requests`` as far as they were read: drafts, and what becomes of them once their texts are screened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from detectors.accounts.features import RequestParameters, sampling_features
from detectors.base import Finding, Screened, Transcript
from inference.types import input_token_bound
from pipeline.admit import policy
from pipeline.admit.callers import Caller
from pipeline.admit.clocks import Clocks
from pipeline.events import quoting, wire
from pipeline.events.control import Plan
from pipeline.events.records import Facts

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


class Draft(msgspec.Struct, gc=False):
    """One record is known so far; a fault ends its way."""

    raw: Raw
    clocks: Clocks
    fault: str = ""
    unknown_key: bool = False
    """It was sealed for a key that was not known here."""
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

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._drafts = drafts

    @property
    def texts(self) -> list[Transcript]:
        """Give the texts to screen."""
        return [draft.transcript for draft in self._drafts if draft.transcript]

    @property
    def unknown_keys(self) -> list[Draft]:
        """Give the records that no known key opens."""
        return [draft for draft in self._drafts if draft.unknown_key]

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
        run: list[Draft] = []
        for draft in self._drafts:
            if run and not _continues(run, draft):
                intakes.append(_stranger(run))
                run = []
            if draft.stranger:
                run.append(draft)
            else:
                intakes.append(_intake(draft, next(answers) if draft.transcript else _UNREAD))
        return [*intakes, _stranger(run)] if run else intakes


def _continues(run: Sequence[Draft], draft: Draft) -> bool:
    return draft.stranger and draft.fault == run[0].fault and draft.raw.start == run[-1].raw.offset + 1


def _stranger(run: Sequence[Draft]) -> Intake:
    """Give the one intake of consecutive records whose senders are not known."""
    fault, last = run[0].fault, run[-1].raw
    first = run[0].raw.start
    facts = Facts(last.offset, run[-1].time, fault=fault, first=first if first < last.offset else -1)
    return Intake(facts, unread=tuple([draft.raw for draft in run]) if fault in UNREADABLE else ())


def _intake(draft: Draft, screened: Screened) -> Intake:
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


def _facts(draft: Draft, envelope: wire.Envelope, **fields: Any) -> Facts:
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
