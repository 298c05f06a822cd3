"""Processes seen from outside (Linux): the state they are in, the reader of texts beneath one, time without a CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.embedded.supervisor import Child, spawn

_BUSY = "import sys, time; until = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < until: pass"
_STOPPED = "T"
MOST_BUSY = 8
"""Busy processes at once; three for each core, but a machine with many keeps some."""


def stopped(pid: int) -> bool:
    """Tell whether the kernel holds the process stopped."""
    return _stat(pid)[:1] == [_STOPPED]


def text_reader(admit: int) -> int | None:
    """Process id of the screening worker beneath an admit process, which leads a group of its own."""
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if _stat(pid)[1:2] == [str(admit)] and os.getsid(pid) == pid and b"detectors.worker" in _command(pid):
            return pid
    return None


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a process and its forks, if they are still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def waited_s(pids: Iterable[int]) -> float:
    """Seconds for which threads of these processes were ready to run and had no CPU."""
    return sum(_waits(pids)) / 1e9


def busy(log: Path, seconds: float) -> list[Child]:
    """Start processes that want a whole core each; they end by themselves, and with this process."""
    count = min(MOST_BUSY, 3 * (os.cpu_count() or 1))
    argv = [sys.executable, "-I", "-S", "-c", _BUSY, str(seconds)]
    return [spawn(argv, name=f"busy-{index}", log=log, env={}) for index in range(count)]


def _waits(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                yield int(thread.read_text().split()[1])


def _stat(pid: int) -> list[str]:
    """State, parent and what follows of /proc/PID/stat (proc(5)); empty for no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
