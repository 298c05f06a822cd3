"""A stage whose broker or store is absent says what it waits for, and ends at once when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import LOOPBACK, Supervisor, free_port
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.interpreter import module_command, module_environment
from pipeline.keys.files import create_log_keys
from pipeline.keys.vault import FileKeyring
from pipeline.wiring import STAGES
from tests.patience import STUCK_S, looks

PASSWORD = "word"


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that nothing listens on."""
    yield free_port()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


ABSENT: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {"refusing": refusing, "silent": silent}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, so that nothing but the broker or the store is missing."""
    home = tmp_path_factory.mktemp("home")
    FileKeyring.create(home / "keys" / "keyring.json")
    create_log_keys(home / "keys" / "log-key.json", "sluice")
    return home


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[str]:
    supervisor = Supervisor()
    started = EmbeddedStore(StoreSettings(home / "store", free_port(), PASSWORD), supervisor)
    started.start()
    client = ClickHouseStore(ClickHouseEndpoint(started.url, "sluice", PASSWORD))
    client.connect()
    client.apply_migrations()
    client.close()
    yield started.url
    supervisor.stop_all()


def waits(stage: str, home: Path, settings: dict[str, str], expected: str) -> str:
    """Run a stage until its log says ``expected``, ask it to end, and give its log; it must end well."""
    log = home / f"{stage}.log"
    environment = {
        **os.environ,
        **module_environment(),
        "SLUICE_KEYS__HOME": str(home / "keys"),
        "SLUICE_KEYS__DEPLOYMENT": "0" * 64,
        "SLUICE_MODELS__HOME": str(home / "models"),
        "SLUICE_GENERATE__MODEL": "echo",
        "SLUICE_CLICKHOUSE__PASSWORD": PASSWORD,
        **settings,
    }
    argv = module_command("pipeline", "--home", str(home), "run", stage)
    with log.open("wb") as sink, subprocess.Popen(argv, cwd=home, env=environment, stdout=sink, stderr=sink) as child:
        try:
            for _ in looks():
                assert child.poll() is None, log.read_text()
                if expected in log.read_text():
                    break
                time.sleep(0.05)
            child.send_signal(signal.SIGTERM)
            assert child.wait(STUCK_S) == 0, log.read_text()
        finally:
            child.kill()
    return log.read_text()


@pytest.mark.parametrize("absence", ABSENT)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_without_a_broker_says_so_and_ends_when_asked(
    stage: str, absence: str, home: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("store") if stage == "seal" else ""
    with ABSENT[absence]() as port:
        settings = {"SLUICE_KAFKA__BOOTSTRAP": f"127.0.0.1:{port}", "SLUICE_CLICKHOUSE__URL": url}
        said = waits(stage, home, settings, f"waiting for the Kafka broker at 127.0.0.1:{port}")
    assert "Traceback" not in said


@pytest.mark.parametrize("absence", ABSENT)
def test_seal_without_a_store_says_so_and_ends_when_asked(absence: str, home: Path, deployment: Any) -> None:
    with ABSENT[absence]() as port:
        url = f"http://127.0.0.1:{port}"
        settings = {"SLUICE_KAFKA__BOOTSTRAP": deployment.bootstrap, "SLUICE_CLICKHOUSE__URL": url}
        said = waits("seal", home, settings, f"waiting for ClickHouse at {url}")
    assert "Traceback" not in said
