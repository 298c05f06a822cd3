"""An operator at a terminal: ``sluice up`` as a process, and commands against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.embedded.supervisor import free_port
from pipeline.interpreter import module_command, module_environment
from tests.patience import STUCK_S

ROOT = Path(__file__).parents[2]


class Operator:
    """Runs ``sluice`` commands against one home, from one current folder."""

    def __init__(self, home: Path, folder: Path = ROOT, model: str = "echo") -> None:
        self.home = home
        self._folder = folder
        self._model = model
        names = ("--port", "--kafka-port", "--kafka-controller-port", "--kafka-producers-port", "--clickhouse-port")
        self.ports = {name: str(free_port()) for name in names}
        self.url = f"http://127.0.0.1:{self.ports['--port']}"
        self.up: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = module_command("pipeline", "--home", str(self.home), *arguments)
        env = {**os.environ, **module_environment(), **environment}
        folder = self._folder
        return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=STUCK_S, check=False)

    def json(self, *arguments: str) -> Any:
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self) -> None:
        argv = module_command("pipeline", "--home", str(self.home), "up", "--model", self._model)
        argv += [text for pair in self.ports.items() for text in pair]
        self.home.mkdir(exist_ok=True)
        with (self.home / "up.log").open("wb") as log:
            # a shell may have started these tests in its background, where Ctrl-C is ignored
            self.up = subprocess.Popen(
                argv,
                cwd=self._folder,
                env={**os.environ, **module_environment()},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_heed_ctrl_c,
            )
        end = time.monotonic() + STUCK_S
        while "running; Ctrl-C stops it" not in self.log() and "next, in another terminal" not in self.log():
            assert self.up.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def stop(self, number: int) -> int:
        assert self.up is not None
        self.up.send_signal(number)
        return self.up.wait(60)

    def log(self) -> str:
        return (self.home / "up.log").read_text("utf-8")

    def children(self) -> list[int]:
        """Processes whose command line names this home."""
        return running(lambda entry: str(self.home).encode() in (entry / "cmdline").read_bytes())

    def readers(self) -> list[int]:
        """The processes that read texts: theirs names nothing."""
        ours = {f"PPid:\t{pid}".encode() for pid in self.children()}
        return running(lambda entry: not ours.isdisjoint((entry / "status").read_bytes().splitlines()))


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def running(fits: Callable[[Path], bool]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if fits(entry):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
