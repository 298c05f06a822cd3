"""What a record of ``requests`` says: genuine or not, readable or not, and what the detectors see in its text.

The first half of ADMIT, free of state: a batch of raw records in, one ``Intake`` each out. The signature is checked
before anything is parsed, the text is opened last, and a fault is a reason, never an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from detectors.base import Finding, Part, Transcript
from detectors.extraction import features
from inference.types import Turn, input_token_bound
from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.events.control import Control, Plan, Tenant
from pipeline.events.records import Facts
from pipeline.stages.admit import identify
from pipeline.topics import partition_of
from pipeline.vault import Vault

Screen = Callable[[Sequence[Transcript]], Sequence[tuple[Finding, ...]]]
MAX_LANES = 4096


class Raw(NamedTuple):
    """One record as it lies in the topic; ``time`` is the broker's, in Unix ms."""

    offset: int
    time: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Intake:
    """The facts, and what running the request takes; ``body`` is None where there is nothing to run."""

    facts: Facts
    body: wire.InferenceBody | None = None
    wrap: bytes = b""
    transcript: Transcript = ()


class Door:
    """Opens the records of one partition."""

    def __init__(self, control: Control, vault: Vault, partition: int, screen: Screen) -> None:
        self._control = control
        self._vault = vault
        self._partition = partition
        self._screen = screen

    def take(self, batch: Sequence[Raw]) -> list[Intake]:
        """One intake per record, in order; texts are screened together."""
        taken = [self._open(raw) for raw in batch]
        texts = [intake for intake in taken if intake.transcript]
        for intake, found in zip(texts, self._screen([t.transcript for t in texts]), strict=True):
            self._screened(intake, found)
        return taken

    def reopen(self, raw: Raw) -> Intake:
        """Body and wrap of a record whose decision is known already; nothing is verified again."""
        envelope = wire.open_envelope(raw.headers)
        return Intake(Facts(raw.offset, raw.time), wire.decode_inference(raw.value), envelope.wrap)

    def _open(self, raw: Raw) -> Intake:
        try:
            envelope = wire.open_envelope(raw.headers)
        except Malformed:
            return Intake(Facts(raw.offset, raw.time, fault="malformed"))
        caller = identify(self._control, envelope.key)
        if caller is None:
            return Intake(Facts(raw.offset, raw.time, fault="unknown_key"))
        if not envelope.genuine(self._vault.key_secret(envelope.key), raw.value):
            return Intake(Facts(raw.offset, raw.time, fault="unsigned"))
        fault = self._misplaced(envelope, caller.tenant, raw.time)
        if not fault and len(raw.value) > wire.MAX_VALUE_BYTES:
            fault = "input_too_long"
        if not fault and envelope.kind == "inference":
            return self._inference(raw, envelope, caller.tenant)
        target = ""
        if not fault and envelope.kind == "cancel":
            try:
                target = wire.decode_cancel(raw.value).target
            except Malformed:
                fault = "malformed"
        return Intake(_facts(raw, envelope, fault=fault or ("" if target else "malformed"), target=target))

    def _misplaced(self, envelope: wire.Envelope, tenant: Tenant, time: int) -> str:
        deployment = self._control.require_deployment()
        if abs(envelope.time - time) > wire.SKEW_MS:
            return "clock_skew"
        if partition_of(tenant.organisation.encode(), deployment.partitions) != self._partition:
            return "misrouted"
        return "" if -1 <= envelope.lane < deployment.partitions else "malformed"

    def _inference(self, raw: Raw, envelope: wire.Envelope, tenant: Tenant) -> Intake:
        try:
            body = wire.decode_inference(raw.value)
        except Malformed:
            return Intake(_facts(raw, envelope, fault="malformed"))
        digest = hashlib.sha256(body.sealed).digest()
        fault, messages = "", tuple[wire.Message, ...]()
        try:
            text = self._vault.unseal(tenant.id, "request", "messages", envelope.request, body.sealed, envelope.wrap)
        except Malformed:
            fault = "undecryptable"
        else:
            try:
                messages = wire.decode_messages(text)
            except Malformed:
                fault = "malformed"
        facts = _facts(
            raw,
            envelope,
            fault=fault,
            idempotency=body.idempotency,
            model=body.model,
            max_tokens=body.max_tokens,
            input_bound=input_token_bound(tuple(Turn(m.role, m.content) for m in messages)),
            deadline=raw.time + body.timeout_ms,
            text_digest=digest,
        )
        return Intake(facts, body, envelope.wrap, tuple(Part(m.role, m.content) for m in messages))  # type: ignore[arg-type]

    def _screened(self, intake: Intake, found: tuple[Finding, ...]) -> None:
        caller = identify(self._control, intake.facts.key)
        keep = caller is not None and keeps(caller.plan, found)
        intake.facts = msgspec.structs.replace(
            intake.facts,
            findings=found,
            features=features(intake.transcript),
            text=intake.body.sealed if keep and intake.body else b"",
        )


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
