"""``sluice operator``: who may sign documents of ``control``, and in which role."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import BY, add_command, add_group
from pipeline.config import Settings
from pipeline.control import operators
from pipeline.control.operators import Proposal
from pipeline.control.registry import Registry
from pipeline.events.control import Deployment
from pipeline.keys.signing import create_signer, load_signers, read_public
from pipeline.roles import ROLES

_ABOUT = """\
Whatever stands in control was signed by an operator, and every process checks that. Root keys name the operators: they
are files in the folder roots of keys.home, kept offline but for as long as an operator is added or revoked.
"""
_EXAMPLES = """\
examples:
  sluice operator add ana --role analyst             makes operators/ana.pem in keys.home
  sluice operator add ben --role tenants --public ben.pem
  sluice label benign REQUEST --by ana
  sluice operator revoke ben
where more than one root must sign:
  sluice operator add eve --role policy --propose eve.json
  sluice operator sign eve.json                      where the next root's key is; needs no broker
  sluice operator submit eve.json
"""


def add(commands: Any) -> None:
    """Add ``operator``."""
    group = add_group(commands, "operator", "manage who may sign what, and name them", _ABOUT, _EXAMPLES)
    roles = "; ".join(f"{role.name} {role.why}" for role in ROLES)
    added = add_command(group, "add", "add an operator who signs what a role may", _added, f"Roles: {roles}.")
    added.add_argument("--role", required=True, choices=[role.name for role in ROLES], help="role of the operator")
    added.add_argument(
        "--public", type=Path, metavar="FILE", help="the operator's public key in PEM (default: make a key here)"
    )
    revoked = add_command(
        group, "revoke", "revoke an operator, who signs nothing more", _revoked, "What was signed stays."
    )
    for parser in (added, revoked):
        parser.add_argument("name", help="id of the operator")
        parser.add_argument("--by", metavar="NAME", default="", help=BY)
        parser.add_argument("--propose", type=Path, metavar="FILE", help="write it to a file, for more roots to sign")
    add_command(group, "list", "list operators and roots", _listed)
    signed = add_command(
        group, "sign", "sign a proposal with the root keys that are here", _signed, "It needs no broker."
    )
    submitted = add_command(group, "submit", "put a proposal in force that enough roots have signed", _submitted)
    submitted.add_argument("--by", metavar="NAME", default="", help=BY)
    for parser in (signed, submitted):
        parser.add_argument("file", type=Path, help="file that --propose wrote")


def _added(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.public is not None:
        public = read_public(arguments.public)
    else:
        public = create_signer(settings.keys.operators / f"{arguments.name}.pem").public

    def change(registry: Registry) -> Deployment:
        deployment = registry.control.require_deployment()
        return operators.with_operator(deployment, arguments.name, public, arguments.role)

    return asyncio.run(_change(arguments, settings, change))


def _revoked(arguments: argparse.Namespace, settings: Settings) -> int:
    def change(registry: Registry) -> Deployment:
        by = arguments.by or settings.keys.operator
        return operators.without_operator(registry.control.require_deployment(), arguments.name, by)

    return asyncio.run(_change(arguments, settings, change))


async def _change(arguments: argparse.Namespace, settings: Settings, change: Any) -> int:
    act, target = f"operator.{arguments.verb}", f"operator/{arguments.name}"
    async with wiring.registry(settings, arguments.by) as registry:
        document = change(registry)
        if arguments.propose is None:
            await registry.change_deployment(document, act, target)
            return _print_operators(registry.control.require_deployment(), arguments)
        proposal = operators.propose(registry, document, act, target, load_signers(settings.keys.roots))
    operators.write_proposal(arguments.propose, proposal)
    return _print_proposal(proposal, arguments)


def _listed(arguments: argparse.Namespace, settings: Settings) -> int:
    async def read() -> Deployment:
        async with wiring.control_table(settings) as table:
            return table.control.require_deployment()

    return _print_operators(asyncio.run(read()), arguments)


def _signed(arguments: argparse.Namespace, settings: Settings) -> int:
    proposal = operators.sign_proposal(operators.read_proposal(arguments.file), load_signers(settings.keys.roots))
    operators.write_proposal(arguments.file, proposal)
    return _print_proposal(proposal, arguments)


def _submitted(arguments: argparse.Namespace, settings: Settings) -> int:
    proposal = operators.read_proposal(arguments.file)

    async def submit() -> Deployment:
        async with wiring.registry(settings, arguments.by) as registry:
            await registry.writer.submit(proposal.record, proposal.act, proposal.target)
            return registry.control.require_deployment()

    return _print_operators(asyncio.run(submit()), arguments)


def _print_operators(deployment: Deployment, arguments: argparse.Namespace) -> int:
    rows = [(operator.id, operator.role, operators.key_of(operator.public)) for operator in deployment.operators]
    rows += [(root.name, "root", operators.key_of(root.public)) for root in deployment.roots]
    terminal.table("who may sign", ("name", "role", "key"), rows, as_json=arguments.json)
    return 0


def _print_proposal(proposal: Proposal, arguments: argparse.Namespace) -> int:
    deployment = proposal.document
    signed = {signature.key for signature in proposal.record.signatures}
    rows = [("act", proposal.act), ("target", proposal.target)]
    rows += [("operator", f"{operator.id}: {operator.role}") for operator in deployment.operators]
    rows += [("root", root.name) for root in deployment.roots]
    rows += [("log key", key) for key in deployment.log_keys]
    rows += [("signed by", key) for key in sorted(signed)]
    rows.append(("signatures needed", str(deployment.threshold)))
    terminal.table("proposed", ("what", "value"), rows, as_json=arguments.json)
    return 0
