"""``sluice up`` and ``sluice demo``: the whole system on this machine."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config, terminal
from pipeline.cli.arguments import PORT
from pipeline.cli.extras import require
from pipeline.config import Settings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.embedded.stack import LocalStack

_LOOK_S = 0.5
_ENDING = "Ctrl-C or SIGTERM ends every process in order and gives exit code 130, while it starts too."


def add(commands: Any) -> None:
    """Add ``up`` and ``demo``."""
    up = commands.add_parser(
        "up",
        help="start Kafka, ClickHouse and every stage here",
        description="Start the whole system as child processes of this one and keep it running. Records and keys stay "
        f"in --home between starts. {_ENDING}",
    )
    _add_ports(up)
    up.set_defaults(act=_up)
    demo = commands.add_parser(
        "demo",
        help="start everything, send realistic traffic, show what became of it",
        description="Start the system, send three tenants' traffic through every kind of client, verify the signed "
        "log, print a summary, then keep serving. With --once it ends by itself: exit 0 where every count reconciles, "
        f"the log verifies and every caller saw what it had to, else 1. {_ENDING}",
    )
    _add_ports(demo)
    demo.add_argument("--once", action="store_true", help="stop after the summary")
    form = demo.add_mutually_exclusive_group()
    form.add_argument("--full", action="store_true", help="print every panel and every count, not one screen of them")
    form.add_argument("--json", action="store_true", help="print the whole summary as JSON")
    demo.set_defaults(act=_demo)


def _add_ports(parser: argparse.ArgumentParser) -> None:
    for flag, port, service in (
        ("--port", 8080, "the gateway"),
        ("--kafka-port", 9092, "Kafka's clients"),
        ("--kafka-controller-port", 9093, "Kafka's controller"),
        ("--kafka-producers-port", 9094, "Kafka's direct producers"),
        ("--clickhouse-port", 8123, "ClickHouse"),
    ):
        parser.add_argument(
            flag, type=PORT, metavar="N", default=port, help=f"set the port of {service} (default %(default)s)"
        )
    parser.add_argument(
        "--model", default="glossary", help="choose 'glossary' (from the registry, the default), 'echo' or a folder"
    )


def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    _require(arguments, settings)

    def ready(stack: LocalStack) -> int | None:
        _say_next(stack)
        return None

    return _with_stack(arguments, ready)


def _demo(arguments: argparse.Namespace, settings: Settings) -> int:
    require("demo")
    _require(arguments, settings)
    # a second of imports, the OpenAI client's above all, while Kafka starts
    loading = threading.Thread(target=importlib.import_module, args=("pipeline.demo.run",), daemon=True)

    def run(stack: LocalStack) -> int | None:
        loading.join()
        from pipeline.demo.overview import print_overview
        from pipeline.demo.run import run_demo

        summary = run_demo(stack, _say)
        if arguments.json:
            terminal.document(summary.document())
        else:
            print_overview(summary, verdict_only=arguments.full)
            if arguments.full:
                summary.print_tables()
        if arguments.once:
            return 0 if summary.ok else 1
        _say_next(stack)
        return None

    return _with_stack(arguments, run, meanwhile=loading.start)


def _require(arguments: argparse.Namespace, settings: Settings) -> None:
    """Refuse before anything is started, not by the log of a child."""
    for extra in ("local", "stages"):
        require(extra)
    if arguments.model != "echo" and not settings.generate.upstream:
        require("engine")


def _with_stack(
    arguments: argparse.Namespace, act: Callable[[LocalStack], int | None], meanwhile: Callable[[], None] = lambda: None
) -> int:
    """Run ``act`` on a started stack and supervise it until Ctrl-C, or until ``act`` gives an exit code.

    ``meanwhile`` is begun once the first processes start, and must not block.
    """
    # Kafka, ClickHouse and their engines are loaded by no other command
    from pipeline.embedded.stack import LocalStack, Ports

    numbers = (arguments.port, arguments.kafka_port, arguments.kafka_controller_port, arguments.clickhouse_port)
    every = (*numbers, arguments.kafka_producers_port)
    if len(set(every)) < len(every):
        flags = "--port, --kafka-port, --kafka-controller-port, --clickhouse-port, --kafka-producers-port"
        got = ", ".join(map(str, every))
        raise ConfigError(f"{flags}: expected five that differ, got {got}; change one of them")
    overrides = {"SLUICE_GENERATE__MODEL": arguments.model}
    stack = LocalStack(
        Path(arguments.home), config.cache(), Ports(*numbers, producers=arguments.kafka_producers_port), overrides
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        stack.start(_say, meanwhile)
        code = act(stack)
        while code is None:
            stack.supervise_once()
            time.sleep(_LOOK_S)
        return code
    except KeyboardInterrupt:
        _ignore_interrupts()
        _say("\nstopping every process")
        return 130
    finally:
        _ignore_interrupts()
        stack.stop()


def _interrupt(*_: object) -> None:
    """End as on Ctrl-C, which asyncio answers by cancelling what runs; a shell's background job ignores SIGINT."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
    else:
        raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    """A second Ctrl-C must not leave half of it running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _itself() -> str:
    """The command that a reader of a hint can type."""
    if shutil.which("sluice"):
        return "sluice"
    started = Path(sys.argv[0])
    return "python -m pipeline" if started.name == "__main__.py" else os.path.relpath(started)


def _say_next(stack: LocalStack) -> None:
    addresses = {
        "gateway": stack.url,
        "Kafka": stack.bootstrap,
        "ClickHouse": stack.store.url if stack.store else "",
        "logs": stack.home / "logs",
        "metrics": f"{stack.status_ports.path} (targets for a Prometheus: file_sd_configs)",
    }
    terminal.fields("\nrunning; Ctrl-C stops it", addresses, file=sys.stderr)
    sluice = _itself()
    if stack.home != config.default_home():
        sluice += f" --home {stack.home}"
    _say(
        f"next, in another terminal:\n"
        f"  {sluice} tenant add me --plan team && {sluice} key add me app --kafka    # prints KEY\n"
        f"  curl {stack.url}/inference -H 'Authorization: Bearer KEY' -d '{{\"prompt\": \"What is a dog?\"}}'\n"
        f"  any OpenAI client: base_url={stack.url}/v1 api_key=KEY model=glossary\n"
        f"  straight into Kafka: SLUICE_KEY=KEY {sluice} ask 'What is a dog?'\n"
        f"  {sluice} audit verify"
    )
