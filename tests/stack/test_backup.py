"""The drill: a stack is made, backed up and lost; what comes back where its log is still there, and where it is not."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import NewTopic

from pipeline import config
from pipeline.config import Keys, Settings
from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError
from pipeline.events.codec import decode
from pipeline.events.messages import Access
from pipeline.kafka.clients import make_admin
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.sections import Kafka
from pipeline.topics import BY_NAME
from pipeline.wiring.backup import make_backup, restore_control
from tests.admit_site import read
from tests.deployment_site import furnished
from tests.patience import STUCK_S, looks
from tests.stack.operator_site import Operator

TEXT = b"what was said before"
PLACE = ("me", "request", "messages", "app:1")


def asked(operator: Operator, key: str) -> str:
    """The text of an answer, or the reason of the refusal."""
    body = json.dumps({"prompt": "What is a dog?", "model": "echo", "max_tokens": 8}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{operator.url}/inference", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=STUCK_S) as answer:
            return str(json.load(answer)["text"])
    except urllib.error.HTTPError as refused:
        return str(json.load(refused)["error"]["code"])


async def vault_of(settings: Settings) -> Vault:
    table = ControlTable(settings.kafka.endpoint, settings.keys.pin)
    try:
        await table.start()
        return Vault(FileKeyring(settings.keys.keyring), table.control)
    finally:
        await table.close()


def verifies(operator: Operator) -> None:
    """The log verifies, once there is one: sealing comes after the answer."""
    for _ in looks():
        verified = operator.command("audit", "verify")
        if verified.returncode == 0:
            return
        time.sleep(0.5)
    raise AssertionError(verified.stdout + verified.stderr)


def test_a_deployment_that_was_lost_comes_back(tmp_path: Path) -> None:
    secret, kept = tmp_path / "passphrase", tmp_path / "one.backup"
    secret.write_text("correct horse battery\n")
    passphrase = ("--passphrase-file", str(secret))
    first = Operator(tmp_path / "first")
    first.start()
    first.json("tenant", "add", "me", "--plan", "team")
    key = str(first.json("key", "add", "me", "app")[0]["key"])
    direct = str(first.json("key", "add", "me", "batch", "--kafka")[0]["key"])
    assert asked(first, key)
    settings = config.load(first.home / "sluice.toml", {})
    former = asyncio.run(vault_of(settings))
    sealed, generation = former.encrypt(*PLACE, TEXT), former._control.generation
    [made] = first.json("backup", str(kept), *passphrase)
    assert (made["generation"], made["tenants"], made["keys"]) == (generation, 1, 2)
    again = first.command("backup", str(kept), *passphrase)
    assert (again.returncode, "nothing is overwritten" in again.stderr) == (2, True)
    assert first.stop(signal.SIGTERM) == 130

    # the keys are lost, and the brokers still hold the log: it goes on
    shutil.rmtree(first.home / "keys")
    back = first.command("restore", "keys", str(kept), *passphrase, "--same-log")
    assert back.returncode == 0, back.stderr
    assert first.command("restore", "keys", str(kept), *passphrase).returncode == 2
    first.start()
    assert asked(first, key)
    assert first.json("restore", "control", str(kept), *passphrase)[0]["documents"] == 0
    assert asyncio.run(vault_of(settings)).decrypt(*PLACE, sealed) == TEXT
    verifies(first)
    first.stop(signal.SIGTERM)

    # all is lost: the same tenants and keys, in a generation that follows
    shutil.rmtree(first.home)
    second = Operator(tmp_path / "second")
    other = tmp_path / "other"
    other.write_text("another passphrase")
    wrong = second.command("restore", "keys", str(kept), "--passphrase-file", str(other))
    assert (wrong.returncode, "does not open" in wrong.stderr) == (2, True)
    assert not (second.home / "keys").exists()
    written = second.command("restore", "keys", str(kept), *passphrase)
    assert written.returncode == 0, written.stderr
    second.start()
    assert asked(second, key) == "unknown_key"
    [restored] = second.json("restore", "control", str(kept), *passphrase)
    assert restored["generation"] != generation
    assert asked(second, key)
    assert second.json("restore", "control", str(kept), *passphrase)[0]["documents"] == 0
    vault = asyncio.run(vault_of(config.load(second.home / "sluice.toml", {})))
    assert vault.decrypt(*PLACE, sealed, generation=generation) == TEXT
    asking = second.command("ask", "What is a cat?", "--model", "echo", "--max-tokens", "8", SLUICE_KEY=direct)
    assert asking.returncode == 0, asking.stderr
    assert second.json("tenant", "list")[0]["tenant"] == "me"
    verifies(second)
    second.stop(signal.SIGTERM)


async def drop(settings: Settings, topic: str) -> None:
    """A topic is lost and made again, empty."""
    admin = make_admin(settings.kafka.endpoint)
    try:
        await admin.start()
        await admin.delete_topics([topic])
        for _ in looks():
            made = await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=BY_NAME[topic].config(1))])
            if made.topic_errors[0][1] == 0:
                break
            await asyncio.sleep(0.1)
    finally:
        await admin.close()


def test_documents_that_were_lost_come_back_byte_for_byte_where_the_log_is_whole(tmp_path: Path) -> None:
    with furnished(tmp_path, 1) as site:
        settings = Settings(kafka=Kafka(bootstrap=site.bootstrap, partitions=1), keys=Keys(home=tmp_path / "keys"))

        async def scene() -> None:
            publisher = Publisher(site.kafka)
            backup = await make_backup(settings, b"")
            acts = [decode(Access, record.value) for record in await read(site.bootstrap, "access")]
            assert (acts[-1].act, acts[-1].actor, bool(acts[-1].signature)) == ("deployment.backup", "operator", True)
            assert (await restore_control(settings, backup)).records == 0
            await drop(settings, "control")
            cut = msgspec.structs.replace(backup, decided=(7,))
            with pytest.raises(ConfigError, match="must not be begun again under its name"):
                await restore_control(settings, cut)
            assert await read(site.bootstrap, "control") == []
            first = backup.control[0]
            # a restore that was cut short goes on
            await publisher.send("control", 0, first.key, first.value)
            assert (await restore_control(settings, backup)).records == len(backup.control) - 1
            records = await read(site.bootstrap, "control")
            assert [(item.key, item.value) for item in records] == [(item.key, item.value) for item in backup.control]
            await publisher.send("control", 0, b"", b"another")
            with pytest.raises(ConfigError, match="nothing is overwritten"):
                await restore_control(settings, backup)
            await publisher.close()

        asyncio.run(scene())
