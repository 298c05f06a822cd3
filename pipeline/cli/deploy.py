"""``sluice deploy``: the workers of isolated tenants, as policies ask for them, and the users of a broker."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import add_command, add_group
from pipeline.cli.compose import Isolated, tenants_file
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.events import plans

DESCRIPTION = """\
A plan with isolation = "process" or "device" gives each of its tenants workers of their own, which read the tenant's
own topic of work and hold no other tenant's keys. Until such a worker runs, requests of that tenant wait, and expire at
their deadline without charge. sluice up starts workers of the tier process by itself.
secrets and users set up a broker that lets nobody in without a password, as docker-compose.yml does.
"""
EXAMPLES = """\
in compose:
  docker compose run --rm topics deploy tenants > tenants.yml
  docker compose -f docker-compose.yml -f tenants.yml --profile cpu up
with devices (indices or UUIDs of nvidia-smi -L, MIG slices included; the shared worker must not use them):
  sluice deploy tenants --devices 1,MIG-3f2c --output tenants.yml
by hand, on any machine:
  sluice deploy grant acme --out acme-keys
  SLUICE_KEYS__HOME=acme-keys SLUICE_MODELS__HOME=acme-models sluice run generate --pool acme
"""
_DEVICE = re.compile(r"[A-Za-z0-9-]{1,64}")


def add(commands: Any) -> None:
    """Add ``deploy``."""
    deploy = add_group(
        commands, "deploy", "run workers of isolated tenants, and give a broker its users", DESCRIPTION, EXAMPLES
    )
    tenants = add_command(
        deploy,
        "tenants",
        "write a compose file with one worker for each isolated tenant",
        _tenants,
        "Each worker has its own user id and volumes; use the file with docker compose -f. The same policies give the "
        "same file. Tenants and plans come from the broker that runs.",
    )
    tenants.add_argument("--output", type=Path, help="file to write (default: print it)")
    tenants.add_argument(
        "--devices", type=_devices, default=(), metavar="ID,ID", help="GPUs, one for each tenant of the tier device"
    )
    tenants.add_argument("--list", action="store_true", help="only say who is isolated, and how; --json applies to it")
    grant = add_command(
        deploy,
        "grant",
        "write the keys that one isolated tenant's workers need, and no others",
        _grant,
        "The folder gets the tenant's text keys, its secrets of traces and a key for models, readable by its owner and "
        "its owner's group. Run it again after keys were rotated.",
    )
    grant.add_argument("tenant", help="id of the tenant")
    grant.add_argument(
        "--kafka", action="store_true", help="make its workers a user at the brokers, its password in kafka-password"
    )
    secrets = add_command(
        deploy,
        "secrets",
        "write a broker's properties and certificate, and a password for each of its users",
        _secrets,
        "Passwords and the certificate that are there stay. kafka.bootstrap is where stages come in, "
        "gateway.advertised_bootstrap where direct producers do.",
    )
    for parser in (grant, secrets):
        parser.add_argument("--out", type=Path, required=True, help="folder to write to; made where it does not exist")
    users = add_command(
        deploy,
        "users",
        "give the brokers the stages' users and the rights of every user",
        _users,
        "The passwords are those that deploy secrets wrote. Safe to repeat. Run this as an operator's user.",
    )
    users.add_argument("--secrets", type=Path, required=True, help="folder that deploy secrets wrote")


def _tenants(arguments: argparse.Namespace, settings: Settings) -> int:
    isolated = asyncio.run(_isolated(settings))
    if arguments.list:
        rows = [(each.tenant, each.tier) for each in isolated]
        terminal.table("isolated tenants", ("tenant", "tier"), rows, as_json=arguments.json)
        return 0
    text = tenants_file(isolated, arguments.devices)
    if arguments.output is None:
        print(text, end="")
        return 0
    try:
        arguments.output.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(
            f"--output {arguments.output}: expected a file to write, got: {error.strerror}; choose another"
        ) from error
    return 0


async def _isolated(settings: Settings) -> list[Isolated]:
    async with wiring.registry(settings) as registry:
        tiers = plans.pools(registry.control)
        order = {name: ordinal for ordinal, name in enumerate(registry.control.tenants)}
    return [Isolated(tenant, tier, order[tenant]) for tenant, tier in tiers.items()]


def _secrets(arguments: argparse.Namespace, settings: Settings) -> int:
    # what makes certificates takes a while to import, and no other command needs it
    from pipeline.cli.compose_kafka import write_secrets

    files = write_secrets(settings, arguments.out)
    terminal.table("secrets", ("file",), [(str(path),) for path in files], as_json=arguments.json)
    return 0


def _users(arguments: argparse.Namespace, settings: Settings) -> int:
    changes = asyncio.run(wiring.apply_users(settings, arguments.secrets))
    terminal.table("rights", ("change", "right"), changes, as_json=arguments.json)
    return 0


def _grant(arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(wiring.grant(settings, arguments.tenant, arguments.out, kafka=arguments.kafka))
    row = (arguments.tenant, str(arguments.out))
    terminal.table("granted", ("tenant", "folder"), [row], as_json=arguments.json)
    return 0


def _devices(text: str) -> tuple[str, ...]:
    devices = tuple(text.split(","))
    if not all(_DEVICE.fullmatch(device) for device in devices):
        raise argparse.ArgumentTypeError(f"expected indices or UUIDs by comma, got {text[:80]!r}; see: nvidia-smi -L")
    return devices
