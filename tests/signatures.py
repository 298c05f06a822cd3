"""A deployment's signing keys, and the records of its ``control`` as operators would write them."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, Deployment, Operator, RootKey
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import DEPLOYMENT, digest, message, name_of, sign
from pipeline.keys.signing import PrivateSigner


def signer(name: str, seed: int) -> PrivateSigner:
    return PrivateSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


ROOTS = [signer(f"root-{number}", number) for number in (1, 2, 3)]
OPERATORS = {
    role: signer(role, 10 + number)
    for number, role in enumerate(("administrator", "policy", "tenants", "analyst", "auditor"))
}
ADMINISTRATOR = OPERATORS["administrator"]
STRANGER = signer("stranger", 99)


def named(document: Deployment, roots: int = 1, threshold: int = 1) -> Deployment:
    """The document with roots and an operator of each role."""
    keys: dict[str, Any] = {
        "roots": tuple(RootKey(name=root.name, public=root.public) for root in ROOTS[:roots]),
        "threshold": threshold,
        "operators": tuple(Operator(id=role, public=key.public, role=role) for role, key in OPERATORS.items()),
    }
    return document.model_copy(update=keys)


class SignedLog:
    """``control`` as its operators write it; ``records`` are the values by offset."""

    def __init__(self, first: Deployment | None = None, signers: int = 1) -> None:
        document = first or named(Deployment(partitions=4))
        record = sign("", document, "", ROOTS[:signers])
        self.pin = digest(message("", DEPLOYMENT, "", record.document))
        self.records = [encode(record)]
        self.fold = ControlFold(self.pin)
        assert self.fold.read(0, self.records[0], 1) is None

    @property
    def generation(self) -> str:
        return self.fold.control.generation

    def signed(self, document: AnyDocument, by: PrivateSigner = ADMINISTRATOR, **changes: Any) -> bytes:
        """A record that replaces what is in force, as ``by`` would write it."""
        given = {"generation": self.generation, "replaces": self.fold.digest_of(name_of(document)), **changes}
        return encode(sign(given["generation"], document, given["replaces"], given.get("signers", [by])))

    def add(self, value: bytes) -> str | None:
        """Append a record; gives the reason where it is passed over."""
        self.records.append(value)
        return self.fold.read(len(self.records) - 1, value, len(self.records))

    def write(self, document: AnyDocument, by: PrivateSigner = ADMINISTRATOR) -> None:
        assert self.add(self.signed(document, by)) is None
