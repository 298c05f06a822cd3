"""Documents of ``control`` are signed: by the deployment's roots or by operators whom it names.

A signature is over the deployment, the document and the digest of the version that it replaces, so that one which is
replayed, reordered or forked counts for nothing. Every reader folds ``control`` by ``ControlFold`` and none otherwise:
what is passed over moves the version on and changes no document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.errors import Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.control import AnyDocument, Control, Deployment, Operator, parse
from pipeline.events.signed_document import (
    DEPLOYMENT,
    MAX_DOCUMENT,
    MAX_SIGNATURES,
    DocumentSignature,
    SignedDocument,
    digest,
    extend_prefix,
    generation_of,
    key_id,
    message,
    name_of,
    raw_public,
)
from pipeline.roles import ANY, role_named


class PassedOver(StrEnum):
    """A record of ``control`` changes nothing, for this reason."""

    MALFORMED = "malformed"
    """No document, or a signed record in another form than ``encode`` gives it."""
    TOO_LONG = "too_long"
    UNSIGNED = "unsigned"
    EARLY = "early"
    """Signed, before the deployment's first signed document."""
    OTHER_DEPLOYMENT = "other_deployment"
    """The first signed document of a deployment that is not the pinned one."""
    NOT_ADOPTED = "not_adopted"
    """It takes over another offset or other records than lie below it."""
    FIXED = "fixed"
    """It changes generation or partitions, which never change."""
    REPLACED = "replaced"
    """It replaces another version than the one in force: replayed, reordered or forked."""
    UNKNOWN_KEY = "unknown_key"
    ROLE = "role"
    """The operator's role may not sign this."""
    TOO_FEW = "too_few"
    """Fewer signatures than the deployment asks for, or one twice."""
    BAD_SIGNATURE = "bad_signature"


class OperatorTerm(NamedTuple):
    """An operator's key counted from ``since`` until ``until``, both append times in ``control`` (Unix ms)."""

    operator: Operator
    since: int
    until: int = 2**63


class ControlFold:
    """``control`` folded from its first record on, for the deployment whose digest is ``pin``.

    Until that deployment's first signed document has been read, unsigned ones count: an older deployment's, which the
    first signed one takes over whole or not at all. Without a pin no signed document counts.
    """

    def __init__(self, pin: str) -> None:
        self.pin = pin
        self.control = Control()
        self.signed = False
        """The pinned deployment is in force."""
        self.other = ""
        """The digest of another deployment's first document, where one was met before the pinned one."""
        self.forged: list[int] = []
        """Offsets of records that were passed over for a bad signature alone."""
        self.terms: dict[str, list[OperatorTerm]] = {}
        """Key id to the times in which it was an operator's."""
        self._digests: dict[str, str] = {}
        self._prefix = hashlib.sha256()
        self._roots: dict[str, Ed25519PublicKey] = {}
        self._operators: dict[str, Ed25519PublicKey] = {}
        self._roles: dict[str, Operator] = {}

    @property
    def prefix(self) -> str:
        """Digest over offset, length and value of every record read so far."""
        return self._prefix.hexdigest()

    def digest_of(self, name: str) -> str:
        """Give the digest of the version in force; empty where there is none."""
        return self._digests.get(name, "")

    def operator_of(self, key: str) -> Operator | None:
        """Give the operator whose key this is now."""
        return self._roles.get(key)

    def read(self, offset: int, value: bytes, time: int = 0, *, checked: bool = False) -> PassedOver | None:
        """Fold the next record; give the reason where it is passed over.

        ``checked``: its signatures were found good before, and its bytes are still those.
        """
        reason = self._read(offset, value, time, checked)
        extend_prefix(self._prefix, offset, value)
        if reason is not None:
            self.control.skip(offset)
        if reason is PassedOver.BAD_SIGNATURE:
            self.forged.append(offset)
        return reason

    def _read(self, offset: int, value: bytes, time: int, checked: bool) -> PassedOver | None:
        if self.signed and len(value) > MAX_DOCUMENT:
            return PassedOver.TOO_LONG
        try:
            record = decode(SignedDocument, value)
        except Malformed:
            return self._fold_unsigned(offset, value)
        if encode(record) != value or len(record.signatures) > MAX_SIGNATURES:
            return PassedOver.MALFORMED
        try:
            document = parse(record.document.encode())
        except Malformed:
            return PassedOver.MALFORMED
        name = name_of(document)
        signed = message(self.control.generation if self.signed else "", name, record.replaces, record.document)
        reason = self._refused(offset, record, document, signed, checked)
        if reason is not None:
            return reason
        if isinstance(document, Deployment):
            document = self._put_in_force(document, time)
        self._digests[name] = digest(signed)
        self.control.apply(offset, document)
        return None

    def _fold_unsigned(self, offset: int, value: bytes) -> PassedOver | None:
        try:
            document = parse(value)
        except Malformed:
            return PassedOver.MALFORMED
        if self.signed:
            return PassedOver.UNSIGNED
        if isinstance(document, Deployment) and not document.generation:
            return PassedOver.MALFORMED
        self._digests[name_of(document)] = digest(value)
        self.control.apply(offset, document)
        return None

    def _refused(
        self, offset: int, record: SignedDocument, document: AnyDocument, signed: bytes, checked: bool
    ) -> PassedOver | None:
        if not self.signed:
            return self._refused_first(offset, record, document, signed)
        if record.replaces != self.digest_of(name_of(document)):
            return PassedOver.REPLACED
        if not isinstance(document, Deployment):
            reason = self._refused_role(record.signatures, document)
            return reason or _refused_signatures(record.signatures, signed, self._operators, 1, checked=checked)
        current = self.control.require_deployment()
        fixed = (current.generation, current.partitions, -1, "")
        if (document.generation, document.partitions, document.adopts, document.adopted) != fixed or not document.roots:
            return PassedOver.FIXED
        return _refused_signatures(record.signatures, signed, self._roots, current.threshold, checked=checked)

    def _refused_first(
        self, offset: int, record: SignedDocument, document: AnyDocument, signed: bytes
    ) -> PassedOver | None:
        """Judge a signed document before the pinned deployment: its own roots sign the first one."""
        if not isinstance(document, Deployment):
            return PassedOver.EARLY
        if document.adopts >= 0 and (document.adopts, document.adopted) != (offset, self.prefix):
            return PassedOver.NOT_ADOPTED
        if digest(signed) != self.pin:
            self.other = digest(signed)
            return PassedOver.OTHER_DEPLOYMENT
        if document.adopts >= 0:
            if record.replaces != self.digest_of(DEPLOYMENT) or not document.generation:
                return PassedOver.REPLACED
        elif record.replaces or document.generation:
            return PassedOver.REPLACED
        roots = {
            key_id(public): Ed25519PublicKey.from_public_bytes(public) for public in map(raw_public, document.roots)
        }
        return _refused_signatures(record.signatures, signed, roots, max(document.threshold, 1))

    def _refused_role(self, signatures: Sequence[DocumentSignature], document: AnyDocument) -> PassedOver | None:
        for signature in signatures:
            operator = self._roles.get(signature.key)
            if operator is None:
                return PassedOver.UNKNOWN_KEY
            fields = role_named(operator.role).signs.get(document.doc)
            if fields is None or (fields is not ANY and not self._changes_only(fields, document)):
                return PassedOver.ROLE
        return None

    def _changes_only(self, fields: frozenset[str], document: AnyDocument) -> bool:
        current = self.control.current(document)
        if current is None:
            return False
        return current.model_dump(exclude=set(fields)) == document.model_dump(exclude=set(fields))

    def _put_in_force(self, document: Deployment, time: int) -> Deployment:
        """Take keys and terms of a deployment document; give it as it is in force."""
        if not self.signed and document.adopts < 0:
            self.control.clear()
            self._digests.clear()
        self.signed = True
        self._roots = {
            key_id(raw_public(root)): Ed25519PublicKey.from_public_bytes(raw_public(root)) for root in document.roots
        }
        roles = {key_id(raw_public(operator)): operator for operator in document.operators}
        for key, operator in self._roles.items():
            if roles.get(key) != operator:
                self.terms[key][-1] = self.terms[key][-1]._replace(until=time)
        for key, operator in roles.items():
            if self._roles.get(key) != operator:
                self.terms.setdefault(key, []).append(OperatorTerm(operator, time))
        self._roles = roles
        self._operators = {key: Ed25519PublicKey.from_public_bytes(raw_public(o)) for key, o in roles.items()}
        generation = document.generation or generation_of(self.pin)
        return document.model_copy(update={"generation": generation, "adopts": -1, "adopted": ""})


def _refused_signatures(
    signatures: Sequence[DocumentSignature],
    signed: bytes,
    keys: Mapping[str, Ed25519PublicKey],
    threshold: int,
    *,
    checked: bool = False,
) -> PassedOver | None:
    """Ask for ``threshold`` signatures, each of a known key and each good: a record bears none that means nothing."""
    names = {signature.key for signature in signatures}
    if names - keys.keys():
        return PassedOver.UNKNOWN_KEY
    if len(names) < threshold or len(names) != len(signatures):
        return PassedOver.TOO_FEW
    for signature in () if checked else signatures:
        try:
            keys[signature.key].verify(signature.signature, signed)
        except InvalidSignature:
            return PassedOver.BAD_SIGNATURE
    return None
