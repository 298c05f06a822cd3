"""``sluice topics|tables|tenant|key|policy``: set a deployment up, and say who may do what in it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import BY, Act, add_command, add_group, whole
from pipeline.clickhouse.accounts import ACCOUNTS
from pipeline.config import Settings
from pipeline.control.policy_file import checked_webhook, read_policies
from pipeline.control.registry import Registry
from pipeline.terminal import UnixMs

_TENANT_EXAMPLES = """\
examples:
  sluice tenant add acme --plan team --webhook https://soc.acme.example/alerts
  sluice tenant webhook acme                         the URL in force and the secret that signs deliveries
  sluice tenant suspend acme
"""
_KEY_EXAMPLES = """\
examples:
  sluice key add acme app --days 90                  prints the key, once
  sluice key add acme batch --kafka                  one for a program that writes to Kafka itself
  sluice key list --json
  sluice key revoke k4c1f0
"""
_POLICY_EXAMPLES = """\
examples:
  sluice policy check policies.toml && sluice policy apply policies.toml
the fields of a plan are in pipeline/control/README.md
"""
_ACL = """\
Each stage is a user of its own at the brokers (gateway, admit, generate, seal, watch, notify; generate-TENANT for an
isolated tenant's workers) and may do what pipeline/topics.py says of it. Run this as an operator's user.
"""
_ACCOUNTS = """\
Each use of the store is an account of its own: seal inserts, view shows, audit verifies. Their passwords are the files
of clickhouse.password_folder, each named like its account. Run this as an administrator of the server; the embedded
store has the accounts from its start.
"""
_TENANT = "id of the tenant, as in: sluice tenant list"


def add(commands: Any) -> None:
    """Add the commands of an operator."""
    topics = add_group(commands, "topics", "create Kafka's topics, or compare them with the table")
    _add_pair(topics, "topic", _topics_check, _topics_apply)
    rights = add_group(topics, "acl", "compare who may read and write which topic with the table, or set it", _ACL)
    add_command(rights, "check", "compare the brokers' lists with the table", _acl_check, "Exit 1 where they differ.")
    add_command(rights, "apply", "create the rights of the table and take away all others", _acl_apply, "Repeatable.")
    tables = add_group(commands, "tables", "create ClickHouse's tables, or compare them with the table")
    _add_pair(tables, "table", _tables_check, _tables_apply)
    accounts = add_group(tables, "accounts", "compare the store's accounts with the table, or set them", _ACCOUNTS)
    add_command(accounts, "list", "list the accounts and what each may do", _accounts_list)
    add_command(accounts, "check", "compare the accounts with the table", _accounts_check, "Exit 1 where one differs.")
    add_command(
        accounts,
        "apply",
        "create the accounts with their rights, and take away all others",
        _accounts_apply,
        "Repeatable.",
    )
    _add_tenant(
        add_group(commands, "tenant", "manage tenants: who is served, and under which plan", epilog=_TENANT_EXAMPLES)
    )
    _add_key(add_group(commands, "key", "manage the API keys of principals", epilog=_KEY_EXAMPLES))
    _add_policy(add_group(commands, "policy", "manage plans, organisations and models", epilog=_POLICY_EXAMPLES))


def _add_pair(group: Any, thing: str, check: Act, apply: Act) -> None:
    add_command(group, "check", f"compare every {thing} with what it must be", check, "Exit 1 where one differs.")
    add_command(group, "apply", f"create every {thing} that is missing", apply, "Safe to repeat.")


def _add_tenant(tenant: Any) -> None:
    added = add_command(tenant, "add", "add a tenant under a plan", _with_registry(_tenant_add))
    added.add_argument("tenant", help="id of the new tenant")
    added.add_argument("--plan", required=True, help="id of its plan, one of: sluice policy show")
    added.add_argument("--organisation", default="", help="root of its quota tree (default: one of its own)")
    added.add_argument("--webhook", default="", help="URL that its alerts are sent to (Standard Webhooks)")
    add_command(tenant, "list", "list tenants", _with_registry(_tenant_list))
    suspended = add_command(
        tenant, "suspend", "refuse every request of a tenant from now on", _with_registry(_tenant_status)
    )
    resumed = add_command(tenant, "resume", "serve a suspended tenant again", _with_registry(_tenant_status))
    hook = add_command(
        tenant, "webhook", "show or change where alerts go, with the secret that signs them", _with_registry(_webhook)
    )
    canary = add_command(
        tenant,
        "canary",
        "show the text that betrays a leak of the tenant's prompts",
        _with_registry(_tenant_canary),
        "Put it into system prompts; an answer that holds it raises a finding.",
    )
    for parser in (suspended, resumed, hook, canary):
        parser.add_argument("tenant", help=_TENANT)
    for parser in (added, suspended, resumed, hook, canary):
        parser.add_argument("--by", metavar="NAME", default="", help=BY)
    hook.add_argument("url", nargs="?", help="the new URL; without it, what is in force is shown")


def _add_key(key: Any) -> None:
    added = add_command(key, "add", "issue an API key", _key_add, "The key is shown once and never stored.")
    added.add_argument("tenant", help=_TENANT)
    added.add_argument("principal", help="id of the principal; made where it does not exist")
    days = "days until the key expires; 0, the default, for never"
    added.add_argument("--days", type=whole(0, 36_500), metavar="N", default=0, help=days)
    direct = added.add_mutually_exclusive_group()
    direct.add_argument(
        "--kafka", action="store_true", help="let its bearer write to Kafka itself, as a user made for it (SCRAM)"
    )
    direct.add_argument(
        "--kafka-user", metavar="NAME", default="", help="likewise, as a principal that the service or a CA made"
    )
    add_command(key, "list", "list keys, without their secrets", _with_registry(_key_list))
    revoked = add_command(key, "revoke", "refuse a key from now on", _key_revoke)
    revoked.add_argument("key", help="id of the key, as in: sluice key list")
    for parser in (added, revoked):
        parser.add_argument("--by", metavar="NAME", default="", help=BY)


def _add_policy(policy: Any) -> None:
    checked = add_command(policy, "check", "read a policy file and name what is wrong with it", _policy_check)
    applied = add_command(policy, "apply", "put a policy file in force", _policy_apply)
    for parser in (checked, applied):
        parser.add_argument("file", type=Path, help="TOML file of plans, organisations and models")
    applied.add_argument("--by", metavar="NAME", default="", help=BY)
    add_command(policy, "show", "show plans and their limits in force", _with_registry(_policy_show))


def _print_differences(differences: list[str], arguments: argparse.Namespace) -> int:
    terminal.table("", ("difference",), [(text,) for text in differences], as_json=arguments.json)
    return 1 if differences else 0


def _topics_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _print_differences(asyncio.run(wiring.check_topics(settings)), arguments)


def _topics_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    created = asyncio.run(wiring.apply_topics(settings, terminal.note))
    terminal.table("topics created", ("topic",), [(name,) for name in created], as_json=arguments.json)
    return 0


def _acl_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _print_differences(asyncio.run(wiring.check_rights(settings)), arguments)


def _acl_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    changes = asyncio.run(wiring.apply_rights(settings))
    terminal.table("rights", ("change", "right"), changes, as_json=arguments.json)
    return 0


def _tables_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _print_differences(wiring.check_tables(settings), arguments)


def _tables_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    applied = wiring.apply_tables(settings)
    terminal.table("migrations applied", ("count",), [(applied,)], as_json=arguments.json)
    return 0


def _accounts_list(arguments: argparse.Namespace, settings: Settings) -> int:
    rows = [
        (account.name, right.on(settings.clickhouse.database), account.use)
        for account in ACCOUNTS
        for right in account.rights
    ]
    terminal.table("accounts", ("account", "right", "use"), rows, as_json=arguments.json)
    return 0


def _accounts_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _print_differences(wiring.check_accounts(settings), arguments)


def _accounts_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    changes = wiring.apply_accounts(settings)
    terminal.table("accounts", ("change", "account or right"), changes, as_json=arguments.json)
    return 0


def _with_registry(act: Callable[[argparse.Namespace, Registry], Awaitable[int]]) -> Act:
    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        async def main() -> int:
            async with wiring.registry(settings, getattr(arguments, "by", "")) as registry:
                return await act(arguments, registry)

        return asyncio.run(main())

    return run


async def _tenant_add(arguments: argparse.Namespace, registry: Registry) -> int:
    webhook = checked_webhook(arguments.webhook)
    await registry.add_tenant(arguments.tenant, arguments.plan, arguments.organisation, webhook)
    return await _tenant_list(arguments, registry)


async def _tenant_status(arguments: argparse.Namespace, registry: Registry) -> int:
    status = "suspended" if arguments.verb == "suspend" else "active"
    await registry.change_tenant(arguments.tenant, status=status)
    return await _tenant_list(arguments, registry)


async def _webhook(arguments: argparse.Namespace, registry: Registry) -> int:
    if arguments.url is not None:
        await registry.change_tenant(arguments.tenant, webhook=checked_webhook(arguments.url))
    await registry.record_shown("webhook", arguments.tenant)
    rows = [(arguments.tenant, *registry.webhook(arguments.tenant))]
    columns = ("tenant", "webhook", "secret")
    terminal.table("deliveries are signed with the secret", columns, rows, as_json=arguments.json)
    return 0


async def _tenant_canary(arguments: argparse.Namespace, registry: Registry) -> int:
    await registry.record_shown("canary", arguments.tenant)
    rows = [(arguments.tenant, registry.canary(arguments.tenant))]
    terminal.table("put it into system prompts", ("tenant", "canary"), rows, as_json=arguments.json)
    return 0


async def _tenant_list(arguments: argparse.Namespace, registry: Registry) -> int:
    tenants = registry.control.tenants.values()
    rows = [(t.id, t.organisation, t.plan, t.status, t.webhook) for t in tenants]
    terminal.table("tenants", ("tenant", "organisation", "plan", "status", "webhook"), rows, as_json=arguments.json)
    return 0


def _key_add(arguments: argparse.Namespace, settings: Settings) -> int:
    async def add() -> str:
        async with wiring.registry(settings) as registry:
            given = (arguments.tenant, arguments.principal, arguments.days)
            if arguments.kafka or arguments.kafka_user:
                return await wiring.add_producer_key(settings, registry, *given, user=arguments.kafka_user)
            return await registry.add_key(*given)

    terminal.table("shown once; keep it now", ("key",), [(asyncio.run(add()),)], as_json=arguments.json)
    return 0


async def _key_list(arguments: argparse.Namespace, registry: Registry) -> int:
    principals = registry.control.principals
    rows = [
        (
            key.id,
            key.principal,
            principals[key.principal].tenant,
            key.status,
            UnixMs(key.expires) if key.expires else "never",
        )
        for key in registry.control.keys.values()
        if key.principal in principals
    ]
    terminal.table("keys", ("key", "principal", "tenant", "status", "expires"), rows, as_json=arguments.json)
    return 0


def _key_revoke(arguments: argparse.Namespace, settings: Settings) -> int:
    async def revoke() -> int:
        async with wiring.registry(settings) as registry:
            await wiring.revoke_key(settings, registry, arguments.key)
            return await _key_list(arguments, registry)

    return asyncio.run(revoke())


def _policy_check(arguments: argparse.Namespace, settings: Settings) -> int:
    documents = read_policies(arguments.file)
    terminal.table("fine", ("kind", "id"), [(d.doc, d.id) for d in documents], as_json=arguments.json)
    return 0


def _policy_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    async def apply() -> list[str]:
        async with wiring.registry(settings) as registry:
            changed = await registry.apply_policies(read_policies(arguments.file))
            await wiring.settle_producers(settings, registry)
            return changed

    rows = [(name,) for name in asyncio.run(apply())]
    terminal.table("in force now", ("changed",), rows, as_json=arguments.json)
    return 0


async def _policy_show(arguments: argparse.Namespace, registry: Registry) -> int:
    rows = []
    for plan in registry.control.plans.values():
        for scope, limits in plan.scopes().items():
            for limit in limits:
                period = "" if limit.meter == "open" else limit.period or f"{limit.period_s} s"
                rows.append((plan.id, scope, limit.id, limit.meter, limit.unit, limit.amount, period))
    columns = ("plan", "scope", "limit", "meter", "unit", "amount", "period")
    terminal.table("limits", columns, rows, as_json=arguments.json)
    return 0
