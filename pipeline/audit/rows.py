"""From a stored record to its leaf and its typed columns: one function for the sealer and for the verifier.

The leaf is ``offset (u64 BE) || time (i64 BE, Unix ms) || value``: the exact stored bytes, where they lie, and the
``time`` column, so that a time which only the broker knows (``control``) is committed to like any other.
In the columns, ``request`` is the id of what the record is about: request, alert, target of an act, document.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from detectors.base import Finding, risk
from pipeline.errors import Malformed
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.messages import Access, Alert, Delivery, Manifest
from pipeline.events.records import ControlMark, Decision, LogRecord, Outcome, SnapshotMark, Tick

SEALED = ("decisions", "alerts", "access", "control", "deliveries")
_FRAME = struct.Struct(">Qq")
_TOP = 2**63 - 1
_row = tuple.__new__
"""Skips the constructor in Python, a tenth of the cost of sealing."""
_MARKS: dict[type[Any], str] = {ControlMark: "policy", Tick: "tick", SnapshotMark: "snapshot"}


class Typed(NamedTuple):
    """The columns of ``tables.RECORDS`` from ``time`` to ``risk``."""

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


class _Document(msgspec.Struct, frozen=True):
    """What a row of ``control`` shows; the body holds the rest."""

    doc: str
    id: str
    organisation: str = ""
    tenant: str = ""
    principal: str = ""


def leaf_value(offset: int, time: int, value: bytes) -> bytes:
    """The bytes under the leaf hash of RFC 6962."""
    return _FRAME.pack(offset, time) + value


def read_leaf(framed: bytes) -> tuple[int, int, bytes]:
    """Offset, time and value of ``leaf_value``. Raises Malformed."""
    if len(framed) < _FRAME.size:
        raise Malformed(f"leaf: expected at least {_FRAME.size} bytes, got {len(framed)}")
    offset, time = _FRAME.unpack_from(framed)
    return offset, time, framed[_FRAME.size :]


def leaf_digests(offsets: Sequence[int], times: Sequence[int], values: Sequence[bytes]) -> list[bytes]:
    """``merkle.leaf_hash`` of many framed records."""
    sha256, pack = hashlib.sha256, _FRAME.pack
    return [
        sha256(b"\x00" + pack(offset, time) + value).digest()
        for offset, time, value in zip(offsets, times, values, strict=True)
    ]


def typed_log(record: LogRecord) -> Typed:
    """The columns of a decoded record of ``decisions``."""
    kind = type(record)
    if kind is Decision:
        return _decision(record)  # type: ignore[arg-type]
    if kind is Outcome:
        return _outcome(record)  # type: ignore[arg-type]
    return Typed(record.time, _MARKS[kind])  # type: ignore[union-attr]


def typed(topic: str, time: int, value: bytes) -> Typed:
    """The columns of one record; ``time`` is the broker's, used where the body has none.

    Bytes that do not decode are sealed as well, with kind ``malformed``.
    """
    try:
        return _READERS[topic](time, value)
    except Malformed:
        return Typed(time, "malformed")


def typed_many(topic: str, times: Sequence[int], values: Sequence[bytes]) -> list[Typed]:
    """``typed`` of many records of one topic."""
    read, found = _READERS[topic], []
    for time, value in zip(times, values, strict=True):
        try:
            found.append(read(time, value))
        except Malformed:
            found.append(Typed(time, "malformed"))
    return found


def manifest_row(manifest: Manifest) -> tuple[object, ...]:
    """The row of ``tables.MANIFESTS``; the body is the manifest as encoded."""
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
    """The extension line that binds a checkpoint to the rest of its manifest."""
    digest = hashlib.sha256(encode(msgspec.structs.replace(manifest, checkpoint=""))).digest()
    return f"manifest {digest.hex()}"


def origin_name(generation: str, topic: str, partition: int) -> str:
    return f"{generation}/{topic}/{partition}"


def _decision(record: Decision) -> Typed:
    facts = record.facts
    found = facts.findings + record.findings
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
            _rules(found) if found else (),
            max(f.severity for f in found) if found else 0,
            risk(found) if found else 0,
        ),
    )


def _outcome(record: Outcome) -> Typed:
    found = record.findings
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
            _rules(found) if found else (),
            max(f.severity for f in found) if found else 0,
            risk(found) if found else 0,
        ),
    )


def _rules(found: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.rule for f in found))


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
    made = decode(Delivery, value)
    return Typed(
        _whole(made.time), "delivery", made.alert, tenant=made.tenant, principal=made.target, result=made.status
    )


def _read_control(time: int, value: bytes) -> Typed:
    found = decode(_Document, value)
    organisation = found.id if found.doc == "organisation" else found.organisation
    tenant = found.id if found.doc == "tenant" else found.tenant
    principal = found.id if found.doc == "principal" else found.principal
    return Typed(time, "control", found.id, organisation, tenant, principal, reason=found.doc)


def _whole(number: int) -> int:
    """Within what the store's time column holds."""
    return min(max(number, 0), _TOP)


_READERS: dict[str, Callable[[int, bytes], Typed]] = {
    "decisions": _read_log,
    "alerts": _read_alert,
    "access": _read_access,
    "deliveries": _read_delivery,
    "control": _read_control,
}
