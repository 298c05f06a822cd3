"""``sluice run STAGE`` and ``sluice config``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
from typing import Any

from pydantic import ValidationError

from pipeline import config
from pipeline.cli.arguments import add_command
from pipeline.cli.extras import require
from pipeline.config import Generate, Settings
from pipeline.errors import ConfigError, Stopped
from pipeline.wiring import STAGES

_log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add ``run`` and ``config``."""
    run = commands.add_parser(
        "run",
        help="run one stage in this process",
        description="Run one stage until SIGTERM or Ctrl-C. Start as many processes of a stage as you like: they share "
        "the partitions, and two that serve one by mistake do no harm. On SIGUSR1 a stage writes to its log what each "
        "of its tasks waits for.",
    )
    run.add_argument("stage", choices=sorted(STAGES), help="name of the stage")
    run.add_argument(
        "--assign", type=_partitions, default=(), metavar="P,P", help="take these partitions, not a group's"
    )
    run.add_argument("--pool", default="", metavar="TENANT", help="run this tenant's work and no other's (generate)")
    run.add_argument("--verbose", action="store_true", help="log every step")
    run.set_defaults(act=_run)
    add_command(commands, "config", "list every setting, its variable and what is in force", _config)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    require("stages")
    import uvloop

    if arguments.pool:
        settings = _pooled(arguments.stage, arguments.pool, settings)
    _keep_log(logging.DEBUG if arguments.verbose else logging.INFO)
    # records are made and dropped by the thousand and hold no cycles: looking for some took a tenth of the time
    gc.set_threshold(50_000, 20, 50)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stopper(stop, loop))
        loop.add_signal_handler(signal.SIGUSR1, _say_what_waits)
        try:
            await STAGES[arguments.stage](settings, stop, arguments.assign)
        except Stopped as stopped:
            _log.info("%s", stopped)
            # a thread that asks an absent store or loads a model would hold this process, and nothing is begun
            logging.shutdown()
            os._exit(0)

    # Faust brings services of its own that expect the standard loop
    (asyncio.run if arguments.stage == "watch" else uvloop.run)(main())
    return 0


def _keep_log(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("faust", "mode", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # it quotes the bytes of a request that it cannot read, with a traceback; the gateway tells what is to be told
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)


def _pooled(stage: str, tenant: str, settings: Settings) -> Settings:
    if stage != "generate":
        raise ConfigError(f"--pool: expected the stage generate, got {stage}; leave --pool out")
    try:
        section = Generate.model_validate({**settings.generate.model_dump(), "pool": tenant})
    except ValidationError:
        raise ConfigError(f"--pool: expected a tenant's id, got {tenant[:80]!r}; see: sluice tenant list") from None
    return settings.model_copy(update={"generate": section})


def _say_what_waits() -> None:
    """Log every task and the lines at which it waits, to be looked at where a stage stands still."""
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        waiting: Any = task.get_coro()
        lines = []
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
            if frame is not None:
                lines.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        _log.warning("%s waits in %s", task.get_name(), " > ".join(lines))


def _stopper(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Any:
    def act() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    return act


def _partitions(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
        if min(numbers) < 0:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected partition numbers of 0 or more by comma, got {text[:80]!r}; write them as 0,1"
        ) from None
    return numbers


def _config(arguments: argparse.Namespace, settings: Settings) -> int:
    from pipeline import terminal

    variables = {name: variable for variable, name in config.known_environment().items()}
    rows = []
    for section, field, default, meaning in config.table():
        value = getattr(getattr(settings, section), field)
        rows.append((f"{section}.{field}", variables[f"{section}.{field}"], value, default, meaning))
    terminal.table("settings", ("setting", "variable", "in force", "default", "meaning"), rows, as_json=arguments.json)
    return 0
