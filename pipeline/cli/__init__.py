"""The ``sluice`` command. Exit codes: 0 done; 1 a check found something; 2 wrong usage or settings;
3 a broker or store is absent; 4 an invariant broke, a person must look; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import config
from pipeline.cli import ask, audit, deploy, detect, engine, label, local, model, operate, stage, watermark
from pipeline.errors import ConfigError, Fatal, Malformed, Retryable

EPILOG = """\
first steps:
  sluice demo                 the whole system on this machine, with traffic and a summary
  sluice up                   the same without traffic, for development
  sluice tenant add acme --plan team && sluice key add acme app
  SLUICE_KEY=... sluice ask 'What is a dog?'
exit codes:
  0 done   1 a check found something   2 wrong usage or settings
  3 a broker or store is absent        4 an invariant broke, a person must look   130 interrupted
settings:
  a TOML file (--config), else the one that `sluice up` wrote in its home, and SLUICE_SECTION__FIELD
  in the environment, which wins; `sluice config` lists them all
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command with its help; each sets ``act``, called with the parsed arguments and the settings."""
    parser = argparse.ArgumentParser(
        prog="sluice",
        description="Streaming policy and observability for multi-tenant model serving.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="settings file (TOML)")
    parser.add_argument("--home", type=Path, default=config.default_home(), help="folder of the embedded stack")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (local, stage, operate, deploy, ask, audit, label, detect, model, watermark, engine):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    arguments = build_parser().parse_args(argv)
    # its warnings repeat what our own errors say, and name no fix
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        settings = config.load(_file(arguments))
        return int(arguments.act(arguments, settings))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConfigError, Malformed) as error:
        return _say(error, 2)
    except Retryable as error:
        return _say(error, 3)
    except Fatal as error:
        return _say(error, 4)


def _file(arguments: argparse.Namespace) -> Path | None:
    if arguments.config is not None:
        return Path(arguments.config)
    written = Path(arguments.home) / "sluice.toml"
    return written if written.exists() else None


def _say(error: Exception, code: int) -> int:
    print(f"sluice: {error}", file=sys.stderr)
    return code
