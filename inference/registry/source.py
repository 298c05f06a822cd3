"""Sources of a model's files: each file is read exactly once, into frozen memory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from inference.registry.content import MANIFEST_FILE
from inference.registry.dsse import MAX_ENVELOPE_BYTES
from inference.registry.manifest import MAX_FILES
from inference.registry.memory import ImmutableBytes
from inference.registry.refusal import ModelRefused

CHUNK = 1 << 20
"""Bytes read, hashed and kept at a time: small enough to stay in the processor's cache between the three."""


@dataclass(frozen=True, slots=True)
class Digests:
    """Size and digests of one file as it was read; ``sha256`` is empty where it was not asked for."""

    size: int
    blake3: str
    sha256: str


class ModelSource(Protocol):
    """A model at rest."""

    def manifest(self) -> bytes:
        """The signed envelope. Raises ModelRefused."""

    def names(self) -> list[str]:
        """Every file that is there. Raises ModelRefused for anything that is no plain file."""

    def copy(self, name: str, size: int, into: ImmutableBytes, sha256: bool) -> Digests:
        """Read one file of ``size`` plain bytes once. Raises ModelRefused where it is longer or shorter."""


class PlainFolder:
    """A folder of files; no symbolic link, pipe, device or sub-folder is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> bytes:
        try:
            return self.read(MANIFEST_FILE, MAX_ENVELOPE_BYTES)
        except FileNotFoundError:
            raise ModelRefused(
                "unsigned",
                f"{self.folder}: expected a signed model, got no {MANIFEST_FILE}; sign it with: sluice model sign",
            ) from None

    def names(self) -> list[str]:
        names = []
        with opened_folder(self.folder) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise ModelRefused(
                        "forbidden_file", f"{entry.name[:128]!r}: expected plain files, got a link, folder or device"
                    )
                names.append(entry.name)
                if len(names) > 2 * MAX_FILES:
                    raise ModelRefused(
                        "extra_file", f"{self.folder}: expected at most {MAX_FILES} files, got more than twice as many"
                    )
        return sorted(names)

    def copy(self, name: str, size: int, into: ImmutableBytes, sha256: bool) -> Digests:
        with self.opened(name) as descriptor:
            return copy_exactly(name, size, reader(descriptor), into, sha256)

    def size(self, name: str) -> int:
        """Bytes of a file as of now."""
        with self.opened(name) as descriptor:
            return os.fstat(descriptor).st_size

    def read(self, name: str, limit: int) -> bytes:
        """A small file. Raises ModelRefused where it is larger, FileNotFoundError where it is absent."""
        with self.opened(name) as descriptor:
            raw = b""
            while piece := os.read(descriptor, limit + 1 - len(raw)):
                raw += piece
        if len(raw) > limit:
            raise ModelRefused("content", f"{name}: expected at most {limit} bytes, got more")
        return raw

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A descriptor of a plain file of this folder; raises ModelRefused for any other kind."""
        with opened_folder(self.folder) as folder:
            try:
                # without O_NONBLOCK a pipe would wait for a writer
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=folder)
            except OSError as fault:
                if fault.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                    raise ModelRefused(
                        "forbidden_file", f"{name}: expected a plain file, got a link or device"
                    ) from None
                raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelRefused("forbidden_file", f"{name}: expected a plain file, got a link, folder or device")
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of a folder. Raises ModelRefused where there is none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        raise ModelRefused("unknown", f"{folder}: expected a model folder: {fault.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reader(descriptor: int) -> Iterator[memoryview]:
    """The pieces of a file; each is good until the next is asked for."""
    buffer = memoryview(bytearray(CHUNK))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def copy_exactly(name: str, size: int, pieces: Iterator[memoryview], into: ImmutableBytes, sha256: bool) -> Digests:
    """Hash and keep each piece as it comes, so the bytes hashed are the bytes kept.

    Raises ModelRefused on another size.
    """
    fast, slow = blake3(), hashlib.sha256()
    updates: list[Callable[[memoryview], object]] = [fast.update, *([slow.update] if sha256 else [])]
    for piece in pieces:
        if into.size + len(piece) > size:
            raise ModelRefused("altered", f"{name}: expected {size} bytes, got more; fetch the model again")
        for update in updates:
            update(piece)
        into.write(piece)
    if into.size != size:
        raise ModelRefused("altered", f"{name}: expected {size} bytes, got {into.size}; fetch the model again")
    into.freeze()
    return Digests(size, fast.hexdigest(), slow.hexdigest() if sha256 else "")
