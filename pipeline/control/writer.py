"""Writes signed documents to ``control``, and each act to ``access`` under the name of the operator who signed it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, Deployment, Operator, Tenant
from pipeline.events.messages import Access
from pipeline.events.signed_access import sign_access
from pipeline.events.signed_document import (
    DEPLOYMENT,
    MAX_DOCUMENT,
    SignedDocument,
    digest,
    message,
    name_of,
    sign,
)
from pipeline.kafka.writer import Publisher
from pipeline.keys.signing import PrivateSigner, SigningKeys
from pipeline.roles import role_named
from pipeline.topics import partition_of

_CHUNK = 500
"""Documents that are sent together."""


class ControlWriter:
    """One operator writes; ``settle`` tells afterwards whether the documents are in force."""

    def __init__(self, kafka: KafkaEndpoint, table: ControlTable, keys: SigningKeys) -> None:
        self._publisher = Publisher(kafka)
        self._table = table
        self._keys = keys
        self._written: dict[str, str] = {}
        """Name of a document to the digest of the version that was written last."""

    async def write(self, document: AnyDocument, act: str, tenant: str = "") -> None:
        """Sign and send a document, then its act. Raises ConfigError where the operator may not, or the key is absent.

        The table is to have been read to its end before.
        """
        await self._send(document, [self._signer_of(document, act)])
        tenant = document.id if isinstance(document, Tenant) else tenant
        await self.record(act, tenant, name_of(document))

    async def write_all(self, documents: Sequence[AnyDocument], act: str, target: str) -> None:
        """Sign and send many documents, together, then one act for all of them. Errors as ``write``."""
        for first in range(0, len(documents), _CHUNK):
            signed = [self._record(each, [self._signer_of(each, act)]) for each in documents[first : first + _CHUNK]]
            await self._publisher.send_all([("control", 0, name.encode(), raw, ()) for name, raw in signed])
        await self.record(act, "", target)

    async def write_deployment(self, document: Deployment, act: str, target: str = "") -> None:
        """Sign a deployment document with the roots' keys that are here, then its act. Raises ConfigError.

        Where more roots must sign than have their keys here, nothing is written.
        """
        deployment = self._table.control.require_deployment()
        known = {root.public for root in deployment.roots}
        signers = [root for root in self._keys.roots() if root.public in known]
        if len(signers) < deployment.threshold:
            raise ConfigError(
                f"deployment: expected the keys of {deployment.threshold} roots, got {len(signers)}; bring more into "
                "the folder roots of keys.home for as long as this runs, or have them sign by way of --propose"
            )
        self._signer(act)
        await self._send(document, signers)
        await self.record(act, "", target or name_of(document))

    async def submit(self, record: SignedDocument, act: str, target: str) -> None:
        """Send a deployment document that the roots have signed, then its act. Raises ConfigError."""
        self._signer(act)
        generation = self._table.control.generation
        self._written[DEPLOYMENT] = digest(message(generation, DEPLOYMENT, record.replaces, record.document))
        await self._publisher.send("control", 0, DEPLOYMENT.encode(), encode(record))
        await self.settle()
        await self.record(act, "", target)

    async def record(self, act: str, tenant: str, target: str) -> None:
        """Put an act on record under the operator's own signature."""
        signer, operator = self._signer(act)
        deployment = self._table.control.require_deployment()
        record = sign_access(Access(now_ms(), operator.id, act, tenant, target), deployment.generation, signer)
        partition = partition_of(tenant.encode(), deployment.partitions)
        await self._publisher.send("access", partition, tenant.encode(), encode(record))

    async def settle(self) -> None:
        """Read ``control`` to its end. Raises ConfigError where a written document did not come in force."""
        await self._table.refresh()
        written, self._written = self._written, {}
        lost = [name for name, wanted in written.items() if self._table.fold.digest_of(name) != wanted]
        if lost:
            raise ConfigError(f"another operator changed {', '.join(lost)} at the same time; look at it and try again")

    async def close(self) -> None:
        await self._publisher.close()

    async def _send(self, document: AnyDocument, signers: list[PrivateSigner]) -> None:
        name, raw = self._record(document, signers)
        await self._publisher.send("control", 0, name.encode(), raw)

    def _record(self, document: AnyDocument, signers: list[PrivateSigner]) -> tuple[str, bytes]:
        """Give the name and the signed record of the next version of a document."""
        name, generation = name_of(document), self._table.control.generation
        replaces = self._written.get(name) or self._table.fold.digest_of(name)
        record = sign(generation, document, replaces, signers)
        raw = encode(record)
        if len(raw) > MAX_DOCUMENT:
            raise ConfigError(f"{name}: expected at most {MAX_DOCUMENT} bytes, got {len(raw)}; make it smaller")
        self._written[name] = digest(message(generation, name, replaces, record.document))
        return name, raw

    def _signer_of(self, document: AnyDocument, act: str) -> PrivateSigner:
        signer, operator = self._signer(act)
        if not role_named(operator.role).may_sign(document.doc):
            raise ConfigError(
                f"operator {operator.id} has the role {operator.role}, which signs no {document.doc} documents; give "
                "another operator's key with --by, or see: sluice operator list"
            )
        return signer

    def _signer(self, act: str) -> tuple[PrivateSigner, Operator]:
        """Give the key that signs for an act, and whose it is in the deployment in force."""
        signer = self._keys.operator()
        operator = self._table.fold.operator_of(signer.key)
        if operator is None:
            raise ConfigError(
                f"the key {signer.name} ({signer.key}) is no operator's of this deployment; see: sluice operator list"
            )
        if not role_named(operator.role).may_record(act):
            raise ConfigError(
                f"operator {operator.id} has the role {operator.role}, which may not do {act}; give another operator's "
                "key with --by"
            )
        return signer, operator
