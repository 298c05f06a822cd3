"""A keyring and ``control`` with one tenant and one API key, for tests of keys that are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.events.control import Control, Deployment, Key, Organisation, Plan, Principal, Tenant
from pipeline.keys.keyring import FileKeyring
from pipeline.keys.vault import Vault, tenant_keys

BOUND = ("request", "messages", "r1")
SECRET = b"s" * 32


class KeyWorld:
    """``put`` writes a document; ``behind`` gives a reader's own copy of what is written by now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kms = FileKeyring.create(path)
        self.control = Control()
        self._documents: list[Any] = []
        self.vault = Vault(self.kms, self.control)
        self.put(Deployment(generation="g1", partitions=1))
        self.put(Plan(id="free", models=("echo",)))
        self.put(Organisation(id="acme"))
        self.put(Tenant(id="acme", organisation="acme", plan="free", **tenant_keys(self.kms, "acme")))
        self.put(Principal(id="app", tenant="acme"))
        self.put(Key(id="k1", principal="app", secret=self.kms.wrap(SECRET, "key/k1")))

    @property
    def tenant(self) -> Tenant:
        return self.control.tenants["acme"]

    def put(self, document: Any) -> None:
        self._documents.append(document)
        self.control.apply(self.control.version + 1, document)

    def behind(self) -> KeyReader:
        return KeyReader(self._documents, FileKeyring(self.path))

    def seal(self, text: bytes = b"text") -> bytes:
        return self.vault.encrypt("acme", *BOUND, text)

    def open(self, sealed: bytes, wrap: bytes = b"") -> bytes:
        return self.vault.decrypt("acme", *BOUND, sealed, wrap)


class KeyReader:
    """A process that has read a part of ``control`` and reads on when it is asked to."""

    def __init__(self, documents: list[Any], kms: FileKeyring) -> None:
        self._documents = documents
        self.control = Control()
        self.vault = Vault(kms, self.control)
        self.looks = 0
        self.reachable = True
        self._read()

    async def caught_up(self) -> bool:
        self.looks += 1
        if self.reachable:
            self._read()
        return self.reachable

    async def refresh(self) -> bool:
        return await self.caught_up()

    def _read(self) -> None:
        for version in range(self.control.version + 1, len(self._documents)):
            self.control.apply(version, self._documents[version])
