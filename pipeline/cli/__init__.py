"""The ``sluice`` command; ``EPILOG`` documents its exit codes."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline import config
from pipeline.cli.extras import missing
from pipeline.errors import ConfigError, Fatal, Malformed, Retryable

COMMANDS: dict[str, tuple[str, ...]] = {
    "local": ("up", "demo"),
    "stage": ("run", "config"),
    "operate": ("topics", "tables", "tenant", "key", "policy"),
    "operators": ("operator",),
    "keys": ("keys",),
    "deploy": ("deploy",),
    "backup": ("backup", "restore"),
    "ask": ("ask",),
    "audit": ("audit",),
    "quota": ("quota",),
    "label": ("label",),
    "account": ("account",),
    "detect": ("detect",),
    "model": ("model",),
    "watermark": ("watermark",),
    "engine": ("engine",),
}
"""Module of this package -> the commands that it adds."""
EPILOG = """\
first steps:
  sluice demo                 the whole system on this machine, with traffic and a summary
  sluice up                   the same without traffic, for development
  sluice tenant add acme --plan team && sluice key add acme app
  SLUICE_KEY=... sluice ask 'What is a dog?'
exit codes:
  0 done   1 a check found something   2 wrong usage or settings
  3 a broker or store is absent        4 an invariant broke, a person must look
  130 ended by Ctrl-C, or by SIGTERM where children had to be ended (up, demo)
settings:
  a TOML file (--config), else the one that `sluice up` wrote in its home, and SLUICE_SECTION__FIELD
  in the environment, which wins; `sluice config` lists them all
"""


class PrintVersion(argparse.Action):
    """Print the version of the installed package and exit; it is looked up on demand alone."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"sluice {importlib.metadata.version('sluice')}")
        parser.exit()


def build_parser(modules: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Make the parser of every command of ``modules``.

    Each sets ``act``, which is called with the parsed arguments and the settings.
    """
    parser = argparse.ArgumentParser(
        prog="sluice",
        description="Run and operate streaming policy and observability for multi-tenant model serving.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version and exit")
    parser.add_argument("--config", type=Path, help="file of settings (TOML)")
    parser.add_argument("--home", type=Path, default=config.default_home(), help="folder of the embedded stack")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in modules:
        try:
            imported = importlib.import_module(f"pipeline.cli.{module}")
        except ModuleNotFoundError as error:
            fault = missing(error)
            if fault is None or len(modules) == 1:
                raise
            for name in COMMANDS[module]:
                commands.add_parser(name, help=str(fault))
            continue
        imported.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # its warnings repeat what our own errors say, and name no fix
    for client in ("aiokafka", "clickhouse_connect"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        arguments = build_parser(_needed(argv)).parse_args(argv)
        settings = config.load(_file(arguments))
        return int(arguments.act(arguments, settings))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say what failed and what to do; give the exit code of the fault."""
    if isinstance(error, ModuleNotFoundError):
        error = missing(error) or error
    if isinstance(error, (ConfigError, Malformed)):
        return _say(error, 2)
    if isinstance(error, Retryable):
        return _say(error, 3)
    if isinstance(error, Fatal):
        return _say(error, 4)
    if not isinstance(error, OSError) or error.errno is None:
        return _unexpected(error)
    name = f"{error.filename}: " if error.filename is not None else ""
    # resolvers count their errors downwards, and only they know the texts
    text = os.strerror(error.errno) if error.errno > 0 else error.strerror
    return _say(ConfigError(f"{name}{text}"), 3 if isinstance(error, ConnectionError) else 2)


def _needed(argv: Sequence[str]) -> Sequence[str]:
    """The module of the command that was given, or all: what the others import costs each process half its start."""
    front = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in ("--config", "--home"):
        front.add_argument(option)
    front.add_argument("command", nargs="?")
    try:
        command = front.parse_known_args(argv)[0].command
    except argparse.ArgumentError:
        command = None
    return [module for module, names in COMMANDS.items() if command in names] or tuple(COMMANDS)


def _file(arguments: argparse.Namespace) -> Path | None:
    if arguments.config is not None:
        return Path(arguments.config)
    written = Path(arguments.home) / "sluice.toml"
    return written if written.exists() else None


def _unexpected(error: Exception) -> int:
    """Print type and place of an unexpected error; its text may quote a prompt or a secret.

    Left to Python it would end as exit code 1, which says that a check found something.
    """
    place = "".join(traceback.format_tb(error.__traceback__)[-6:])
    print(f"{place}sluice: unexpected {type(error).__name__} at the place above; please report it", file=sys.stderr)
    return 4


def _say(error: Exception, code: int) -> int:
    print(f"sluice: {error}", file=sys.stderr)
    return code
