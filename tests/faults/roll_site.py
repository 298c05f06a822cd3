"""A home of an older build, aged as by eight days, on a stack whose stages are rolled from that build to this one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline import config
from pipeline.config import Settings
from pipeline.demo.reconcile import count_log, read_all
from pipeline.embedded.stack import LocalStack, Say
from pipeline.embedded.supervisor import spawn
from pipeline.events.chain import ChainReader
from pipeline.events.codec import decode_log
from pipeline.events.records import SnapshotMark
from pipeline.kafka.clients import make_admin
from pipeline.topics import TOPICS
from tests.faults.fault_site import ROLES, TENANTS, FaultSite, quiet_ports

_ROOT = Path(__file__).parents[2]
_TIMED = ("requests", "work", "completions", "responses")
"""Topics of which retention leaves nothing after eight days."""


class Build:
    """The packages of a commit, in a folder of their own."""

    def __init__(self, commit: str, folder: Path) -> None:
        archive = subprocess.run(["git", "archive", commit], cwd=_ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        self.commit, self.folder = commit, folder

    def command(self, *words: str) -> list[str]:
        """Give the command line of ``sluice`` with ``words``, as this build understands them."""
        return ["env", "-C", str(self.folder), sys.executable, "-m", "pipeline", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}


ISSUE = """
import asyncio, json, sys
from pathlib import Path
from pipeline import config, wiring

async def main(settings, tenants, roles):
    keys = {}
    async with wiring.registry(settings) as registry:
        for tenant, plan in tenants.items():
            if tenant not in registry.control.tenants:
                await registry.add_tenant(tenant, plan)
            for role in roles:
                keys[f"{tenant}-{role}"] = await registry.add_key(tenant, f"{tenant}-{role}")
    print(json.dumps(keys))

asyncio.run(main(config.load(Path(sys.argv[1])), *map(json.loads, sys.argv[2:])))
"""
"""Issues keys as the older build does: its stages read no document that is signed, so that control stays as it is while
builds are mixed."""


class RollingStack(LocalStack):
    """The stages of ``build``; one that is in ``rolled`` when it is started again is of this build.

    Its broker lets everybody in: builds before this one cannot say who they are.
    """

    authenticates = False

    def __init__(self, home: Path, build: Build, overrides: dict[str, str], *, aged: bool) -> None:
        super().__init__(home, config.cache(), quiet_ports(1), overrides)
        self._build, self._own, self._aged = build, overrides, aged
        self.rolled: set[str] = set()
        self.gone: Counter[str] = Counter()
        """What ageing deleted, by the names of ``count_log``."""
        self.cut: list[int] = []
        """Offsets at which ``decisions`` begin since."""

    def keys(self) -> dict[str, str]:
        """Give the keys of callers, which the older build issued before this one took the home over."""
        return dict(json.loads((self.home / "roll-keys.json").read_text()))

    def _set_up(self, say: Say) -> None:
        if not self.settings.keys.pin:
            arguments = (str(self.home / "sluice.toml"), json.dumps(TENANTS), json.dumps(ROLES))
            argv = [sys.executable, "-c", ISSUE, *arguments]
            environment = os.environ | self._own | self._build.environment
            issued = subprocess.run(
                argv, cwd=self._build.folder, env=environment, check=True, stdout=subprocess.PIPE
            ).stdout
            (self.home / "roll-keys.json").write_bytes(issued)
        super()._set_up(say)
        if self._aged:
            self.gone, self.cut = asyncio.run(_age(self.settings))

    def _start_stage(self, stage: str) -> None:
        if stage in self.rolled:
            super()._start_stage(stage)
            return
        child = spawn(
            self._build.command("--config", str(self.home / "sluice.toml"), "run", stage),
            name=stage,
            log=self.home / "logs" / f"{stage}.log",
            env={**self._build.environment, **self._own, "SLUICE_KAFKA__INSTANCE": "0", "PYTHONUNBUFFERED": "1"},
        )
        self._supervisor.add(child)
        self.stages[stage] = child


class RollingSite(FaultSite):
    """A site whose callers have the keys that the older build issued."""

    stack: RollingStack

    async def _issue_keys(self) -> None:
        self.keys = self.stack.keys()


async def _age(settings: Settings) -> tuple[Counter[str], list[int]]:
    """Delete what eight days take: decisions below the newest marked snapshot, and all of the topics with a time."""
    before, partitions = await count_log(settings), settings.kafka.partitions
    cut = [await _marked(settings, partition) for partition in range(partitions)]
    ends = {TopicPartition("decisions", partition): at for partition, at in enumerate(cut)}
    admin = make_admin(settings.kafka.endpoint)
    await admin.start()
    try:
        for topic in await admin.describe_topics([topic.name for topic in TOPICS if topic.name in _TIMED]):
            for place in (TopicPartition(topic["topic"], found["partition"]) for found in topic["partitions"]):
                items = await read_all(settings, place.topic, place.partition)
                ends[place] = items[-1].offset + 1 if items else 0
        await admin.delete_records({place: RecordsToDelete(before_offset=end) for place, end in ends.items() if end})
    finally:
        await admin.close()
    return before - await count_log(settings), cut


async def _marked(settings: Settings, partition: int) -> int:
    """The offset of the newest snapshot that decisions vouch for; 0 for none."""
    items = await read_all(settings, "decisions", partition)
    chain = ChainReader(trust_first=bool(items and items[0].offset))
    records = [decode_log(entry.value) for item in items for entry in chain.push(item.entry())]
    return max((record.position for record in records if isinstance(record, SnapshotMark)), default=0)
