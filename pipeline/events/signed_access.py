"""An operator's act in ``access`` bears the operator's signature: nobody is named who did not sign."""

from __future__ import annotations

import base64

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.errors import Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.control import Operator
from pipeline.events.messages import Access
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import Signer
from pipeline.roles import role_named

_DOMAIN = b"sluice/access/v1\n"
SKEW_MS = 60_000
"""An act bears its operator's clock, the documents that name operators the brokers'."""


def access_message(record: Access, generation: str) -> bytes:
    """Give the bytes that are signed: the deployment, and the record with its key but without the signature."""
    return _DOMAIN + generation.encode() + b"\n" + encode(msgspec.structs.replace(record, signature=b""))


def sign_access(record: Access, generation: str, signer: Signer) -> Access:
    """Give the record with key and signature."""
    named = msgspec.structs.replace(record, key=signer.key)
    return msgspec.structs.replace(named, signature=signer.sign(access_message(named, generation)))


def operator_who_signed(record: Access, fold: ControlFold) -> Operator | None:
    """Give the operator who signed an act, in whose role it counts; None where no operator known then did.

    ``fold`` holds ``control`` to its end, read with the append times of its records.
    """
    for operator, since, until in fold.terms.get(record.key, ()):
        named = operator.id == record.actor and role_named(operator.role).may_record(record.act)
        if named and since - SKEW_MS <= record.time < until + SKEW_MS and _signed(record, fold, operator):
            return operator
    return None


def fault_of(body: bytes, fold: ControlFold) -> str:
    """Say what is wrong with the signature of a record of ``access``; nothing where it bears none or a good one."""
    try:
        record = decode(Access, body)
    except Malformed:
        return ""
    if not record.key and not record.signature:
        return ""
    return "" if operator_who_signed(record, fold) else f"no operator known then signed this act: {record.act[:80]}"


def _signed(record: Access, fold: ControlFold, operator: Operator) -> bool:
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(operator.public))
    try:
        public.verify(record.signature, access_message(record, fold.control.generation))
    except InvalidSignature:
        return False
    return True
