"""A backup is one encrypted file: the folder of keys, the settings, and every record of ``control`` byte for byte.

Form: the line ``sluice-backup/1``, a line of JSON with the parameters of scrypt (RFC 7914), salt and nonce, then
AES-256-GCM over MessagePack. Both lines are bound in as associated data.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pipeline.errors import ConfigError, Malformed

MAGIC = b"sluice-backup/1\n"
MIN_PASSPHRASE = 12
_COST = {"n": 2**17, "r": 8, "p": 1}
_MOST = {"n": 2**20, "r": 16, "p": 4}
"""A file cannot ask for more memory than 2 GiB."""


class KeptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file below the folder of keys."""

    path: str
    content: bytes


class KeptRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of ``control``: the one at the offset of its place in the list."""

    time: int
    key: bytes
    value: bytes


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a deployment cannot be continued without, but for its log and its models."""

    created: int
    """Unix ms."""
    version: str
    """Of the build that made it."""
    generation: str
    deployment: str
    """Digest of the first deployment document: the pin."""
    files: tuple[KeptFile, ...]
    settings: bytes
    """The file of settings; empty where there was none."""
    control: tuple[KeptRecord, ...]
    decided: tuple[int, ...]
    """Ends of the partitions of ``decisions`` when it was made."""


def require_passphrase(passphrase: str) -> None:
    """Raises ConfigError where a passphrase is too short to encrypt with."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(f"passphrase: expected {MIN_PASSPHRASE} characters or more, got {len(passphrase)}; take more")


def encrypt_backup(backup: Backup, passphrase: str) -> bytes:
    """Raises ConfigError where the passphrase is too short."""
    require_passphrase(passphrase)
    salt, nonce = os.urandom(16), os.urandom(12)
    stated = {**_COST, "salt": base64.b64encode(salt).decode(), "nonce": base64.b64encode(nonce).decode()}
    head = MAGIC + json.dumps(stated).encode() + b"\n"
    return head + AESGCM(_key(passphrase, salt, _COST)).encrypt(nonce, msgspec.msgpack.encode(backup), head)


def decrypt_backup(raw: bytes, passphrase: str) -> Backup:
    """Raises Malformed where it is none, was changed, or another passphrase made it."""
    if not raw.startswith(MAGIC):
        raise Malformed("expected a backup of sluice, got another file")
    end = raw.find(b"\n", len(MAGIC)) + 1
    head = raw[:end]
    try:
        stated = json.loads(head[len(MAGIC) :])
        cost = {name: int(stated[name]) for name in _COST}
        salt, nonce = (base64.b64decode(stated[name], validate=True) for name in ("salt", "nonce"))
        if any(not 1 <= cost[name] <= _MOST[name] for name in cost) or len(nonce) != 12:
            raise ValueError
        packed = AESGCM(_key(passphrase, salt, cost)).decrypt(nonce, raw[end:], head)
        backup = msgspec.msgpack.decode(packed, type=Backup)
    except InvalidTag:
        raise Malformed("the backup does not open: another passphrase, or bytes that were changed or cut off") from None
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise Malformed(f"expected a backup of this version of sluice ({type(error).__name__})") from None
    _require_inside(backup.files)
    return backup


def read_folder(folder: Path) -> tuple[KeptFile, ...]:
    """Read every file below a folder, in order. Raises ConfigError."""
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                files.append(KeptFile(path.relative_to(folder).as_posix(), path.read_bytes()))
            except OSError as error:
                raise ConfigError(f"{path}: expected to read it, got: {error.strerror}") from None
    return tuple(files)


def write_folder(folder: Path, files: tuple[KeptFile, ...]) -> None:
    """Write files below a folder that does not exist yet, for this account alone. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, mode=0o700)
        for file in files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_secret(path, file.content)
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: expected to write it, got: {error.strerror}") from None


def write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 that does not exist yet, down to the disk. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _key(passphrase: str, salt: bytes, cost: dict[str, int]) -> bytes:
    derive: Any = Scrypt(salt=salt, length=32, **cost)
    return bytes(derive.derive(passphrase.encode()))


def _require_inside(files: tuple[KeptFile, ...]) -> None:
    """Refuse paths that lead out of the folder they are written to, or meet there."""
    paths = [PurePosixPath(file.path) for file in files]
    if len(set(paths)) != len(paths) or any(
        path.is_absolute() or not path.parts or ".." in path.parts or "\0" in str(path) for path in paths
    ):
        raise Malformed("expected a backup whose files lie in one folder, got paths that lead out of it")
