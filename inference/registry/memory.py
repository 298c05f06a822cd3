"""Bytes in private memory that nothing can change once they are frozen: a loader reads the bytes that were verified."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from types import TracebackType


class ImmutableBytes:
    """The contents of one file. Write, ``freeze``, then read by ``path``, ``map`` or ``read``.

    On Linux a memfd under ``F_SEAL_WRITE`` (memfd_create(2), fcntl(2)): not even this process can alter it again.
    Elsewhere an unlinked temporary file that no other user can open.
    """

    def __init__(self, name: str) -> None:
        self.size = 0
        self._memory = hasattr(os, "memfd_create")
        if self._memory:
            self._descriptor = os.memfd_create(name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())

    @property
    def path(self) -> str:
        """A path that this process alone can open."""
        return f"/proc/self/fd/{self._descriptor}" if self._memory else f"/dev/fd/{self._descriptor}"

    def write(self, piece: memoryview) -> None:
        """Append."""
        self.size += len(piece)
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]

    def freeze(self) -> None:
        """Let no byte change from here on."""
        if self._memory:
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, seals)

    def read(self, limit: int | None = None) -> bytes:
        """The first ``limit`` bytes, or all."""
        return os.pread(self._descriptor, self.size if limit is None else limit, 0)

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Fill ``buffer`` from ``position`` on; the count read."""
        done = 0
        while done < len(buffer) and (count := os.preadv(self._descriptor, [buffer[done:]], position + done)):
            done += count
        return done

    def map(self) -> mmap.mmap:
        """All bytes without a copy; of a file that is not empty."""
        return mmap.mmap(self._descriptor, self.size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)

    def close(self) -> None:
        """Give the memory back; maps that are still open keep theirs."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ImmutableBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
