"""``sluice ask``: one request as a signed record straight into Kafka, and its outcome."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from pipeline import config, terminal
from pipeline.cli.arguments import add_command, whole
from pipeline.config import Settings
from pipeline.errors import ConfigError


def add(commands: Any) -> None:
    """Add ``ask``."""
    ask = add_command(
        commands,
        "ask",
        "send one prompt as a signed Kafka record and wait for the outcome",
        _ask,
        "The prompt is sealed and signed here, written to the topic requests, and the gateway is asked what became of "
        "it, as a program does with pipeline.producer. The API key comes from the file that the environment variable "
        "SLUICE_KEY_FILE names, from SLUICE_KEY, or is asked for. Exit 1 where the request was refused.",
    )
    ask.add_argument("prompt", help="text of the prompt")
    ask.add_argument("--url", default="", help="URL of the gateway (default: that of the settings)")
    ask.add_argument(
        "--ca-file", default="", help="PEM file of the authorities that may name gateway and brokers (TLS)"
    )
    ask.add_argument("--model", default=None, help="id of a model, one of GET /v1/models (default: the plan's first)")
    ask.add_argument(
        "--max-tokens",
        type=whole(1, 1_000_000),
        metavar="N",
        default=None,
        help="most tokens of the answer (default: the plan's most)",
    )


def _ask(arguments: argparse.Namespace, settings: Settings) -> int:
    # clients of Kafka and HTTP, which no stage needs at its start
    from pipeline.producer import Refused, SyncProducer

    scheme = "https" if settings.gateway.certificate_file else "http"
    url = arguments.url or f"{scheme}://{settings.gateway.host}:{settings.gateway.port}"
    try:
        with SyncProducer(url, _key(), ca_file=arguments.ca_file) as producer:
            ticket = producer.submit(arguments.prompt, model=arguments.model, max_tokens=arguments.max_tokens)
            answer = ticket.result()
    except Refused as refused:
        print(f"sluice: refused: {refused}", file=sys.stderr)
        return 1
    rows = [(answer.request, answer.result, answer.usage.input_tokens, answer.usage.output_tokens, answer.text.strip())]
    terminal.table("", ("request", "result", "input", "output", "text"), rows, as_json=arguments.json)
    return 0


def _key() -> str:
    key = config.api_key()
    if not key and sys.stdin.isatty():
        key = getpass.getpass("API key: ")
    if not key:
        raise ConfigError(
            "SLUICE_KEY: expected an API key, got none; set it, or SLUICE_KEY_FILE, to what `sluice key add` printed"
        )
    return key
