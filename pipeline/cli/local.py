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

_TEND_S = 0.5


def add(commands: Any) -> None:
    up = commands.add_parser(
        "up",
        help="start Kafka, ClickHouse and every stage here",
        description="Start the whole system as child processes of this one and keep it running. Records and keys stay "
        "in --home between starts. Ctrl-C stops everything.",
    )
    _ports(up)
    up.set_defaults(act=_up)
    demo = commands.add_parser(
        "demo",
        help="the same with realistic traffic, a summary, and the verified log",
        description="Start the system, send three tenants' traffic through every door, print what became of it, verify "
        "the signed log, then keep serving. With --once: end by itself, exit 0 only if every count reconciles.",
    )
    _ports(demo)
    demo.add_argument("--once", action="store_true", help="stop after the summary")
    demo.add_argument("--json", action="store_true", help="the summary as JSON")
    demo.set_defaults(act=_demo)


def _ports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=PORT, metavar="N", default=8080, help="gateway (default %(default)s)")
    parser.add_argument("--kafka-port", type=PORT, metavar="N", default=9092, help="default %(default)s")
    parser.add_argument("--kafka-controller-port", type=PORT, metavar="N", default=9093, help="default %(default)s")
    parser.add_argument("--clickhouse-port", type=PORT, metavar="N", default=8123, help="default %(default)s")
    parser.add_argument("--model", default="glossary", help="'glossary' (from the registry), 'echo' or a model folder")


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
    loading = threading.Thread(target=importlib.import_module, args=("pipeline.demo.play",), daemon=True)

    def play(stack: LocalStack) -> int | None:
        loading.join()
        from pipeline.demo.play import run

        code = run(stack, _say, as_json=arguments.json)
        if arguments.once:
            return code
        _say_next(stack)
        return None

    return _with_stack(arguments, play, meanwhile=loading.start)


def _require(arguments: argparse.Namespace, settings: Settings) -> None:
    """Refuse before anything is started, not by the log of a child."""
    for extra in ("local", "stages"):
        require(extra)
    if arguments.model != "echo" and not settings.generate.upstream:
        require("engine")


def _with_stack(
    arguments: argparse.Namespace, act: Callable[[LocalStack], int | None], meanwhile: Callable[[], None] = lambda: None
) -> int:
    """Run ``act`` on a started stack and tend it until Ctrl-C, or until ``act`` gives an exit code.

    ``meanwhile`` is begun once the first processes start, and must not block.
    """
    # Kafka, ClickHouse and their engines are loaded by nobody else
    from pipeline.embedded.stack import LocalStack, Ports

    ports = Ports(arguments.port, arguments.kafka_port, arguments.kafka_controller_port, arguments.clickhouse_port)
    if len({arguments.port, arguments.kafka_port, arguments.kafka_controller_port, arguments.clickhouse_port}) < 4:
        raise ConfigError("--port, --kafka-port, --kafka-controller-port, --clickhouse-port: expected four that differ")
    overrides = {"SLUICE_GENERATE__MODEL": arguments.model}
    stack = LocalStack(Path(arguments.home), config.cache(), ports, overrides)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        stack.start(_say, meanwhile)
        code = act(stack)
        while code is None:
            stack.tend()
            time.sleep(_TEND_S)
        return code
    except KeyboardInterrupt:
        _say("stopping")
        return 130
    finally:
        # a second Ctrl-C must not leave half of it running
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.stop()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _itself() -> str:
    """How the reader of a hint runs this command."""
    if shutil.which("sluice"):
        return "sluice"
    started = Path(sys.argv[0])
    return "python -m pipeline" if started.name == "__main__.py" else os.path.relpath(started)


def _say_next(stack: LocalStack) -> None:
    rows = [
        ("gateway", stack.url),
        ("Kafka", stack.bootstrap),
        ("ClickHouse", stack.store.url if stack.store else ""),
        ("logs", stack.home / "logs"),
    ]
    terminal.table("running; Ctrl-C stops it", ("what", "where"), rows)
    sluice = _itself()
    if stack.home != config.default_home():
        sluice += f" --home {stack.home}"
    _say(
        f"next, in another terminal:\n"
        f"  {sluice} tenant add me --plan team && {sluice} key add me app    # prints KEY\n"
        f"  curl {stack.url}/inference -H 'Authorization: Bearer KEY' -d '{{\"prompt\": \"What is a dog?\"}}'\n"
        f"  any OpenAI client: base_url={stack.url}/v1 api_key=KEY model=glossary\n"
        f"  straight into Kafka: SLUICE_KEY=KEY {sluice} ask 'What is a dog?'\n"
        f"  {sluice} audit verify"
    )
