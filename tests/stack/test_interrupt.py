"""Ctrl-C, or SIGTERM, ends what ``up`` and ``demo`` started: no traceback, no child left, exit code 130."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.embedded.supervisor import free_port
from tests.patience import STUCK_S

ROOT = Path(__file__).parents[2]
PORTS = ("--port", "--kafka-port", "--kafka-controller-port", "--kafka-producers-port", "--clickhouse-port")


@contextlib.contextmanager
def started(home: Path, command: str, *, background: bool) -> Iterator[subprocess.Popen[str]]:
    """The command, as a person starts it, or as a shell without job control does in the background: deaf to SIGINT."""
    disposition = signal.SIG_IGN if background else signal.SIG_DFL
    argv = [sys.executable, "-m", "pipeline", "--home", str(home), command, "--model", "echo"]
    argv += [text for name in PORTS for text in (name, str(free_port()))]
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, disposition),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"ended before it said {text!r}")


def ended_cleanly(process: subprocess.Popen[str], said: str, number: signal.Signals) -> None:
    """Send the signal once the process has said so, and look at its end."""
    read_until(process, said)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=STUCK_S)
    assert process.returncode == 130, rest
    assert "stopping every process" in rest
    assert "Traceback" not in rest
    assert "never retrieved" not in rest


def until_childless(home: Path) -> None:
    """Return once no process names this home; what was killed takes a moment to go."""
    deadline = time.monotonic() + STUCK_S
    while (left := children_of(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def children_of(home: Path) -> list[str]:
    """Command lines that name a file or folder of this home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().decode("utf-8", "replace")
            if str(home) in words and entry.parent.name != str(os.getpid()):
                found.append(words.replace("\0", " "))
    return found


@pytest.mark.parametrize(
    ("command", "said", "number"),
    [
        ("up", "starting Kafka", signal.SIGINT),
        ("up", "starting the stages", signal.SIGTERM),
        ("up", "running; Ctrl-C stops it", signal.SIGINT),
        ("demo", "injections", signal.SIGINT),
        ("demo", "ordinary talk", signal.SIGTERM),
    ],
    ids=["first", "stages", "serving", "traffic", "traffic, SIGTERM"],
)
def test_an_interrupt_leaves_nothing_running(tmp_path: Path, command: str, said: str, number: signal.Signals) -> None:
    with started(tmp_path, command, background=False) as process:
        ended_cleanly(process, said, number)
    until_childless(tmp_path)


def test_sigterm_ends_a_background_job_that_ignores_sigint(tmp_path: Path) -> None:
    with started(tmp_path, "up", background=True) as process:
        ended_cleanly(process, "starting the stages", signal.SIGTERM)
    until_childless(tmp_path)
