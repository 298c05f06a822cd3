"""``sluice ask``: one request as a signed record straight into Kafka, and its outcome."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from pipeline import config, terminal
from pipeline.cli.arguments import whole
from pipeline.config import Settings
from pipeline.errors import ConfigError


def add(commands: Any) -> None:
    ask = commands.add_parser(
        "ask",
        help="send one prompt as a signed Kafka record and wait for the outcome",
        description="Seals and signs the prompt here, writes it to the topic requests, and asks the gateway what "
        "became of it, as a program does with pipeline.producer. The API key comes from the environment variable "
        "SLUICE_KEY, or is asked for. Exit 1 where the request was refused.",
    )
    ask.add_argument("prompt")
    ask.add_argument("--url", default="", help="the gateway (default: that of the settings)")
    ask.add_argument("--model", default=None, help="one of GET /v1/models (default: the plan's first)")
    ask.add_argument(
        "--max-tokens", type=whole(1, 1_000_000), metavar="N", default=None, help="(default: the plan's most)"
    )
    ask.add_argument("--json", action="store_true", help="for programs")
    ask.set_defaults(act=_ask)


def _ask(arguments: argparse.Namespace, settings: Settings) -> int:
    # clients of Kafka and HTTP, which no stage needs at its start
    from pipeline.producer import Refused, SyncProducer

    url = arguments.url or f"http://{settings.gateway.host}:{settings.gateway.port}"
    try:
        with SyncProducer(url, _key()) as producer:
            ticket = producer.submit(arguments.prompt, model=arguments.model, max_tokens=arguments.max_tokens)
            answer = ticket.result()
    except Refused as refused:
        print(f"sluice: refused: {refused}", file=sys.stderr)
        return 1
    rows = [(answer.request, answer.result, answer.usage.input_tokens, answer.usage.output_tokens, answer.text.strip())]
    terminal.table("", ("request", "result", "input", "output", "text"), rows, as_json=arguments.json)
    return 0


def _key() -> str:
    found = config.api_key()
    if not found and sys.stdin.isatty():
        found = getpass.getpass("API key: ")
    if not found:
        raise ConfigError("no API key: set SLUICE_KEY to what `sluice key add` printed")
    return found
