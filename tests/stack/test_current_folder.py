"""Every stage starts and serves in any current folder: an unwritable one, or one full of modules that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline import config
from pipeline.endpoints import KafkaEndpoint
from pipeline.kafka.clients import make_admin
from tests.hostile_folder import hostile_folder, imported
from tests.patience import looks
from tests.stack.operator_site import Operator

GROUPS = ["sluice-watch", *(f"sluice-{stage}-workers" for stage in ("admit", "generate", "notify", "seal"))]
"""The groups of all stages but the gateway, for which ``up`` waits."""


async def _all_joined(kafka: KafkaEndpoint) -> None:
    admin = make_admin(kafka)
    await admin.start()
    try:
        for group in GROUPS:
            await _joined(admin, group)
    finally:
        await admin.close()


async def _joined(admin: AIOKafkaAdminClient, group: str) -> None:
    for _ in looks():
        # a broker that has just started may not have its coordinators yet
        with contextlib.suppress(KafkaError):
            [answer] = await admin.describe_consumer_groups([group])
            [(_, _, state, _, _, members, *_)] = answer.groups
            if state == "Stable" and members:
                return
        await asyncio.sleep(0.2)
    raise AssertionError(f"no stage serves in group {group}")


@pytest.fixture(params=["unwritable", "hostile"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "hostile":
        record = hostile_folder(tmp_path / "hostile")
        yield tmp_path / "hostile"
        assert imported(record) == []
        return
    unwritable = Path("/proc")
    if not unwritable.is_dir():
        pytest.skip("no folder here that even root cannot write to")
    with pytest.raises(OSError, match="proc"):
        (unwritable / "sluice").mkdir()
    yield unwritable


def test_every_stage_serves_and_ends_well(folder: Path, tmp_path: Path) -> None:
    operator = Operator(tmp_path / "home", folder, model="glossary")
    operator.start()
    try:
        asyncio.run(_all_joined(config.load(operator.home / "sluice.toml", {}).kafka.endpoint))
        assert operator.json("topics", "check") == []
        assert "ended with status" not in operator.log()
    finally:
        assert operator.stop(signal.SIGTERM) == 130
    assert operator.children() == []
