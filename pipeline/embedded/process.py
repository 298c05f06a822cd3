"""A service of the embedded stack is one child process: started once, awaited, stopped or killed."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.embedded.supervisor import Child, Supervisor, await_answer
from pipeline.errors import ConfigError, Retryable

STOP_GRACE_S = 20.0


class EmbeddedProcess:
    """One process; `supervisor` stops it with the rest if the owner does not. `what` names it in errors."""

    def __init__(self, what: str, supervisor: Supervisor) -> None:
        self._what = what
        self._supervisor = supervisor
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Process id of the running service; ConfigError before `start`."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._child is not None and self._child.alive()

    def stop(self) -> None:
        """End the service cleanly (killed after 20 s); does nothing when it does not run."""
        self._end(lambda child: child.terminate(STOP_GRACE_S))

    def kill(self) -> None:
        """SIGKILL the service, as a crash would; does nothing when it does not run."""
        self._end(Child.kill)

    def _require_stopped(self) -> None:
        if self._child is not None and self._child.alive():
            raise ConfigError(f"the {self._what} already runs (pid {self._child.pid}); stop it first")

    def _hold(self, child: Child) -> None:
        self._child = child
        self._supervisor.add(child)

    def _await(self, where: str, probe: Callable[[], None], timeout_s: float) -> None:
        """Wait until the probe passes. Raises ConfigError where the process ended, Retryable without an answer; either
        way it is killed then."""
        child = self._started()
        try:
            await_answer(where, [child], probe, timeout_s)
        except (ConfigError, Retryable):
            self.kill()
            raise

    def _started(self) -> Child:
        if self._child is None:
            raise ConfigError(f"the {self._what} has not been started; call start() first")
        return self._child

    def _end(self, how: Callable[[Child], None]) -> None:
        if self._child is not None:
            self._supervisor.remove(self._child)
            how(self._child)
            self._child = None
