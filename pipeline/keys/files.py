"""The log's signing keys in a file of mode 0600. Lost, the log cannot be continued; leaked, it can be forged."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from pathlib import Path

from pipeline.audit.checkpoint import LogKeys
from pipeline.errors import ConfigError

FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState:
    """Tell one version of a file from another; (0, 0, 0) where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return state.st_ino, state.st_mtime_ns, state.st_size


def load_log_keys(path: Path) -> LogKeys:
    """Raises ConfigError where the file is absent or not as written."""
    try:
        document = json.loads(path.read_text())
        seeds = [base64.b64decode(document[name]) for name in ("ed25519", "ml_dsa_44")]
        return LogKeys(document["name"], *seeds)
    except FileNotFoundError:
        raise ConfigError(
            f"log key {path} does not exist; run: sluice topics apply (a new deployment) or restore it"
        ) from None
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"log key {path}: expected name, ed25519 and ml_dsa_44 ({type(error).__name__})") from None


def create_log_keys(path: Path, name: str) -> LogKeys:
    """The keys at ``path``, made first where there are none."""
    if not path.exists():
        seeds = {"ed25519": os.urandom(32), "ml_dsa_44": os.urandom(32)}
        text = json.dumps({"name": name, **{kind: base64.b64encode(seed).decode() for kind, seed in seeds.items()}})
        create_once(path, text)
    return load_log_keys(path)


def following_log_keys(path: Path) -> Path:
    """Give the place of the keys that are to follow those at ``path``."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def use_following_log_keys(path: Path) -> None:
    """Put the following keys into the place of those at ``path``, which are destroyed: they sign nothing any more."""
    following_log_keys(path).replace(path)
    on_disk(path.parent)


def create_once(path: Path, text: str) -> None:
    """Write a file of mode 0600 where there is none: of two processes that begin together one wins, and a reader never
    sees half of it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    replace_file(partial, text)
    with contextlib.suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()
    on_disk(path.parent)


def password_of(path: Path) -> str:
    """Give the password in a file; where there is none it is made, for the owner and the owner's group to read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        replace_file(path, secrets.token_urlsafe(24), 0o640)
    return path.read_text("utf-8")


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file, on the disk before it has its name."""
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    on_disk(path.parent)


def on_disk(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
