"""The secrets of tenants and keys behind documents of ``control``, unwrapped by the keyring, in a bounded cache."""

from __future__ import annotations

import base64
import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TypedDict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pipeline.errors import Malformed
from pipeline.events.control import Control, Key, Tenant
from pipeline.events.keyed import hmac_sha256
from pipeline.events.wrapped import FormerSecret, secret_id
from pipeline.keys import encryption
from pipeline.keys.keyring import FileKeyring, GrantedKeys, Kms, NotGranted, WrapAltered, open_kms, wrap_named

__all__ = [
    "FileKeyring",
    "GrantedKeys",
    "Kms",
    "NotGranted",
    "TenantKeys",
    "UnknownKey",
    "Vault",
    "WrapAltered",
    "key_context",
    "open_kms",
    "secret_text",
    "tenant_keys",
    "usable",
]
_CACHE = 4096


class UnknownKey(Malformed):
    """A text was sealed for a key that this reader does not know, or not yet: read ``control`` to its end first.

    Its writer had read the key's document before, so a reader that has read on since knows the key, or it is none.
    """


def key_context(key: Key, tenant: str) -> str:
    """Give what the secret of an API key is bound to."""
    return f"key/{key.id}/{key.principal}/{tenant}" if key.bound else f"key/{key.id}"


class Vault:
    """The secrets of tenants and keys, unwrapped on first use and kept by version of their wrapping.

    What is sealed is sealed under the tenant's key in use; what is opened may name the next one or a former one.
    """

    def __init__(self, kms: Kms, control: Control, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._kms = kms
        self._control = control
        self._entropy = entropy
        self._unwrapped: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._content: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def key_secret(self, key: str) -> bytes:
        """The HMAC secret of an API key that exists in control. Raises WrapAltered where it is another key's."""
        document = self._control.keys[key]
        principal = self._control.principals.get(document.principal) if document.bound else None
        return self._open(document.secret, key_context(document, principal.tenant if principal else ""))

    def webhook_secret(self, tenant: str) -> bytes:
        return self._open(self._control.tenants[tenant].webhook_secret, f"webhook/{tenant}")

    def webhook_secrets(self, tenant: str, now: int) -> tuple[bytes, ...]:
        """Give the secrets that sign a delivery at ``now`` (Unix ms): the one in use, then former ones not yet over."""
        former = [each for each in self._control.tenants[tenant].former_webhook_secrets if each.until > now]
        return (
            self.webhook_secret(tenant),
            *(self._open(each.secret, f"webhook/{tenant}") for each in reversed(former)),
        )

    def ticket_keys(self) -> tuple[bytes, ...]:
        """Give the keys of tickets of this generation, the current one first; admit alone asks for them."""
        return self._kms.derive(f"sluice/ticket/v1/{self._control.generation}")

    def require_all(self) -> None:
        """Raise ConfigError where the keyring does not open a secret in use."""
        for tenant in self._control.tenants:
            self.canary(tenant)
            self.webhook_secret(tenant)
        for key in self._control.keys:
            self.key_secret(key)

    def canary(self, tenant: str) -> str:
        """26 letters and digits for the tenant's system prompts and documents, which nothing but a leak can bring out.

        Derived from the data key: another one once that key is replaced. Raises Malformed for no such tenant.
        """
        return _canary(self._open(self._tenant(tenant).data_key, f"data/{tenant}"))

    def canaries(self, tenant: str) -> tuple[str, ...]:
        """Give the tenant's canary and those of its former keys, which stand in prompts that were deployed before."""
        canaries = [self.canary(tenant)]
        for former in self._tenant(tenant).former_data_keys:
            # a worker of the tenant's own may have been granted its keys when this one was out of use
            with contextlib.suppress(NotGranted):
                canaries.append(_canary(self._open(former.secret, f"data/{tenant}")))
        return tuple(canaries)

    def knows(self, tenant: str, sealed: bytes) -> bool:
        """Tell whether the key that a sealed text names is among the tenant's, or it names none."""
        named = encryption.named_key(sealed)
        return not named or named in map(secret_id, self._data_keys(self._tenant(tenant)))

    def encrypt(self, tenant: str, kind: str, field: str, client_request: str, text: bytes) -> bytes:
        """Seal under the tenant's data key."""
        wrapped = self._tenant(tenant).data_key
        key = self._open(wrapped, f"data/{tenant}")
        bound = encryption.associated_data(self._control.generation, tenant, kind, field, client_request)
        return encryption.encrypt_text(key, bound, text, self._entropy, secret_id(wrapped))

    def decrypt(
        self,
        tenant: str,
        kind: str,
        field: str,
        client_request: str,
        sealed: bytes,
        wrap: bytes = b"",
        generation: str = "",
    ) -> bytes:
        """Open a text sealed under a data key, or under the content key in ``wrap``. Raises Malformed, UnknownKey.

        ``generation``: that of its request, where it is a former one.
        """
        document = self._tenant(tenant)
        of = generation or self._control.generation
        bound = encryption.associated_data(of, tenant, kind, field, client_request)
        if wrap:
            return encryption.decrypt_text(self._content_key(document, wrap), bound, sealed)
        named = encryption.named_key(sealed)
        keys = [each for each in self._data_keys(document) if not named or secret_id(each) == named]
        if not keys:
            raise UnknownKey(f"sealed text names data key {named}, which {tenant} has not, or has no more")
        for wrapped in keys[:-1]:
            try:
                return encryption.decrypt_text(self._open(wrapped, f"data/{tenant}"), bound, sealed)
            except Malformed:
                continue
        return encryption.decrypt_text(self._open(keys[-1], f"data/{tenant}"), bound, sealed)

    def _tenant(self, tenant: str) -> Tenant:
        document = self._control.tenants.get(tenant)
        if document is None:
            raise Malformed(f"no tenant {tenant!r} in control")
        return document

    def _data_keys(self, tenant: Tenant) -> tuple[str, ...]:
        return usable(tenant.data_key, tenant.next_data_key, tenant.former_data_keys)

    def _content_key(self, tenant: Tenant, wrap: bytes) -> bytes:
        wrapped = usable(tenant.hpke_private, tenant.next_hpke_private, tenant.former_hpke_keys)
        for each in wrapped:
            # known by the key that opened it: with a key that was forgotten nothing opens, cached or not
            if (each, wrap) in self._content:
                return self._content[each, wrap]
        for each in wrapped:
            private = self._open(each, f"hpke/{tenant.id}")
            try:
                content = self._content[each, wrap] = encryption.unwrap_content_key(private, wrap)
            except Malformed:
                continue
            if len(self._content) > _CACHE:
                self._content.popitem(last=False)
            return content
        raise UnknownKey("wrapped content key does not open with any key of the tenant")

    def _open(self, wrapped: str, context: str) -> bytes:
        cached = self._unwrapped.get((wrapped, context))
        if cached is None:
            cached = self._unwrapped[wrapped, context] = self._kms.unwrap(wrapped, context)
            if len(self._unwrapped) > _CACHE:
                self._unwrapped.popitem(last=False)
        return cached


def usable(current: str, following: str, former: tuple[FormerSecret, ...]) -> tuple[str, ...]:
    """Give all wrapped secrets that open, the likeliest first."""
    return current, *(each.secret for each in reversed(former)), *((following,) if following else ())


def _canary(data_key: bytes) -> str:
    return base64.b32encode(hmac_sha256(data_key, b"sluice/canary/v1"))[:26].decode().lower()


class TenantKeys(TypedDict):
    """Wrapped keys of a tenant document."""

    data_key: str
    hpke_public: str
    hpke_private: str
    webhook_secret: str


def tenant_keys(kms: Kms, tenant: str) -> TenantKeys:
    """Make fresh wrapped keys for a tenant document."""
    private = X25519PrivateKey.generate()
    return {
        "data_key": wrap_named(kms, os.urandom(32), f"data/{tenant}"),
        "hpke_public": base64.b64encode(private.public_key().public_bytes_raw()).decode(),
        "hpke_private": wrap_named(kms, private.private_bytes_raw(), f"hpke/{tenant}"),
        "webhook_secret": wrap_named(kms, os.urandom(32), f"webhook/{tenant}"),
    }


def secret_text(secret: bytes) -> str:
    """Write a webhook's secret as its receiver is told it: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(secret).decode()
