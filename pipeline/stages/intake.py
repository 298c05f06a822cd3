"""What a record of ``requests`` says: genuine or not, readable or not, and what the detectors see in its text.

The first half of ADMIT, free of state: a batch of raw records in, one ``Intake`` each out. The signature is checked
before anything is parsed, the text is opened last, and a fault is a reason, never an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detectors.base import Finding, Part, Transcript
from detectors.extraction import features
from inference.types import input_token_bound
from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.events.control import Control, Plan
from pipeline.events.records import Facts
from pipeline.stages.admit import Caller, identify
from pipeline.vault import Vault

Screen = Callable[[Sequence[Transcript]], Sequence[tuple[Finding, ...]]]
MAX_LANES = 4096


class Raw(NamedTuple):
    """One record as it lies in the topic; ``time`` is the broker's, in Unix ms."""

    offset: int
    time: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class Intake(NamedTuple):
    """The facts, and what running the request takes; ``body`` is None where there is nothing to run."""

    facts: Facts
    body: wire.InferenceBody | None = None
    wrap: bytes = b""


class _Opened(NamedTuple):
    """A genuine inference request whose text is still to be screened."""

    raw: Raw
    envelope: wire.Envelope
    body: wire.InferenceBody
    plan: Plan
    fault: str
    transcript: Transcript


class Door:
    """Opens the records of one partition."""

    def __init__(self, control: Control, vault: Vault, partition: int, screen: Screen) -> None:
        self._control = control
        self._vault = vault
        self._partition = partition
        self._screen = screen

    def take(self, batch: Sequence[Raw]) -> list[Intake]:
        """One intake per record, in order; texts are screened together."""
        opened = [self._open(raw) for raw in batch]
        found = iter(self._screen([o.transcript for o in opened if isinstance(o, _Opened) and o.transcript]))
        return [o if isinstance(o, Intake) else _screened(o, next(found) if o.transcript else ()) for o in opened]

    def reopen(self, raw: Raw) -> Intake:
        """Body and wrap of a record whose decision is known already; nothing is verified again."""
        envelope = wire.open_envelope(raw.headers)
        return Intake(Facts(raw.offset, raw.time), wire.decode_inference(raw.value), envelope.wrap)

    def _open(self, raw: Raw) -> Intake | _Opened:
        try:
            envelope = wire.open_envelope(raw.headers)
        except Malformed:
            return Intake(Facts(raw.offset, raw.time, fault="malformed"))
        caller = identify(self._control, envelope.key)
        if caller is None:
            return Intake(Facts(raw.offset, raw.time, fault="unknown_key"))
        if not envelope.genuine(self._vault.key_secret(envelope.key), raw.value):
            return Intake(Facts(raw.offset, raw.time, fault="unsigned"))
        fault = self._misplaced(envelope, caller, raw.time)
        if not fault and len(raw.value) > wire.MAX_VALUE_BYTES:
            fault = "input_too_long"
        if not fault and envelope.kind == "inference":
            return self._inference(raw, envelope, caller)
        target = ""
        if not fault and envelope.kind == "cancel":
            try:
                target = wire.decode_cancel(raw.value).target
            except Malformed:
                fault = "malformed"
        return Intake(_facts(raw, envelope, fault=fault or ("" if target else "malformed"), target=target))

    def _misplaced(self, envelope: wire.Envelope, caller: Caller, time: int) -> str:
        if abs(envelope.time - time) > wire.SKEW_MS:
            return "clock_skew"
        if caller.home != self._partition:
            return "misrouted"
        return "" if -1 <= envelope.lane < self._control.require_deployment().partitions else "malformed"

    def _inference(self, raw: Raw, envelope: wire.Envelope, caller: Caller) -> Intake | _Opened:
        fault, transcript = "", tuple[Part, ...]()
        try:
            body = wire.decode_inference(raw.value)
        except Malformed:
            return Intake(_facts(raw, envelope, fault="malformed"))
        try:
            text = self._vault.unseal(
                caller.tenant.id, "request", "messages", envelope.request, body.sealed, envelope.wrap
            )
        except Malformed:
            fault = "undecryptable"
        else:
            try:
                transcript = tuple([Part(m.role, m.content) for m in wire.decode_messages(text)])  # type: ignore[arg-type]
            except Malformed:
                fault = "malformed"
        return _Opened(raw, envelope, body, caller.plan, fault, transcript)


def _screened(opened: _Opened, found: tuple[Finding, ...]) -> Intake:
    raw, envelope, body, plan, fault, transcript = opened
    facts = _facts(
        raw,
        envelope,
        fault=fault,
        idempotency=body.idempotency,
        model=body.model,
        max_tokens=body.max_tokens,
        input_bound=input_token_bound(transcript),
        deadline=raw.time + body.timeout_ms,
        findings=found,
        features=features(transcript),
        text_digest=hashlib.sha256(body.sealed).digest(),
        text=body.sealed if transcript and keeps(plan, found) else b"",
    )
    return Intake(facts, body, envelope.wrap)


def keeps(plan: Plan, found: Sequence[Finding]) -> bool:
    """Whether the tenant's policy keeps the text of a request with these findings."""
    return plan.keep_texts == "all" or (plan.keep_texts == "findings" and bool(found))


def _facts(raw: Raw, envelope: wire.Envelope, **fields: Any) -> Facts:
    return Facts(
        offset=raw.offset,
        time=raw.time,
        kind=envelope.kind if envelope.kind in ("inference", "cancel") else "unknown",  # type: ignore[arg-type]
        key=envelope.key,
        client_request=envelope.request,
        session=envelope.session,
        counter=envelope.counter,
        sent=envelope.time,
        lane=envelope.lane,
        **fields,
    )
