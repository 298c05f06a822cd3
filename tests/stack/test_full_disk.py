"""A disk that is really full: the store on a file system of its own, of a few dozen MiB."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded import store as embedded
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Child, Supervisor, free_port, spawn
from pipeline.errors import Retryable
from pipeline.tables import RECORDS
from tests.stack.test_clickhouse import PASSWORD, batch, client, held

SIZE = 48 << 20
_OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
_ON_SMALL_DISK = f'mount -t tmpfs -o size={SIZE} small "$0" && exec "$@"'


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EmbeddedStore, Path]]:
    """A running store, and its folder as seen from outside of its mounts."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: a file system of the test's own takes Linux's user namespaces")
    tried = subprocess.run([*_OWN_MOUNTS, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this machine gives no user namespaces: no file system of the test's own")
    home, supervisor = tmp_path / "home", Supervisor()
    home.mkdir()

    def confined(argv: list[str], **rest: Any) -> Child:
        # the shell becomes the store, so its process id is the store's; its log lies outside
        log = tmp_path / "store.log"
        return spawn([*_OWN_MOUNTS, "sh", "-c", _ON_SMALL_DISK, str(home), *argv], **{**rest, "log": log})

    monkeypatch.setattr(embedded, "spawn", confined)
    store = EmbeddedStore(StoreSettings(home, free_port(), PASSWORD), supervisor)
    try:
        store.start()
        yield store, Path(f"/proc/{store.pid}/root{home}")
    finally:
        supervisor.stop_all()


def test_nothing_is_acknowledged_on_a_full_disk_and_all_goes_in_once_it_is_not(
    small: tuple[EmbeddedStore, Path],
) -> None:
    store, inside = small
    found = client(store)
    found.apply_migrations()
    found.insert_batch([(RECORDS, batch(0))], "t0")
    ballast = inside / "ballast"
    with pytest.raises(OSError, match="No space left"):
        _fill(ballast)
    wide = batch(1, rows=2000)
    for _ in range(3):
        with pytest.raises(Retryable, match=r"cannot do it now|gave no answer"):
            found.insert_batch([(RECORDS, wide)], "t1")
    assert held(found) == (100, 100)
    ballast.unlink()
    assert found.insert_batch([(RECORDS, wide)], "t1") is True
    assert found.insert_batch([(RECORDS, wide)], "t1") is False
    assert found.query("SELECT count(), uniqExact(origin, batch, leaf) FROM records") == [(2100, 2100)]


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
