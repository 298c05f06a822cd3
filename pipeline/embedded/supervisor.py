"""Child processes that end with their parent, and ports on the loopback interface.

A child is started through a tiny launcher which first ties its life to ours and then replaces
itself by the real program, so `Child.pid` is the real program's id. On Linux the tie is
PR_SET_PDEATHSIG (prctl(2)); the kernel sends that signal when the *thread* that forked ends, so
every fork is done by one daemon thread that lives as long as the process. Elsewhere a watcher
process holds the reading end of a pipe whose writing end only we hold: end of file means that we
are gone. Each child leads its own session, so Ctrl-C in a terminal reaches only the parent, which
then ends its children in order.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from pipeline.errors import ConfigError, Retryable

LOOPBACK = "127.0.0.1"

_LISTENING = range(20_000, 32_000)
_PROCESSES = 64
"""Each of so many processes chooses among ports of its own: what one has chosen and not yet opened no other takes."""
_LOOK_S = 0.05
_GIVES_WAY = 10
"""Nice value of what nobody waits for: a tenth of a core's share where all are busy (sched(7))."""

# argv: parent pid, reading end of the pipe or -1, nice value, program, arguments.
_LAUNCHER = """
import os, signal, sys
parent, pipe, nice = (int(word) for word in sys.argv[1:4])
if nice:
    os.nice(nice)
    try:
        # Linux shares cores out between sessions first (sched(7), autogroup), and this leads one
        with open("/proc/self/autogroup", "w") as group:
            group.write(str(nice))
    except OSError:
        pass
if pipe < 0:
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
else:
    child = os.getpid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while os.read(pipe, 1):
            pass
        if os.getppid() == child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)
    os.close(pipe)
if os.getppid() != parent:
    os._exit(1)
os.execvp(sys.argv[4], sys.argv[4:])
"""


class Child:
    """One running program, tied to this process; made by `spawn`."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, log: Path, tie: int) -> None:
        self._process = process
        self._tie = tie
        self.name = name
        self.log = log

    @property
    def pid(self) -> int:
        """Process id, also the id of the child's process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs."""
        return self._process.poll()

    def alive(self) -> bool:
        """True while the program runs."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Exit status once the program has ended. Raises subprocess.TimeoutExpired where it goes on."""
        return self._process.wait(timeout_s)

    def ask(self) -> None:
        """Send SIGTERM and do not wait."""
        if self.alive():
            self._process.terminate()

    def terminate(self, grace_s: float = 10) -> None:
        """Ask with SIGTERM, wait `grace_s` seconds, then kill; returns once the child is gone."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._untie()

    def kill(self) -> None:
        """SIGKILL the child and its process group; returns once the child is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._untie()

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the child's log (at most its last 16 KiB); "" when there are none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 16_384))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _untie(self) -> None:
        if self._tie >= 0:
            os.close(self._tie)
            self._tie = -1


class Supervisor:
    """Named children in start order, stopped in reverse order."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    def add(self, child: Child) -> None:
        """Take charge of `child`; ConfigError when a live child already has its name."""
        before = self._children.pop(child.name, None)
        if before is not None and before.alive():
            self._children[child.name] = before
            raise ConfigError(f"a child named {child.name!r} already runs (pid {before.pid}); stop it first")
        self._children[child.name] = child

    def remove(self, child: Child) -> None:
        """Let go of a child that its owner stopped on purpose; unknown ones are ignored."""
        if self._children.get(child.name) is child:
            del self._children[child.name]

    def dead(self) -> list[Child]:
        """Children that ended without having been removed, in start order."""
        return [child for child in self._children.values() if not child.alive()]

    def stop_all(self, grace_s: float = 10) -> None:
        """Stop every child, the last started first, each with `grace_s` seconds of grace."""
        while self._children:
            _, child = self._children.popitem()
            child.terminate(grace_s)


def spawn(
    argv: Sequence[str],
    *,
    name: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    gives_way: bool = False,
    watch_pipe: bool = sys.platform != "linux",
) -> Child:
    """Start `argv` tied to this process, standard output and error appended to `log`.

    `env` is added to the inherited environment; `gives_way`: others come first where cores are short. Raises
    ConfigError when the launcher cannot run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    nice = _GIVES_WAY if gives_way else 0
    return _on_spawner(lambda: _fork(list(argv), name, log, dict(env or {}), nice, watch_pipe))


def _fork(argv: list[str], name: str, log: Path, env: dict[str, str], nice: int, watch_pipe: bool) -> Child:
    reading, writing = os.pipe() if watch_pipe else (-1, -1)
    launcher = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _LAUNCHER,
        str(os.getpid()),
        str(reading),
        str(nice),
    ]
    try:
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [*launcher, *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
                pass_fds=(reading,) if watch_pipe else (),
            )
    except OSError as error:
        if watch_pipe:
            os.close(writing)
        raise ConfigError(f"cannot start {name}: {error}; expected to run {argv[0]}") from error
    finally:
        if watch_pipe:
            os.close(reading)
    return Child(process, name, log, writing)


_jobs: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
_spawner_lock = threading.Lock()
_spawner: threading.Thread | None = None


def _on_spawner(job: Callable[[], Child]) -> Child:
    global _spawner
    with _spawner_lock:
        if _spawner is None or not _spawner.is_alive():
            _spawner = threading.Thread(target=_spawn_loop, name="spawner", daemon=True)
            _spawner.start()
    future: Future[Child] = Future()
    _jobs.put((job, future))
    return future.result()


def _spawn_loop() -> None:
    while True:
        job, future = _jobs.get()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)


def await_answer(what: str, children: Sequence[Child], probe: Callable[[], None], timeout_s: float) -> None:
    """Return once `probe` raises neither OSError nor ValueError.

    Raises ConfigError where one of `children` has ended, Retryable after `timeout_s` seconds.
    """
    began, last = time.monotonic(), "nothing listened"
    while time.monotonic() - began < timeout_s:
        for child in children:
            if not child.alive():
                raise ConfigError(
                    f"{child.name} ended with status {child.returncode} while starting; "
                    f"its last log lines ({child.log}):\n{child.log_tail()}"
                )
        try:
            probe()
        except (OSError, ValueError) as error:
            last = str(error)
        else:
            return
        time.sleep(_LOOK_S)
    tail = f"; last log lines:\n{children[0].log_tail()}" if len(children) == 1 else ""
    raise Retryable(f"{what} was not ready within {timeout_s:.0f} s (last: {last}){tail}")


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago, of those that no outgoing connection is given (RFC 6335)."""
    return next(port for port in _own_ports(os.getpid()) if is_free(LOOPBACK, port))


@functools.cache
def _own_ports(pid: int) -> Iterator[int]:
    """Give the ports that this process chooses among over and over, none of them twice in a round."""
    own = _LISTENING[pid % _PROCESSES :: _PROCESSES]
    return itertools.cycle(secrets.SystemRandom().sample(own, len(own)))


def is_free(host: str, port: int) -> bool:
    """Tell whether a program could listen on host:port a moment ago."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_port(host: str, port: int, flag: str, who: str = "this program") -> None:
    """Raise ConfigError naming `who` and `flag` unless `who` could listen on host:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{who} wants {host}:{port}, which is not free ({error.strerror}); "
                f"stop the program that has it or choose another port with {flag}"
            ) from error
