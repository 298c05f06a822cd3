"""Operators are added to the deployment and revoked, and as many roots sign as it asks for."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.control.registry import Registry
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.control import Deployment, Operator, parse
from pipeline.events.signed_document import (
    DEPLOYMENT,
    DocumentSignature,
    SignedDocument,
    key_id,
    message,
    raw_public,
    sign,
)
from pipeline.keys.files import replace_file
from pipeline.keys.signing import PrivateSigner
from pipeline.roles import BY_ROLE


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deployment document goes from root to root in a file until enough have signed."""

    generation: str
    act: str
    target: str
    record: SignedDocument

    @property
    def document(self) -> Deployment:
        """Give the document that is signed. Raises ConfigError."""
        try:
            document = parse(self.record.document.encode())
        except Malformed as error:
            raise ConfigError(f"the proposal holds no deployment document: {error}") from None
        if not isinstance(document, Deployment):
            raise ConfigError(f"expected a proposal of a deployment document, got one of {document.doc}")
        return document


def with_operator(deployment: Deployment, name: str, public: str, role: str) -> Deployment:
    """Give the deployment with another operator. Raises ConfigError."""
    if role not in BY_ROLE:
        raise ConfigError(f"expected a role of {', '.join(BY_ROLE)}, got {role!r}")
    known = next((o for o in deployment.operators if name == o.id or public == o.public), None)
    if known is not None:
        raise ConfigError(f"operator {known.id} has this name or this key; choose another, or revoke it first")
    added = Operator(id=name, public=public, role=role)
    return deployment.model_copy(update={"operators": (*deployment.operators, added)})


def without_operator(deployment: Deployment, name: str, by: str) -> Deployment:
    """Give the deployment without an operator, whom another one takes out. Raises ConfigError."""
    left = tuple(operator for operator in deployment.operators if operator.id != name)
    if len(left) == len(deployment.operators):
        raise ConfigError(f"no operator {name!r}; see: sluice operator list")
    if name == by:
        raise ConfigError(f"operator {name} cannot revoke itself; give another operator's key with --by")
    if not any(operator.role == "administrator" for operator in left):
        raise ConfigError(f"operator {name} is the last administrator; add another one first")
    return deployment.model_copy(update={"operators": left})


def propose(
    registry: Registry, document: Deployment, act: str, target: str, roots: Sequence[PrivateSigner]
) -> Proposal:
    """Sign a document with the roots that are here, for others to sign as well."""
    known = _roots(registry.control.require_deployment())
    signers = [root for root in roots if root.key in known]
    record = sign(registry.control.generation, document, registry.table.fold.digest_of(DEPLOYMENT), signers)
    return Proposal(registry.control.generation, act, target, record)


def sign_proposal(proposal: Proposal, roots: Sequence[PrivateSigner]) -> Proposal:
    """Add the signatures of roots that have not signed yet. Raises ConfigError where there is none to add."""
    record = proposal.record
    signed = message(proposal.generation, DEPLOYMENT, record.replaces, record.document)
    present = {signature.key for signature in record.signatures}
    added = tuple(DocumentSignature(root.key, root.sign(signed)) for root in roots if root.key not in present)
    if not added:
        raise ConfigError("expected the key of a root that has not signed yet in the folder roots of keys.home")
    return msgspec.structs.replace(
        proposal, record=msgspec.structs.replace(record, signatures=record.signatures + added)
    )


def read_proposal(path: Path) -> Proposal:
    """Read a proposal. Raises ConfigError."""
    try:
        return decode(Proposal, path.read_bytes())
    except (OSError, Malformed) as error:
        raise ConfigError(f"{path}: expected what sluice operator add --propose writes ({error})") from None


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Write a proposal. Raises ConfigError."""
    try:
        replace_file(path, encode(proposal).decode())
    except OSError as error:
        raise ConfigError(f"{path}: expected a file to write, got: {error.strerror}; choose another") from error


def key_of(public: str) -> str:
    """Name a public key, as a deployment holds it, as signatures do."""
    return key_id(base64.b64decode(public))


def _roots(deployment: Deployment) -> set[str]:
    return {key_id(raw_public(root)) for root in deployment.roots}
