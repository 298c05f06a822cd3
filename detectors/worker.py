"""The process in which texts of strangers are read: ``python -m detectors.worker``.

Frames on standard input and output: length (u32 BE), then msgpack; a list of transcripts in, a list of ``Screened``
out. Reading is done by a fork of the process, which first sends an empty frame: it is ready. A batch that takes more
CPU time or memory than its share kills that fork and nothing else; the next one is ready within milliseconds, and its
empty frame in place of an answer says so. Neither can open a file, a pipe or a connection, and neither holds a secret.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import IO

import msgspec

from detectors.base import Part, Screened, Transcript
from detectors.screening import screen_batch

MEMORY_BYTES = 2 << 30
"""Address space of the process; numpy's libraries alone reserve a few hundred MiB of it."""
CPU_S, CPU_S_PER_CHAR = 0.25, 25e-6
"""CPU time of a batch, about a hundred times what it takes; CPU time, as a busy machine is not the text's fault."""
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 38, 1
_WARM = (Part("user", "Ordinary words, \u4e2d\u6587, a1b2@example.org, 192.0.2.1"),)
_decoder = msgspec.msgpack.Decoder(list[Transcript])
_encode = msgspec.msgpack.Encoder().encode


def cpu_budget_s(transcripts: Sequence[Transcript]) -> float:
    """CPU seconds that reading these may take."""
    return CPU_S + CPU_S_PER_CHAR * sum(len(part.text) for transcript in transcripts for part in transcript)


Screen = Callable[[Sequence[Transcript]], Sequence[Screened]]
_WORKING = 1


def main(screen: Screen = screen_batch) -> None:
    """Serve until the input ends."""
    # tables and weights are read once, before the doors close
    screen([_WARM])
    _confine()
    state = mmap.mmap(-1, 1)
    while True:
        state[0] = 0
        child = os.fork()
        if not child:
            _die_with_parent()
            _serve(screen, state)
            os._exit(0)
        os.waitpid(child, 0)
        if state[0] != _WORKING:
            # the end of the input, or killed with half a frame read: the asker must begin anew
            return


def _serve(screen: Screen, state: mmap.mmap) -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _write(sink, b"")
    while header := source.read(4):
        transcripts = _decoder.decode(source.read(int.from_bytes(header, "big")))
        state[0] = _WORKING
        # its default action ends the process, also in the middle of a C library's loop
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_budget_s(transcripts))
        answer = _encode(screen(transcripts))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        state[0] = 0
        _write(sink, answer)


def _write(sink: IO[bytes], content: bytes) -> None:
    sink.write(len(content).to_bytes(4, "big") + content)
    sink.flush()


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    # what is open stays so; with any room at all, a place could be closed and filled with a file or a socket
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _die_with_parent()


def _die_with_parent() -> None:
    with contextlib.suppress(AttributeError, OSError):
        control = ctypes.CDLL(None).prctl
        control(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        control(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


if __name__ == "__main__":
    main()
