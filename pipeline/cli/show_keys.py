"""``sluice keys show``: what an auditor and another machine need to know, and none of it secret."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import add_command
from pipeline.config import Settings
from pipeline.control.operators import key_of


def add_show(group: Any) -> None:
    """Add ``show`` to ``keys``."""
    add_command(
        group,
        "show",
        "show the deployment's pin, its public keys and the operators' roles",
        _show,
        "Give pin and log keys to auditors on a way that does not lead through the brokers: the pin is "
        "keys.deployment in their settings, the log keys a line each in the file of: sluice audit verify --keys.",
    )


def _show(arguments: argparse.Namespace, settings: Settings) -> int:
    async def read() -> list[tuple[str, str, str]]:
        async with wiring.control_table(settings) as table:
            deployment = table.control.require_deployment()
        rows = [("pin", "", table.fold.pin), ("generation", "", deployment.generation)]
        rows += [("log key", "", key) for key in deployment.log_keys]
        rows += [("root", f"{root.name} {key_of(root.public)}", root.public) for root in deployment.roots]
        rows.append(("threshold", "", str(deployment.threshold)))
        for operator in deployment.operators:
            rows.append((operator.role, f"{operator.id} {key_of(operator.public)}", operator.public))
        return rows

    terminal.table("public", ("what", "name", "value"), asyncio.run(read()), as_json=arguments.json)
    return 0
