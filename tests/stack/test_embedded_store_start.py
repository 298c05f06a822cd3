"""The embedded store starts again on its folder, and says why it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor
from pipeline.errors import ConfigError
from tests.patience import STUCK_S
from tests.stack.embedded_store_site import PASSWORD, ROWS, count, insert, settings, table


def test_acknowledged_rows_survive_kill_and_restart(tmp_path: Path) -> None:
    supervisor = Supervisor()
    store = EmbeddedStore(settings(tmp_path), supervisor)
    try:
        store.start()
        found = table(store, "kept")
        insert(found, "kept", "first")
        store.kill()
        store.start()
        insert(found, "kept", "first")
        assert count(found, "kept") == len(ROWS)
        insert(found, "kept", "second")
        store.stop()
        store.start()
        assert count(found, "kept") == 2 * len(ROWS)
    finally:
        supervisor.stop_all()


def test_no_password_no_store(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SLUICE_STORE_PASSWORD"}
    argv = [sys.executable, "-m", "pipeline.embedded.store_server", "--home", str(tmp_path), "--port", "1"]
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, env=environment, cwd=root, capture_output=True, text=True, timeout=STUCK_S, check=False)
    assert (done.returncode, "SLUICE_STORE_PASSWORD is not set" in done.stderr) == (2, True)


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"ClickHouse store wants .*:{port}.*--clickhouse-port"):
            EmbeddedStore(StoreSettings(tmp_path, port, PASSWORD), Supervisor()).start()
