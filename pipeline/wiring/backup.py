"""A deployment is backed up, and put back on brokers that lost its documents, or on others as a new generation.

The log is no part of it: on brokers that do not hold ``decisions`` an origin would begin anew under its old name, which
is what an audit log must never do. So there the restored deployment is a new generation that names the former one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aiokafka import TopicPartition

from pipeline.clock import now_ms
from pipeline.config import Keys, Settings
from pipeline.control import topics as topic_admin
from pipeline.control.connect import control_table
from pipeline.errors import ConfigError
from pipeline.events import plans
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, Control
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import DEPLOYMENT, digest, key_id, message, raw_public, sign
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.backup import Backup, KeptRecord, read_folder, write_folder
from pipeline.keys.files import create_once
from pipeline.keys.signing import load_signers
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.wiring.operate import check_broker, registry
from pipeline.wiring.producers import admit_producers

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Restored:
    """So many documents were put back into ``control``, in this generation."""

    records: int
    generation: str


async def make_backup(settings: Settings, settings_file: bytes, by: str = "") -> Backup:
    """Read everything, see that the keyring is the one of ``control``, and put the backup on record."""
    async with registry(settings, by) as hand:
        Vault(FileKeyring(settings.keys.keyring), hand.control).require_all()
        deployment = hand.control.require_deployment()
        records = await _control_records(settings)
        await hand.writer.record("deployment.backup", "", DEPLOYMENT)
        return Backup(
            created=now_ms(),
            version=version("sluice"),
            generation=deployment.generation,
            deployment=settings.keys.pin,
            files=read_folder(settings.keys.home),
            settings=settings_file,
            control=tuple(KeptRecord(record.time, record.key, record.value) for record in records),
            decided=await _decided(settings, deployment.partitions),
        )


def folded(backup: Backup) -> Control:
    """Give the documents of a backup in force. Raises ConfigError where they are not those of its deployment."""
    fold = ControlFold(backup.deployment)
    for offset, record in enumerate(backup.control):
        fold.read(offset, record.value, record.time)
    if not fold.signed or fold.control.generation != backup.generation:
        raise ConfigError("the control in this backup is not that of its deployment; take another backup")
    return fold.control


def restore_keys(home: Path, backup: Backup, roots: Path | None = None, *, same_log: bool = False) -> str:
    """Write the folder of keys, which must not be there yet; gives the pin of its deployment.

    ``same_log``: the brokers still hold the log, so it goes on; else the first document of a new generation is signed,
    by keys in ``roots`` where they are not in the backup. Raises ConfigError, and leaves nothing behind then.
    """
    if home.exists() and any(home.iterdir()):
        raise ConfigError(f"{home}: expected no keys there, got some; nothing is overwritten: move them away first")
    control, draft = folded(backup), home.with_name(f".{home.name}.restoring")
    if draft.exists():
        shutil.rmtree(draft)
    keys = Keys(home=draft)
    try:
        mint = () if same_log else (keys.pin_file.name, "deployment.json")
        write_folder(draft, tuple(file for file in backup.files if file.path not in mint))
        Vault(FileKeyring(keys.keyring), control).require_all()
        pin = backup.deployment if same_log else _follow(keys, control, roots)
        create_once(keys.pin_file, pin)
        if home.exists():
            home.rmdir()
        draft.rename(home)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return pin


async def restore_control(settings: Settings, backup: Backup, by: str = "") -> Restored:
    """Put documents into ``control``: byte for byte where the log is that of the backup, else signed anew."""
    await check_broker(settings)
    if settings.keys.pin == backup.deployment:
        return await _put_back(settings, backup)
    wanted = folded(backup)
    async with registry(settings, by) as hand:
        current = hand.control.require_deployment()
        if backup.generation not in current.former:
            raise ConfigError(
                f"the deployment {current.generation} does not follow {backup.generation} of this backup; run: sluice "
                "restore keys, then sluice topics apply or sluice up with those keys"
            )
        strangers = sorted(hand.control.tenants.keys() - wanted.tenants.keys())
        if strangers:
            raise ConfigError(
                f"control has tenants that are not in the backup: {', '.join(strangers[:3])}; see: sluice tenant list"
            )
        await topic_admin.add_pools(settings.kafka.endpoint, plans.pools(wanted))
        missing = [each for each, is_there in _documents(wanted, hand.control) if not is_there]
        await hand.writer.write_all(missing, "deployment.restore", DEPLOYMENT)
        await hand.writer.settle()
        await admit_producers(settings, hand, Vault(FileKeyring(settings.keys.keyring), hand.control))
        return Restored(len(missing), current.generation)


def _follow(keys: Keys, control: Control, roots: Path | None) -> str:
    """Sign the first document of a generation that follows the one in force; gives its pin."""
    current = control.require_deployment()
    fresh = {"generation": "", "adopts": -1, "adopted": "", "salt": os.urandom(16).hex()}
    document = current.model_copy(update={**fresh, "former": (current.generation, *current.former)})
    known = {key_id(raw_public(root)) for root in current.roots}
    signers = [signer for signer in load_signers(roots or keys.roots) if signer.key in known]
    if len(signers) < current.threshold:
        raise ConfigError(
            f"expected {current.threshold} root keys to sign a new generation, got {len(signers)}; bring them all in "
            "a folder: --roots FOLDER"
        )
    record = sign("", document, "", signers)
    create_once(keys.home / "deployment.json", encode(record).decode())
    return digest(message("", DEPLOYMENT, "", record.document))


async def _put_back(settings: Settings, backup: Backup) -> Restored:
    """Write the records that are missing in ``control``, where it holds none or the first of them."""
    present = await _control_records(settings)
    kept = [(record.key, record.value) for record in backup.control]
    if [(record.key, record.value) for record in present] != kept[: len(present)]:
        raise ConfigError("control holds other records than the backup, or more; nothing is overwritten")
    ends = await _decided(settings, len(backup.decided))
    if any(now < then for now, then in zip(ends, backup.decided, strict=True)):
        raise ConfigError(
            "decisions ends before it did when the backup was made: this log must not be begun again under its name. "
            "Restore the topics, or restore the keys without --same-log, as a new generation"
        )
    publisher = Publisher(settings.kafka.endpoint)
    try:
        for first in range(len(present), len(kept), _CHUNK):
            await publisher.send_all([("control", 0, *pair, ()) for pair in kept[first : first + _CHUNK]])
    finally:
        await publisher.close()
    async with control_table(settings) as table:
        return Restored(len(kept) - len(present), table.control.generation)


def _documents(wanted: Control, present: Control) -> Iterator[tuple[AnyDocument, bool]]:
    """Give what was in force but the deployment, those first that others name, and say which of it is in force here."""
    for kind in ("models", "plans", "organisations", "tenants", "principals", "keys"):
        here = getattr(present, kind)
        yield from ((document, here.get(name) == document) for name, document in getattr(wanted, kind).items())


async def _control_records(settings: Settings) -> list[KafkaRecord]:
    reader = PartitionReader(settings.kafka.endpoint, "control", 0)
    try:
        await reader.start(0)
        records = await reader.read_to_end()
    finally:
        await reader.close()
    if [record.offset for record in records] != list(range(len(records))):
        raise ConfigError("control has offsets without a record, which no copy can have; see: sluice topics check")
    return records


async def _decided(settings: Settings, partitions: int) -> tuple[int, ...]:
    offsets = Offsets(settings.kafka.endpoint)
    try:
        return tuple([await offsets.end(TopicPartition("decisions", partition)) for partition in range(partitions)])
    finally:
        await offsets.close()
