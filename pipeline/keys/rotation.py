"""Keys are replaced without a failed request: what a tenant's document says next, and the file of the keyring.

Order, and what is true at each point where the operator's process may be killed:

1. ``prepared`` (only for tenants with workers of their own, whose keys lie elsewhere): readers open with the next key,
   nothing is sealed under it. Run again, it changes nothing.
2. ``rotated``: one document puts the next key in use and keeps the former one, so there is no moment with neither. A
   writer seals under the new key once it has read the document. A reader that meets a text under a key that it does
   not know reads ``control`` to its end before it says so; the document is there, as the writer had read it.
3. ``forgotten``: what only that key opens is closed for ever. It is never done by itself.

The keyring's file holds a new key before anything is wrapped with it, and an old one until nothing is.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pipeline.errors import ConfigError
from pipeline.events.control import Key, Tenant
from pipeline.events.wrapped import MAX_FORMER, FormerSecret, secret_id
from pipeline.keys.files import replace_file
from pipeline.keys.keyring import Kms, wrap_named
from pipeline.keys.vault import key_context

SecretKind = Literal["data", "hpke", "webhook"]


class SecretFields(NamedTuple):
    """One kind of a tenant's secrets stands in these fields of its document."""

    current: str
    following: str
    former: str
    loses: str
    """What opens no more, or is refused, once a former one is forgotten."""


FIELDS: dict[SecretKind, SecretFields] = {
    "data": SecretFields(
        "data_key",
        "next_data_key",
        "former_data_keys",
        "texts that were sealed under it: requests and answers that policy keeps for analysts, and requests that still "
        "wait; a canary of that time is found no more",
    ),
    "hpke": SecretFields(
        "hpke_private",
        "next_hpke_private",
        "former_hpke_keys",
        "texts that direct producers sealed for it and policy keeps, and what producers that started before its "
        "replacement still write",
    ),
    "webhook": SecretFields(
        "webhook_secret",
        "",
        "former_webhook_secrets",
        "nothing here; receivers that check deliveries with it refuse them from now on",
    ),
}


def prepared(kms: Kms, tenant: Tenant, kind: SecretKind) -> Tenant:
    """Give the document under which readers know the next key; the same where they do. Raises ConfigError."""
    fields = FIELDS[kind]
    if not fields.following:
        raise ConfigError("a webhook secret needs no preparation: the receiver is told both; leave --prepare out")
    if getattr(tenant, fields.following):
        return tenant
    return tenant.model_copy(update={fields.following: _made(kms, kind, tenant.id)})


def rotated(kms: Kms, tenant: Tenant, kind: SecretKind, now: int, overlap_ms: int = 0) -> Tenant:
    """Give the document with the next key in use and the one in use kept. ``now`` in Unix ms. Raises ConfigError."""
    fields, context = FIELDS[kind], f"{kind}/{tenant.id}"
    kept = [each for each in getattr(tenant, fields.former) if not each.until or each.until > now]
    if len(kept) >= MAX_FORMER:
        raise ConfigError(
            f"tenant {tenant.id} keeps {MAX_FORMER} former {kind} keys; forget one first: "
            f"sluice keys forget {kind} {tenant.id} {secret_id(kept[0].secret)}"
        )
    following = (getattr(tenant, fields.following) if fields.following else "") or _made(kms, kind, tenant.id)
    secret = kms.unwrap(getattr(tenant, fields.current), context)
    former = FormerSecret(
        secret=wrap_named(kms, secret, context), retired=now, until=now + overlap_ms if kind == "webhook" else 0
    )
    changes: dict[str, Any] = {fields.current: following, fields.former: (*kept, former)}
    if fields.following:
        changes[fields.following] = ""
    if kind == "hpke":
        private = X25519PrivateKey.from_private_bytes(kms.unwrap(following, context))
        changes["hpke_public"] = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    return tenant.model_copy(update=changes)


def forgotten(tenant: Tenant, kind: SecretKind, former_id: str) -> Tenant:
    """Give the document without the former key of that id. Raises ConfigError where it has none."""
    name = FIELDS[kind].former
    former = getattr(tenant, name)
    kept = tuple(each for each in former if secret_id(each.secret) != former_id)
    if len(kept) == len(former):
        known = ", ".join(secret_id(each.secret) for each in former) or "none"
        raise ConfigError(
            f"tenant {tenant.id} keeps no former {kind} key {former_id[:40]!r}; known: {known}; see: sluice keys show"
        )
    return tenant.model_copy(update={name: kept})


def rewrapped_tenant(kms: Kms, tenant: Tenant, current: str) -> Tenant:
    """Give the document with every secret wrapped by keyring key ``current`` and named; the same where all are."""
    changes: dict[str, Any] = {}
    for kind, fields in FIELDS.items():
        context = f"{kind}/{tenant.id}"
        for name in filter(None, (fields.current, fields.following)):
            wrapped = getattr(tenant, name)
            if wrapped and not _wrapped_by(wrapped, current):
                changes[name] = wrap_named(kms, kms.unwrap(wrapped, context), context)
        former = getattr(tenant, fields.former)
        if not all(_wrapped_by(each.secret, current) for each in former):
            changes[fields.former] = tuple(
                each.model_copy(update={"secret": wrap_named(kms, kms.unwrap(each.secret, context), context)})
                for each in former
            )
    return tenant.model_copy(update=changes) if changes else tenant


def rewrapped_key(kms: Kms, key: Key, tenant: str, current: str) -> Key:
    """Give the document with its secret bound to key, principal and tenant and wrapped by ``current``."""
    if key.bound and _wrapped_by(key.secret, current):
        return key
    secret, bound = kms.unwrap(key.secret, key_context(key, tenant)), key.model_copy(update={"bound": True})
    return bound.model_copy(update={"secret": wrap_named(kms, secret, key_context(bound, tenant))})


def add_keyring_key(path: Path) -> str:
    """Add a key that wraps nothing yet, where the file holds none such; give its name. Raises ConfigError."""

    def add(keyring: dict[str, Any]) -> str:
        if keyring.get("next"):
            return str(keyring["next"])
        ordinal = len(keyring["keys"]) + len(keyring.get("dropped", ())) + 1
        # a name never comes back with other bytes, though another host may have the file of an attempt before
        name = f"k{ordinal}-{os.urandom(3).hex()}"
        keyring["keys"][name] = base64.b64encode(os.urandom(32)).decode()
        keyring["next"] = name
        return name

    return _change_keyring(path, add)


def use_keyring_key(path: Path, name: str, now: int) -> str:
    """Have secrets wrapped with ``name`` from now on (Unix ms). Raises ConfigError where the file lacks it."""

    def use(keyring: dict[str, Any]) -> str:
        if name not in keyring["keys"]:
            raise ConfigError(f"keyring {path} has no key {name}; run: sluice keys rotate keyring --prepare")
        if keyring["current"] != name:
            keyring.setdefault("replaced", {})[keyring["current"]] = now
            keyring["current"] = name
        keyring.pop("next", None)
        return name

    return _change_keyring(path, use)


def drop_keyring_keys(path: Path, wanted: frozenset[str], now: int, rest_ms: int) -> list[str]:
    """Drop every key but those in ``wanted``, the one in use and the next one; give the names.

    Tickets of requests that are under way were made with a key until it was replaced, so one rests for ``rest_ms``.
    """
    dropped: list[str] = []

    def drop(keyring: dict[str, Any]) -> str:
        kept = {*wanted, keyring["current"], keyring.get("next")}
        for name in [name for name in keyring["keys"] if name not in kept]:
            if now - keyring.get("replaced", {}).get(name, 0) >= rest_ms:
                del keyring["keys"][name]
                dropped.append(name)
        keyring["dropped"] = [*keyring.get("dropped", ()), *dropped]
        return ""

    _change_keyring(path, drop)
    return dropped


def _change_keyring(path: Path, change: Callable[[dict[str, Any]], str]) -> str:
    try:
        with _locked(path):
            keyring = json.loads(path.read_text())
            name = change(keyring)
            replace_file(path, json.dumps(keyring))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"keyring {path}: expected to change it, got {type(error).__name__}: {error}") from error
    return name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time change the file; two that each add a key would lose one and all that it wrapped."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _made(kms: Kms, kind: SecretKind, tenant: str) -> str:
    secret = X25519PrivateKey.generate().private_bytes_raw() if kind == "hpke" else os.urandom(32)
    return wrap_named(kms, secret, f"{kind}/{tenant}")


def _wrapped_by(wrapped: str, current: str) -> bool:
    return wrapped.startswith(f"{current}:") and bool(secret_id(wrapped))
