"""A stored record gives its leaf and its typed columns, to the sealer and to the verifier by one function.

The leaf is ``offset (u64 BE) || time (i64 BE, Unix ms) || value``: the exact stored bytes, where they lie, and the
``time`` column, so that a time which only the broker knows is committed to like any other: the append time of
``control`` and, in leaves of form 2, of ``decisions``, whose bodies say their own time.
In the columns, ``request`` is the id of what the record is about: request, alert, target of an act, document.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from detectors.base import Finding, risk
from pipeline.errors import Malformed
from pipeline.events.chain import Entry
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.messages import Access, Alert, Delivery, Manifest
from pipeline.events.records import ControlMark, Decision, LogRecord, Outcome, SnapshotMark, Tick, Upgrade
from pipeline.events.signed_document import SignedDocument

SEALED = ("decisions", "alerts", "access", "control", "deliveries")
LEAVES = 3
"""The form that this build seals (``Manifest.leaves``): from 2 on with append times, from 3 on the columns of a signed
document are those of the document in it; builds before found no document there."""
_TOP = 2**63 - 1
_row = tuple.__new__
"""Skips the constructor in Python, a tenth of the cost of sealing."""
_MARKS: dict[type[Any], str] = {
    ControlMark: "policy",
    Tick: "tick",
    Upgrade: "upgrade",
    SnapshotMark: "snapshot",
}


class Typed(NamedTuple):
    """A row has these columns of ``tables.RECORDS``, from ``time`` to ``risk``."""

    time: int
    """Unix ms."""
    kind: str
    request: str = ""
    organisation: str = ""
    tenant: str = ""
    principal: str = ""
    sequence: int = 0
    verdict: str = ""
    reason: str = ""
    limit_id: str = ""
    result: str = ""
    model: str = ""
    finish: str = ""
    reserved_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int = 0
    rules: tuple[str, ...] = ()
    severity: int = 0
    risk: int = 0
    """Of the findings of a decision or an outcome: ``detectors.base.risk``."""


_NUMBERS = (*("time", "sequence", "reserved_tokens", "input_tokens", "output_tokens", "latency_ms", "first_token_ms"),)
_numbers = itemgetter(*(Typed._fields.index(name) for name in _NUMBERS))


class _Document(msgspec.Struct, frozen=True):
    """A row of ``control`` shows this much; the body holds the rest."""

    doc: str
    id: str
    organisation: str = ""
    tenant: str = ""
    principal: str = ""


def typed_log(record: LogRecord) -> Typed:
    """Give the columns of a decoded record of ``decisions``."""
    kind = type(record)
    if kind is Decision:
        row = _decision(record)  # type: ignore[arg-type]
    elif kind is Outcome:
        row = _outcome(record)  # type: ignore[arg-type]
    else:
        row = Typed(record.time, _MARKS[kind])  # type: ignore[union-attr]
    numbers = _numbers(row)
    if min(numbers) < 0 or max(numbers) > _TOP:
        # nobody's records but a forger's; sealing goes on all the same
        fitted: dict[str, Any] = {name: _whole(number) for name, number in zip(_NUMBERS, numbers, strict=True)}
        row = row._replace(**fitted)
    return row


def typed(topic: str, time: int, value: bytes, leaves: int = LEAVES) -> Typed:
    """Give the columns of one record; ``time`` is the broker's, used where the body has none.

    Bytes that do not decode are sealed as well, with kind ``malformed``.
    """
    try:
        return _reader(topic, leaves)(time, value)
    except Malformed:
        return Typed(time, "malformed")


def typed_many(topic: str, entries: Sequence[Entry], leaves: int = LEAVES) -> list[Typed]:
    """Give the columns of many records of one topic."""
    read, rows = _reader(topic, leaves), []
    for entry in entries:
        if entry.record is not None:
            rows.append(typed_log(entry.record))
            continue
        try:
            rows.append(read(entry.time, entry.value))
        except Malformed:
            rows.append(Typed(entry.time, "malformed"))
    return rows


def keeps_append_time(topic: str, leaves: int) -> bool:
    """Tell whether the ``time`` of a row is its append time rather than what its body says."""
    return topic == "decisions" and leaves > 1


def manifest_row(manifest: Manifest) -> tuple[object, ...]:
    """Give the row of ``tables.MANIFESTS``; the body is the manifest as encoded."""
    return (
        manifest.origin,
        manifest.index,
        manifest.topic,
        manifest.partition,
        manifest.first,
        max(manifest.last, 0),
        manifest.rows,
        manifest.skipped,
        manifest.size,
        manifest.root.hex(),
        manifest.time,
        encode(manifest),
    )


def statement(manifest: Manifest) -> str:
    """Give the extension line that binds a checkpoint to the rest of its manifest."""
    digest = hashlib.sha256(encode(msgspec.structs.replace(manifest, checkpoint=""))).digest()
    return f"manifest {digest.hex()}"


def origin_name(generation: str, topic: str, partition: int) -> str:
    return f"{generation}/{topic}/{partition}"


def _decision(record: Decision) -> Typed:
    facts = record.facts
    findings = facts.findings + record.findings
    reserved = facts.input_bound + facts.max_tokens if record.verdict == "admit" else 0
    return _row(
        Typed,
        (
            facts.time,
            "decision",
            record.request,
            record.organisation,
            record.tenant,
            record.principal,
            record.sequence,
            record.verdict,
            record.reasons[0] if record.reasons else record.shadowed,
            record.limit,
            "",
            facts.model,
            "",
            reserved,
            0,
            0,
            0,
            0,
            _rules(findings) if findings else (),
            max(f.severity for f in findings) if findings else 0,
            risk(findings) if findings else 0,
        ),
    )


def _outcome(record: Outcome) -> Typed:
    findings = record.findings
    return _row(
        Typed,
        (
            record.time,
            "outcome",
            record.request,
            record.organisation,
            record.tenant,
            record.principal,
            record.sequence,
            "",
            "",
            "",
            record.result,
            record.model,
            record.finish,
            0,
            record.input_tokens,
            record.output_tokens,
            record.latency_ms,
            record.first_token_ms,
            _rules(findings) if findings else (),
            max(f.severity for f in findings) if findings else 0,
            risk(findings) if findings else 0,
        ),
    )


def _rules(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.rule for f in findings))


def _read_log(_: int, value: bytes) -> Typed:
    return typed_log(decode_log(value))


def _read_alert(_: int, value: bytes) -> Typed:
    alert = decode(Alert, value)
    return Typed(
        _whole(alert.time),
        "alert",
        alert.alert,
        alert.organisation,
        alert.tenant,
        alert.principal,
        rules=(alert.rule,),
        severity=min(max(alert.severity, 0), 255),
    )


def _read_access(_: int, value: bytes) -> Typed:
    act = decode(Access, value)
    return Typed(_whole(act.time), "access", act.target, tenant=act.tenant, principal=act.actor, reason=act.act)


def _read_delivery(_: int, value: bytes) -> Typed:
    delivery = decode(Delivery, value)
    return Typed(
        _whole(delivery.time),
        "delivery",
        delivery.alert,
        tenant=delivery.tenant,
        principal=delivery.target,
        result=delivery.status,
    )


def _read_control(time: int, value: bytes) -> Typed:
    with contextlib.suppress(Malformed):
        value = decode(SignedDocument, value).document.encode()
    return _read_document(time, value)


def _read_document(time: int, value: bytes) -> Typed:
    document = decode(_Document, value)
    organisation = document.id if document.doc == "organisation" else document.organisation
    tenant = document.id if document.doc == "tenant" else document.tenant
    principal = document.id if document.doc == "principal" else document.principal
    return Typed(time, "control", document.id, organisation, tenant, principal, reason=document.doc)


def _whole(number: int) -> int:
    """Bring a number within the range of the store's columns."""
    return min(max(number, 0), _TOP)


_READERS: dict[str, Callable[[int, bytes], Typed]] = {
    "decisions": _read_log,
    "alerts": _read_alert,
    "access": _read_access,
    "deliveries": _read_delivery,
    "control": _read_control,
}


def _reader(topic: str, leaves: int) -> Callable[[int, bytes], Typed]:
    return _read_document if topic == "control" and leaves < 3 else _READERS[topic]
