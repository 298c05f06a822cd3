"""``sluice deploy``: what runs beside the shared workers, as policies ask for it."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.compose import Isolated, tenants_file
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.events import plans

DESCRIPTION = """\
A plan with isolation = "process" or "device" gives each of its tenants workers of their own, which read the tenant's
own topic of work and hold no other tenant's keys. Until such a worker runs, requests of that tenant wait, and expire at
their deadline without charge. sluice up starts workers of the tier process by itself.
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
exit codes: 0 done   2 too few devices, no such tenant, or a file that cannot be written   3 no broker
"""
_DEVICE = re.compile(r"[A-Za-z0-9-]{1,64}")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "deploy",
        help="workers of isolated tenants",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_subparsers(metavar="ACT", required=True)
    tenants = group.add_parser(
        "tenants",
        help="a compose file with one worker for each isolated tenant",
        description="Write a file for docker compose -f: for each isolated tenant a worker with its own user id and "
        "volumes. The same policies give the same file. tenant and plan come from the broker that runs.",
    )
    tenants.add_argument("--output", type=Path, help="write it there; else it is printed")
    tenants.add_argument("--devices", type=_devices, default=(), metavar="ID,ID", help="one for each such tenant")
    tenants.add_argument("--list", action="store_true", help="only say who is isolated, and how")
    tenants.add_argument("--json", action="store_true", help="with --list: for programs")
    tenants.set_defaults(act=_tenants)
    grant = group.add_parser(
        "grant",
        help="the keys that one isolated tenant's workers need, and no others",
        description="Write the tenant's text keys, its secrets of traces and a key for models into a folder, readable "
        "by its owner and its owner's group. Run it again after keys were rotated.",
    )
    grant.add_argument("tenant")
    grant.add_argument("--out", type=Path, required=True, help="folder; made where it does not exist")
    grant.set_defaults(act=_grant)


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
        raise ConfigError(f"--output {arguments.output}: {error.strerror}") from error
    return 0


async def _isolated(settings: Settings) -> list[Isolated]:
    async with wiring.registry(settings) as hand:
        tiers, order = plans.pools(hand.control), {name: at for at, name in enumerate(hand.control.tenants)}
    return [Isolated(tenant, tier, order[tenant]) for tenant, tier in tiers.items()]


def _grant(arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(wiring.grant(settings, arguments.tenant, arguments.out))
    return 0


def _devices(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not all(_DEVICE.fullmatch(device) for device in found):
        raise argparse.ArgumentTypeError("expected indices or UUIDs by comma, as nvidia-smi -L lists them")
    return found
