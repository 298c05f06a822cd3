"""``sluice run STAGE`` and ``sluice config``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
from typing import Any

import uvloop

from pipeline import config, terminal
from pipeline.config import Settings
from pipeline.wiring import STAGES


def add(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run one stage in this process",
        description="Run one stage until SIGTERM or Ctrl-C. Start as many processes of a stage as you like: they share "
        "the partitions, and two that serve one by mistake do no harm.",
    )
    run.add_argument("stage", choices=sorted(STAGES))
    run.add_argument("--assign", type=_partitions, default=(), metavar="P,P", help="these partitions, without a group")
    run.add_argument("--verbose", action="store_true", help="log every step")
    run.set_defaults(act=_run)
    listed = commands.add_parser("config", help="list every setting, its variable and what is in force")
    listed.add_argument("--json", action="store_true")
    listed.set_defaults(act=_config)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for noisy in ("faust", "mode", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)

    # records are made and dropped by the thousand and hold no cycles: looking for some took a tenth of the time
    gc.set_threshold(50_000, 20, 50)

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stopper(stop, loop))
        await STAGES[arguments.stage](settings, stop, arguments.assign)

    # Faust brings services of its own that expect the standard loop
    (asyncio.run if arguments.stage == "watch" else uvloop.run)(main())
    return 0


def _stopper(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Any:
    def act() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    return act


def _partitions(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected partition numbers by comma, came {text!r}") from None
    if min(found) < 0:
        raise argparse.ArgumentTypeError("expected partition numbers of 0 or more")
    return found


def _config(arguments: argparse.Namespace, settings: Settings) -> int:
    variables = {name: variable for variable, name in config.known_environment().items()}
    rows = []
    for section, field, default, meaning in config.table():
        value = getattr(getattr(settings, section), field)
        rows.append((f"{section}.{field}", variables[f"{section}.{field}"], value, default, meaning))
    terminal.table("settings", ("setting", "variable", "in force", "default", "meaning"), rows, as_json=arguments.json)
    return 0
