"""The secrets by which answers are traced: of all tenants for the operator, of one alone for a worker of its own.

One master secret stands behind them. A tenant's secret is an HKDF-SHA256 (RFC 5869) of it, so who holds one learns
neither the master nor another tenant's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32
MAX_GRANT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secrets of one deployment.

    ``mark`` gives a tenant's secret of watermarks, and raises ValueError where it was not granted; ``index`` keys
    fingerprints; ``salt`` keys the salts by which other servers tell tenants' caches apart.
    """

    mark: Callable[[str], bytes]
    index: bytes
    salt: bytes
    tenant: str = ""
    """The tenant that they were granted to; empty for those of all."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sluice/traces/1"):
    """The secrets of one tenant's own worker.

    Copies are looked for across tenants, so ``index`` is the deployment's.
    """

    tenant: str
    mark: bytes
    index: bytes
    salt: bytes


def of_master(master: bytes) -> Secrets:
    """The secrets of all tenants."""
    if len(master) != SECRET_BYTES:
        raise ValueError(f"watermark master: expected {SECRET_BYTES} bytes, got {len(master)}")
    return Secrets(
        lambda tenant: _derived(master, "watermark", tenant), index_key(master), _derived(master, "cache-salt", "")
    )


def grant(master: bytes, tenant: str) -> bytes:
    """Contents of the file of ``tenant``'s own worker."""
    secrets = of_master(master)
    salt = _derived(master, "cache-salt", tenant)
    return msgspec.json.encode(Grant(tenant, secrets.mark(tenant), secrets.index, salt))


def index_key(master: bytes) -> bytes:
    """The key of a deployment's fingerprints, from the master secret of its watermarks."""
    return hashlib.blake2b(master, digest_size=32, person=b"sluice.winnow").digest()


def read_secrets(path: Path) -> Secrets:
    """The secrets of a file with the master secret, or with the grant of one tenant. Raises ValueError, OSError."""
    raw = _read(path, MAX_GRANT_BYTES)
    if len(raw) == SECRET_BYTES:
        return of_master(raw)
    try:
        granted = msgspec.json.decode(raw, type=Grant)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError(f"{path}: expected a master secret, or a grant; run: sluice deploy grant") from None
    if {len(granted.mark), len(granted.index), len(granted.salt)} != {SECRET_BYTES}:
        raise ValueError(
            f"{path}: expected secrets of {SECRET_BYTES} bytes, got others; run again: sluice deploy grant"
        )

    def mark(tenant: str) -> bytes:
        if tenant != granted.tenant:
            raise ValueError(f"watermark of tenant {tenant}: not granted to this worker, which is {granted.tenant}'s")
        return granted.mark

    return Secrets(mark, granted.index, granted.salt, granted.tenant)


def read_master(path: Path) -> bytes:
    """The master secret of a file of mode 0600, or 0640 for a worker that runs as another user of its owner's group.

    Raises ValueError, OSError.
    """
    master = _read(path, SECRET_BYTES + 1)
    if len(master) != SECRET_BYTES:
        raise ValueError(
            f"{path}: expected {SECRET_BYTES} bytes, got {len(master)}; restore it, or no marked text can be traced"
        )
    return master


def create_master(path: Path) -> bytes:
    """The master secret at ``path``, made first where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # of two processes that begin together one wins, and neither reads half a key
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return read_master(path)


def _read(path: Path, most: int) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o037:
        raise ValueError(f"{path}: expected a file that only its owner may read; run: chmod 600 {path}")
    with path.open("rb") as file:
        return file.read(most)


def _derived(master: bytes, purpose: str, tenant: str) -> bytes:
    info = b"\x00".join((b"sluice/traces/v1", purpose.encode(), tenant.encode()))
    return HKDF(SHA256(), SECRET_BYTES, None, info).derive(master)
