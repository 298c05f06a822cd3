"""The acts behind an operator's commands, and the verification of the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from inference.registry.dsse import Trust
from inference.registry.store import ModelRegistry
from inference.registry.wrapping import create_worker
from inference.watermark.secrets import create_master
from pipeline.clickhouse.accounts import ACCOUNTS, AUDIT, OPERATOR, VIEW
from pipeline.config import Keys, Settings
from pipeline.control import deployment
from pipeline.control import topics as topic_admin
from pipeline.control.connect import control_table, followed_control, require_pin
from pipeline.control.registry import Registry
from pipeline.errors import ConfigError
from pipeline.events import plans
from pipeline.events.control import Control, Tenant
from pipeline.generate import engines
from pipeline.generate.model_acts import ModelActs
from pipeline.kafka.writer import Publisher
from pipeline.keys.files import create_log_keys, password_of
from pipeline.keys.grant import write_grant
from pipeline.keys.rights import OTHERS, take_rights
from pipeline.keys.signing import SigningKeys
from pipeline.keys.vault import FileKeyring, Vault, open_kms
from pipeline.sections import read_secret
from pipeline.topics import GROUPS, AclRule, acl_rules, pool_user

if TYPE_CHECKING:
    # what one act needs is imported there: every stage imports this module, and pays for all that it names
    from pipeline.audit.faults import Report
    from pipeline.clickhouse.store import ClickHouseStore

_LOOK_S = 0.25


def models(settings: Settings) -> ModelRegistry:
    """The model registry, in the name of the account that asks."""
    return engines.model_registry(settings.models)


async def forward_model_acts(settings: Settings) -> int:
    """Write what was done to the registry to ``access``; gives the count. Raises Retryable, soon, without a broker."""
    kafka = settings.kafka.endpoint
    await topic_admin.reach(kafka, timeout_s=0)
    publisher = Publisher(kafka)
    try:
        async with control_table(settings) as table:
            partitions = table.control.require_deployment().partitions
            return await ModelActs(settings.models.home, publisher, partitions).forward()
    finally:
        await publisher.close()


def model_trust(settings: Settings) -> Trust:
    """Whose signatures on models count."""
    return engines.model_trust(settings.models)


@contextlib.asynccontextmanager
async def registry(settings: Settings, by: str = "") -> AsyncIterator[Registry]:
    """The operator's hand on ``control``; a user of the embedded stack needs it running.

    ``by`` names the operator whose key signs; empty: the one of the settings.
    """
    keys = settings.keys
    keyring = FileKeyring(keys.keyring)
    signing = SigningKeys(keys.operators, keys.roots, by or keys.operator)
    await check_broker(settings)
    async with control_table(settings) as table:
        hand = Registry(settings.kafka.endpoint, table, keyring, signing)
        try:
            yield hand
        finally:
            await hand.close()


async def follow_pools(settings: Settings, stop: asyncio.Event, tell: Callable[[Control], None]) -> None:
    """Tell ``control``, which names the tenants with workers of their own, now and when it changes, until ``stop``."""
    async with followed_control(settings, stop) as table:
        version = -1
        while not stop.is_set():
            if table.control.version != version:
                version = table.control.version
                tell(table.control)
            await asyncio.sleep(_LOOK_S)


async def grant(settings: Settings, tenant: str, out: Path, *, kafka: bool = False) -> Tenant:
    """Write into ``out`` the keys that ``tenant``'s own workers need, and none of any other; gives their document.

    ``kafka``: also the password of a user of their own, which is made at the brokers. Raises ConfigError, Retryable.
    """
    async with registry(settings) as hand:
        document = hand.control.tenants.get(tenant)
        if document is None or tenant not in plans.pools(hand.control):
            raise ConfigError(f"no plan asks for workers of tenant {tenant!r} alone; see: sluice deploy tenants --list")
        await hand.record_shown("keys", tenant)
    write_grant(settings.keys, document, out)
    if kafka:
        await asyncio.to_thread(_admit_pool, settings, tenant, out / "kafka-password")
    return document


def _admit_pool(settings: Settings, tenant: str, file: Path) -> None:
    from pipeline.control import acl
    from pipeline.kafka.users import put_users

    kafka = settings.kafka.endpoint
    put_users(kafka, {pool_user(tenant): password_of(file)})
    acl.grant(kafka, acl_rules([tenant]))


async def apply_users(settings: Settings, folder: Path) -> list[tuple[str, str]]:
    """Give the brokers each stage's user, whose password lies in ``folder``/STAGE, and all rights of the table.

    Gives each change of a right. Raises ConfigError, Retryable.
    """
    from pipeline.kafka.users import put_users

    passwords = {stage: read_secret("--secrets", str(folder / stage / "password")) for stage in GROUPS}
    await check_broker(settings)
    await asyncio.to_thread(put_users, settings.kafka.endpoint, passwords)
    return await apply_rights(settings)


def vault(settings: Settings, hand: Registry) -> Vault:
    """The secrets behind the registry's documents."""
    return Vault(open_kms(settings.keys.keyring), hand.control)


async def check_broker(settings: Settings) -> None:
    """Raises Retryable, soon, where no broker answers."""
    await topic_admin.reach(settings.kafka.endpoint, timeout_s=5)


async def check_topics(settings: Settings) -> list[str]:
    await check_broker(settings)
    return await topic_admin.check(settings.kafka.endpoint, settings.keys.pin)


def prepare(settings: Settings) -> None:
    """Make the keys of a new deployment and pin it, before there is a broker."""
    deployment.mint(settings, _create_keys(settings.keys))


async def apply_topics(settings: Settings, tell: Callable[[str], None]) -> list[str]:
    """Topics, the deployment document, and keys where there are none. Gives the names of the topics made.

    A deployment from before documents were signed is taken over; ``tell`` is told what was done about it.
    """
    kafka = settings.kafka
    log_keys = _create_keys(settings.keys)
    _close_to_others(settings.keys.home, tell)
    created = await topic_admin.create(kafka.endpoint, kafka.partitions, kafka.replication)
    control = await deployment.establish(settings, log_keys, tell)
    return [*created, *await topic_admin.add_pools(kafka.endpoint, plans.pools(control))]


def _create_keys(keys: Keys) -> tuple[str, ...]:
    """Make the secrets that a deployment needs where they are missing; gives the log's verifier keys."""
    FileKeyring.create(keys.keyring)
    create_master(keys.watermark_key)
    create_worker(keys.worker_key)
    return create_log_keys(keys.log_key, "sluice").verifier_keys


def _close_to_others(folder: Path, tell: Callable[[str], None]) -> None:
    """Take the rights of other accounts away; those of a group may be meant. Where that cannot be, it is told."""
    try:
        for changed in take_rights(folder, OTHERS):
            tell(changed)
    except ConfigError as error:
        tell(f"warning: {error}")


async def check_rights(settings: Settings) -> list[str]:
    """Compare what the brokers allow with the table of rules."""
    from pipeline.control import acl

    wanted = await _rules(settings)
    return await asyncio.to_thread(acl.check, settings.kafka.endpoint, wanted)


async def apply_rights(settings: Settings) -> list[tuple[str, str]]:
    """Make the brokers allow what the table grants; gives each change and the right."""
    from pipeline.control import acl

    wanted = await _rules(settings)
    created, deleted = await asyncio.to_thread(acl.apply, settings.kafka.endpoint, wanted)
    return [*(("created", line) for line in created), *(("deleted", line) for line in deleted)]


async def _rules(settings: Settings) -> list[AclRule]:
    """Give the rights that ``control`` asks for."""
    from pipeline.control.producers import producers

    await check_broker(settings)
    async with control_table(settings) as table:
        return acl_rules(plans.pools(table.control), producers(table.control))


def check_tables(settings: Settings) -> list[str]:
    with store(settings, account=OPERATOR) as clickhouse:
        return clickhouse.check_tables()


def apply_tables(settings: Settings) -> int:
    with store(settings, account=OPERATOR) as clickhouse:
        return clickhouse.apply_migrations()


def check_accounts(settings: Settings) -> list[str]:
    """Compare what the store's accounts may do with the table of accounts."""
    from pipeline.clickhouse import grants

    with store(settings, account=OPERATOR) as clickhouse:
        return grants.check(clickhouse, settings.clickhouse.database)


def apply_accounts(settings: Settings) -> list[tuple[str, str]]:
    """Make the store's accounts what the table says, with the passwords of the folder; gives each change."""
    from pipeline.clickhouse import grants

    passwords = {account.name: settings.clickhouse.account(account.name).password for account in ACCOUNTS}
    with store(settings, account=OPERATOR) as clickhouse:
        return grants.apply(clickhouse, settings.clickhouse.database, passwords)


@contextlib.contextmanager
def store(settings: Settings, patience_s: float = 30.0, account: str = VIEW) -> Iterator[ClickHouseStore]:
    """A connected client of the store, under ``account`` where the settings have a folder of accounts."""
    from pipeline.clickhouse.store import ClickHouseStore

    clickhouse = ClickHouseStore(settings.clickhouse.account(account))
    clickhouse.connect(patience_s)
    try:
        yield clickhouse
    finally:
        clickhouse.close()


async def log_keys(settings: Settings) -> list[str]:
    """Verifier keys as pinned in ``control``, oldest first; an outside verifier brings keys of its own."""
    from pipeline.audit.checkpoint import with_ends

    await check_broker(settings)
    async with control_table(settings) as table:
        deployment = table.control.require_deployment()
        return with_ends(deployment.log_keys, deployment.log_key_ends)


def verify(settings: Settings, keys: list[str], say: Callable[[str], None], *, with_source: bool = False) -> Report:
    """Verify the whole store, offline but for ``with_source``."""
    from pipeline.admit.rules import RULES
    from pipeline.audit.checkpoint import Verifiers
    from pipeline.audit.verify import Verifier
    from pipeline.clickhouse.auditor import Auditor, read_sources

    with store(settings, patience_s=5, account=AUDIT) as clickhouse:
        auditor = Auditor(clickhouse, Verifier(Verifiers(keys)), RULES, require_pin(settings))
        sources = asyncio.run(read_sources(settings.kafka.endpoint, auditor.origins())) if with_source else None
        return auditor.verify(say, sources)
