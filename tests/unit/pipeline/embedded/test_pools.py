"""Following the tenants that ask for workers of their own ends when asked, also where the broker is away."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from pipeline.config import Keys, Settings
from pipeline.embedded.pools import LocalPools
from pipeline.embedded.supervisor import free_port
from pipeline.sections import Kafka
from tests.patience import looks


def test_following_ends_at_once_without_a_broker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    pools = LocalPools(tmp_path / "pools")
    pools.start(Settings(kafka=Kafka(bootstrap=f"127.0.0.1:{free_port()}"), keys=Keys(deployment="0" * 64)))
    with caplog.at_level(logging.INFO):
        for _ in looks():
            if "waiting for the Kafka broker" in caplog.text:
                break
            time.sleep(0.01)
    [follower] = set(threading.enumerate()) - before
    pools.stop()
    assert not follower.is_alive()
    assert pools.wanted() == set()
