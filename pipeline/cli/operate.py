"""``sluice topics|tables|tenant|key|policy``: set a deployment up, and say who may do what in it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import whole
from pipeline.config import Settings
from pipeline.control.registry import Registry, checked_webhook, read_policies

Act = Callable[[argparse.Namespace, Settings], int]


def add(commands: Any) -> None:
    _pair(commands, "topics", "create Kafka's topics, or compare them with the table", _topics_check, _topics_apply)
    _pair(commands, "tables", "create ClickHouse's tables, or compare them", _tables_check, _tables_apply)
    tenant = _group(commands, "tenant", "who is served")
    made = _command(tenant, "add", "a tenant under a plan", _with_registry(_tenant_add))
    made.add_argument("tenant")
    made.add_argument("--plan", required=True, help="one of: sluice policy show")
    made.add_argument("--organisation", default="", help="root of the quota tree; its own where not given")
    made.add_argument("--webhook", default="", help="URL for alerts (Standard Webhooks)")
    _command(tenant, "list", "all tenants", _with_registry(_tenant_list))
    for verb, meaning in (("suspend", "refuse everything from now on"), ("resume", "serve again")):
        _command(tenant, verb, meaning, _with_registry(_tenant_status)).add_argument("tenant")
    hook = _command(tenant, "webhook", "where alerts go, with the secret that signs them", _with_registry(_webhook))
    hook.add_argument("tenant")
    hook.add_argument("url", nargs="?", help="changes it; none: only shows what is in force")
    canary = _command(tenant, "canary", "what a leak of the tenant's texts brings out", _with_registry(_tenant_canary))
    canary.add_argument("tenant")
    key = _group(commands, "key", "API keys of principals")
    issued = _command(key, "add", "issue a key; it is shown once and never stored", _with_registry(_key_add))
    issued.add_argument("tenant")
    issued.add_argument("principal", help="made where it does not exist")
    issued.add_argument(
        "--days", type=whole(0, 36_500), metavar="N", default=0, help="expires after so many days; 0 never"
    )
    _command(key, "list", "all keys, without their secrets", _with_registry(_key_list))
    _command(key, "revoke", "refuse a key from now on", _with_registry(_key_revoke)).add_argument("key", help="key id")
    policy = _group(commands, "policy", "plans, organisations and models")
    for verb, meaning, act in (
        ("check", "read a policy file and say what is wrong with it", _policy_check),
        ("apply", "put a policy file in force", _with_registry(_policy_apply)),
    ):
        _command(policy, verb, meaning, act).add_argument("file", type=Path)
    _command(policy, "show", "plans and their limits in force", _with_registry(_policy_show))


def _group(commands: Any, name: str, meaning: str) -> Any:
    parser = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
    return parser.add_subparsers(metavar="ACT", required=True)


def _command(group: Any, name: str, meaning: str, act: Act) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, help=meaning, description=meaning + ".")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(act=act, verb=name)
    return parser


def _pair(commands: Any, name: str, meaning: str, check: Act, apply: Act) -> None:
    group = _group(commands, name, meaning)
    _command(group, "check", "exit 1 where something differs, with the fix", check)
    _command(group, "apply", "create what is missing; safe to repeat", apply)


def _faults(faults: list[str], arguments: argparse.Namespace) -> int:
    terminal.table("", ("difference",), [(fault,) for fault in faults], as_json=arguments.json)
    return 1 if faults else 0


def _topics_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _faults(asyncio.run(wiring.check_topics(settings)), arguments)


def _topics_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    made = asyncio.run(wiring.apply_topics(settings))
    terminal.table("topics created", ("topic",), [(name,) for name in made], as_json=arguments.json)
    return 0


def _tables_check(arguments: argparse.Namespace, settings: Settings) -> int:
    return _faults(wiring.check_tables(settings), arguments)


def _tables_apply(arguments: argparse.Namespace, settings: Settings) -> int:
    applied = wiring.apply_tables(settings)
    terminal.table("migrations applied", ("count",), [(applied,)], as_json=arguments.json)
    return 0


def _with_registry(act: Callable[[argparse.Namespace, Registry], Awaitable[int]]) -> Act:
    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        async def main() -> int:
            async with wiring.registry(settings) as registry:
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
    rows = [(arguments.tenant, *registry.webhook(arguments.tenant))]
    columns = ("tenant", "webhook", "secret")
    terminal.table("deliveries are signed with the secret", columns, rows, as_json=arguments.json)
    return 0


async def _tenant_canary(arguments: argparse.Namespace, registry: Registry) -> int:
    rows = [(arguments.tenant, registry.canary(arguments.tenant))]
    terminal.table("put it into system prompts", ("tenant", "canary"), rows, as_json=arguments.json)
    return 0


async def _tenant_list(arguments: argparse.Namespace, registry: Registry) -> int:
    tenants = registry.control.tenants.values()
    rows = [(t.id, t.organisation, t.plan, t.status, t.webhook) for t in tenants]
    terminal.table("tenants", ("tenant", "organisation", "plan", "status", "webhook"), rows, as_json=arguments.json)
    return 0


async def _key_add(arguments: argparse.Namespace, registry: Registry) -> int:
    key = await registry.add_key(arguments.tenant, arguments.principal, arguments.days)
    terminal.table("shown once; keep it now", ("key",), [(key,)], as_json=arguments.json)
    return 0


async def _key_list(arguments: argparse.Namespace, registry: Registry) -> int:
    control = registry.control
    rows = [
        (k.id, k.principal, control.principals[k.principal].tenant, k.status, k.expires or "never")
        for k in control.keys.values()
        if k.principal in control.principals
    ]
    terminal.table("keys", ("key", "principal", "tenant", "status", "expires"), rows, as_json=arguments.json)
    return 0


async def _key_revoke(arguments: argparse.Namespace, registry: Registry) -> int:
    await registry.revoke_key(arguments.key)
    return await _key_list(arguments, registry)


def _policy_check(arguments: argparse.Namespace, settings: Settings) -> int:
    documents = read_policies(arguments.file)
    terminal.table("fine", ("kind", "id"), [(d.doc, d.id) for d in documents], as_json=arguments.json)
    return 0


async def _policy_apply(arguments: argparse.Namespace, registry: Registry) -> int:
    changed = await registry.apply_policies(read_policies(arguments.file))
    terminal.table("in force now", ("changed",), [(name,) for name in changed], as_json=arguments.json)
    return 0


async def _policy_show(arguments: argparse.Namespace, registry: Registry) -> int:
    rows = []
    for plan in registry.control.plans.values():
        for scope in ("organisation", "tenant", "principal"):
            for limit in getattr(plan, scope):
                span = "" if limit.meter == "open" else f"{limit.period_s} s"
                rows.append((plan.id, scope, limit.id, limit.meter, limit.unit, limit.amount, span))
    columns = ("plan", "scope", "limit", "meter", "unit", "amount", "period")
    terminal.table("limits", columns, rows, as_json=arguments.json)
    return 0
