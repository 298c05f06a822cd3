"""``sluice backup`` and ``sluice restore``: what a deployment cannot be continued without, in one encrypted file."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import add_command, add_group
from pipeline.config import Settings
from pipeline.errors import ConfigError, Malformed
from pipeline.sections import read_secret
from pipeline.terminal import UnixMs

_BACKUP = """\
The file holds the folder of keys, the settings, and every record of control. It is encrypted with a passphrase
(scrypt, AES-256-GCM), opens nothing without it, and is read back before this command ends. The log and the models are
not in it: they have copies of their own. What is lost with which key: pipeline/keys/README.md.
"""
_RESTORE = """\
Nothing is ever overwritten. On brokers that still hold the log, the deployment goes on (--same-log). On others it
becomes a new generation with the same tenants, keys and log keys: a log that begins anew must not bear its old name.
What was changed after the backup is lost: a key that was revoked since then works again until it is revoked again.
"""
_RESTORE_EXAMPLES = """\
on new brokers:
  sluice restore keys nightly.backup --passphrase-file /run/secrets/passphrase
  sluice up                                      or: sluice topics apply && sluice tables apply
  sluice restore control nightly.backup --passphrase-file /run/secrets/passphrase
"""


def add(commands: Any) -> None:
    """Add ``backup`` and ``restore``."""
    made = add_command(commands, "backup", "write keys, settings and control into one encrypted file", _backup, _BACKUP)
    made.add_argument("file", type=Path, help="file to write, which must not exist, or a folder to write one into")
    made.add_argument("--by", default="", metavar="NAME", help="operator whose key signs (default: keys.operator)")
    restore = add_group(commands, "restore", "put a backup back", _RESTORE, _RESTORE_EXAMPLES)
    checked = add_command(restore, "check", "open a backup and say what is in it", _check)
    keys = add_command(restore, "keys", "write the folder of keys (keys.home), which must not be there", _keys)
    keys.add_argument("--same-log", action="store_true", help="go on with the log that the brokers still hold")
    keys.add_argument("--roots", type=Path, metavar="FOLDER", help="root keys that are not in the backup")
    keys.add_argument("--settings", type=Path, metavar="FILE", help="write the settings to this file, too")
    control = add_command(restore, "control", "put tenants, keys and policies back into control", _control)
    control.add_argument("--by", default="", metavar="NAME", help="operator whose key signs (default: keys.operator)")
    for parser in (checked, keys, control):
        parser.add_argument("file", type=Path, help="file that sluice backup wrote")
    for parser in (made, checked, keys, control):
        parser.add_argument(
            "--passphrase-file",
            required=True,
            metavar="FILE",
            help="file with the passphrase; /dev/fd/N for a descriptor",
        )


def _backup(arguments: argparse.Namespace, settings: Settings) -> int:
    from pipeline.keys.backup import decrypt_backup, encrypt_backup, require_passphrase, write_secret

    passphrase = _passphrase(arguments)
    require_passphrase(passphrase)
    _require_absent(arguments.file)
    found = _settings_file(arguments)
    backup = asyncio.run(wiring.make_backup(settings, found.read_bytes() if found else b"", arguments.by))
    stamp = datetime.fromtimestamp(backup.created / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = arguments.file.is_dir()
    file = arguments.file / f"sluice-{backup.generation}-{stamp}.backup" if folder else arguments.file
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_secret(partial, encrypt_backup(backup, passphrase))
        if decrypt_backup(partial.read_bytes(), passphrase) != backup:
            raise ConfigError(f"{file}: expected to read what was written, got something else; is the disk sound?")
        # of two that begin together one wins, and nothing is overwritten
        os.link(partial, file)
    except OSError as error:
        raise ConfigError(f"{file}: expected to write it, got: {error.strerror}; name another") from None
    finally:
        partial.unlink(missing_ok=True)
    _tell(f"written to {file}", backup, arguments)
    return 0


def _check(arguments: argparse.Namespace, settings: Settings) -> int:
    _tell("opens", _read(arguments), arguments)
    return 0


def _keys(arguments: argparse.Namespace, settings: Settings) -> int:
    from pipeline.keys.backup import write_secret

    backup = _read(arguments)
    if arguments.settings is not None:
        _require_absent(arguments.settings)
    home = settings.keys.home
    # before it has been up, an embedded home has no settings that say where its keys are
    if arguments.config is None and not (arguments.home / "sluice.toml").exists():
        home = arguments.home.absolute() / "keys"
    pin = wiring.restore_keys(home, backup, arguments.roots, same_log=arguments.same_log)
    if arguments.settings is not None:
        write_secret(arguments.settings, backup.settings)
    partitions = len(backup.decided)
    terminal.table(
        "keys restored", ("folder", "deployment", "partitions"), [(str(home), pin, partitions)], as_json=arguments.json
    )
    return 0


def _control(arguments: argparse.Namespace, settings: Settings) -> int:
    backup = _read(arguments)
    restored = asyncio.run(wiring.restore_control(settings, backup, arguments.by))
    rows = [(restored.records, restored.generation, UnixMs(backup.created))]
    columns = ("documents", "generation", "as of")
    terminal.table("control restored; revoke again what was revoked since", columns, rows, as_json=arguments.json)
    return 0


def _tell(title: str, backup: Any, arguments: argparse.Namespace) -> None:
    control = wiring.folded(backup)
    rows = [
        (
            UnixMs(backup.created),
            backup.version,
            backup.generation,
            backup.deployment,
            len(backup.files),
            len(backup.control),
            len(control.tenants),
            len(control.keys),
        )
    ]
    columns = ("made", "by", "generation", "deployment", "files", "records", "tenants", "keys")
    terminal.table(title, columns, rows, as_json=arguments.json)


def _read(arguments: argparse.Namespace) -> Any:
    from pipeline.keys.backup import decrypt_backup

    passphrase = _passphrase(arguments)
    try:
        return decrypt_backup(arguments.file.read_bytes(), passphrase)
    except Malformed as error:
        raise ConfigError(f"{arguments.file}: {error}") from None


def _passphrase(arguments: argparse.Namespace) -> str:
    return read_secret("--passphrase-file", arguments.passphrase_file, "passphrase")


def _settings_file(arguments: argparse.Namespace) -> Path | None:
    written = Path(arguments.home) / "sluice.toml"
    return arguments.config or (written if written.exists() else None)


def _require_absent(file: Path) -> None:
    if file.exists() and not file.is_dir():
        raise ConfigError(f"{file}: expected no file there, got one; nothing is overwritten: name another")
