"""Laws of keys that are replaced: no text is lost but by forgetting, and a log key signs in its own time only."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.checkpoint import LogKeys, Verifiers, key_name, with_ends
from pipeline.audit.verify import Verifier
from pipeline.errors import Malformed
from pipeline.events.control import Control, Deployment, Tenant
from pipeline.events.wrapped import MAX_FORMER, secret_id
from pipeline.keys import encryption
from pipeline.keys.keyring import FileKeyring
from pipeline.keys.rotation import (
    FIELDS,
    add_keyring_key,
    drop_keyring_keys,
    forgotten,
    prepared,
    rewrapped_tenant,
    rotated,
    use_keyring_key,
)
from pipeline.keys.vault import Vault, tenant_keys
from pipeline.seal.batch import Sealed, begin, heartbeat

TextKind = Literal["data", "hpke"]
BOUND = ("request", "messages", "r")
KINDS: list[TextKind] = ["data", "hpke"]
acts = st.one_of(
    st.tuples(st.sampled_from(["seal", "prepare", "rotate", "forget"]), st.sampled_from(KINDS)),
    st.tuples(st.sampled_from(["keyring", "drop"]), st.just(KINDS[0])),
)


class KeyModel:
    """A tenant's texts and, beside each, the key that it was sealed under; the model remembers which were forgotten."""

    def __init__(self, home: Path) -> None:
        self._path = home / "keyring.json"
        self._control = Control()
        self._control.apply(0, Deployment(generation="g1", partitions=1))
        kms = FileKeyring.create(self._path)
        self._put(Tenant(id="acme", organisation="acme", plan="p", **tenant_keys(kms, "acme")))
        # its keyring was read at the start, as that of a process that goes on through all of it
        self._reader = Vault(FileKeyring(self._path), self._control)
        self._texts: list[tuple[str, bytes, bytes]] = []
        self._forgotten: set[str] = set()

    @property
    def tenant(self) -> Tenant:
        return self._control.tenants["acme"]

    def act(self, name: str, kind: TextKind, at: int) -> None:
        kms = FileKeyring(self._path)
        former = getattr(self.tenant, FIELDS[kind].former)
        if name == "seal":
            self._seal(kind)
        elif name == "prepare":
            self._put(prepared(kms, self.tenant, kind))
        elif name == "rotate" and len(former) < MAX_FORMER:
            self._put(rotated(kms, self.tenant, kind, at))
        elif name == "forget" and former:
            oldest = secret_id(former[0].secret)
            self._forgotten.add(oldest)
            self._put(forgotten(self.tenant, kind, oldest))
        elif name == "keyring":
            use_keyring_key(self._path, add_keyring_key(self._path), at)
            kms = FileKeyring(self._path)
            self._put(rewrapped_tenant(kms, self.tenant, kms.current))
        elif name == "drop":
            drop_keyring_keys(self._path, frozenset(), at, 0)

    def check(self) -> None:
        """A text opens iff its key was not forgotten, for a process of before and for one that starts now."""
        for vault in (self._reader, Vault(FileKeyring(self._path), self._control)):
            for key, sealed, wrap in self._texts:
                try:
                    opened = vault.decrypt("acme", *BOUND, sealed, wrap) == b"text"
                except Malformed:
                    opened = False
                assert opened == (key not in self._forgotten)

    def _seal(self, kind: TextKind) -> None:
        if kind == "data":
            sealed = Vault(FileKeyring(self._path), self._control).encrypt("acme", *BOUND, b"text")
            self._texts.append((secret_id(self.tenant.data_key), sealed, b""))
            return
        content, bound = os.urandom(32), encryption.associated_data("g1", "acme", *BOUND)
        wrap = encryption.wrap_content_key(base64.b64decode(self.tenant.hpke_public), content)
        sealed = encryption.encrypt_text(content, bound, b"text", os.urandom)
        self._texts.append((secret_id(self.tenant.hpke_private), sealed, wrap))

    def _put(self, tenant: Tenant) -> None:
        self._control.apply(self._control.version + 1, tenant)


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=14))
def test_a_text_opens_as_long_as_its_key_is_not_forgotten(steps: list[tuple[str, TextKind]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        model = KeyModel(Path(home))
        for at, (name, kind) in enumerate([("seal", KINDS[0]), ("seal", KINDS[1]), *steps]):
            model.act(name, kind, at)
            model.check()


PAIRS = [LogKeys("sluice", bytes([n]) * 32, bytes([n + 100]) * 32) for n in range(4)]
NAMED = [text for pair in PAIRS for text in pair.verifier_keys]


def sealed_by(order: list[int]) -> list[Sealed]:
    """One batch of an origin signed by each of the pairs in ``order``, a second apart."""
    state, found = begin("g1", "access", 0), []
    for second, pair in enumerate(order):
        found.append(heartbeat(state, second * 1000, PAIRS[pair]))
        state = found[-1].state
    return found


def faults(batches: list[Sealed], keys: list[str]) -> list[tuple[int, str]]:
    verifier = Verifier(Verifiers(keys))
    verifier.origin("g1/access/0", [batch.row for batch in batches], [])
    return [(fault.batch, fault.what) for fault in verifier.report().faults]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10))
def test_a_log_verifies_iff_no_key_signs_after_a_newer_one(order: list[int]) -> None:
    named = [batch for batch, what in faults(sealed_by(order), NAMED) if "a newer one had replaced" in what]
    assert named == [at for at, pair in enumerate(order) if pair < max(order[: at + 1])]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10).map(sorted), st.integers(0, 3), st.integers(0, 10))
def test_a_checkpoint_later_than_the_end_of_its_key_is_named(order: list[int], retired: int, end: int) -> None:
    ends = {key_name(text): end for text in PAIRS[retired].verifier_keys}
    named = [batch for batch, what in faults(sealed_by(order), with_ends(NAMED, ends)) if "was retired at" in what]
    assert named == [at for at, pair in enumerate(order) if pair == retired and at > end]
