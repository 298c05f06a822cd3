"""``sluice model``: keep, roll out, revoke and hand on the models of the registry."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from inference.registry.keys import ECDSA, read_signing_keys
from inference.registry.listing import BrokenVersion, StoredVersion
from inference.registry.refusal import ModelRefused
from inference.registry.traffic import WHOLE, shares_of
from inference.registry.wrapping import Recipient, TenantRecipient, WorkerAddress, create_worker
from pipeline import terminal, wiring
from pipeline.cli import model_signing
from pipeline.cli.arguments import Act, add_command, add_group
from pipeline.config import Settings
from pipeline.errors import ConfigError, Retryable
from pipeline.keys.vault import FileKeyring
from pipeline.terminal import UnixMs, UnixSeconds

DESCRIPTION = """\
A model is a folder of safetensors, JSON and text whose manifest names every file with its digests. It is served only
where that manifest bears the signatures that models.require asks for, from keys in models.trust, and where its version
is not older than what was served before. The registry (models.home) keeps versions encrypted.
"""
EXAMPLES = """\
from keys to traffic:
  sluice model verify                                the model that ships, as it lies here
  sluice model keygen release.pem                    signing keys; release.pem.pub is for models.trust
  sluice model sign FOLDER --model tiny --version 2 --licence Apache-2.0 --keys release.pem
  sluice model add FOLDER --tenant acme              keep it encrypted; acme's key opens it
  sluice model roll tiny 1=90 2=10                   a tenth of the requests, by request id
  sluice model rollback tiny                         the shares before
  sluice model revoke tiny 2 --reason 'bad data' --keys release.pem
to another machine:
  sluice model keygen worker.pem --worker            there; worker.pem.pub comes here
  sluice model export tiny 1 --to worker.pem.pub --out FOLDER   needs the role model:export in access.toml
  sluice model add FOLDER                            there, with worker.pem in keys.home
"""
_MODEL = "id of the model, as in: sluice model list"
_TIMES = ("issued", "expires")
"""Fields of a manifest that are Unix seconds."""


def add(commands: Any) -> None:
    """Add ``model``."""
    model = add_group(commands, "model", "sign, verify, keep and roll out models", DESCRIPTION, EXAMPLES)
    listed = add_command(model, "list", "list versions in the registry with their shares of traffic", _refusing(_list))
    listed.add_argument("model", nargs="?", help=f"{_MODEL} (default: all)")
    _add_version(add_command(model, "show", "show one version: files, digests, lineage", _refusing(_show)))
    add_command(
        model,
        "log",
        "list every attempt on record",
        _refusing(_log),
        "The record is a chain of digests: exit 2 where it was changed.",
    )
    added = add_command(model, "add", "verify a signed folder, or an export, and keep it encrypted", _recorded(_add))
    added.add_argument("folder", type=Path, help="signed folder, or the folder of an export")
    added.add_argument("--tenant", action="append", default=[], help="tenant that may open it too; once for each")
    rolled = add_command(model, "roll", "give versions their shares of traffic in percent", _recorded(_roll))
    rolled.add_argument("model", help=_MODEL)
    rolled.add_argument(
        "shares", nargs="+", metavar="VERSION=PERCENT", help="share of a version; 100 in all, two decimals at most"
    )
    restored = add_command(model, "rollback", "restore the shares before the last roll-out", _recorded(_rollback))
    restored.add_argument("model", help=_MODEL)
    revoked = add_command(
        model, "revoke", "serve a version never again", _recorded(_revoke), "Signs the list of revoked versions anew."
    )
    _add_version(revoked)
    revoked.add_argument("--reason", required=True, help="words for the record")
    revoked.add_argument("--keys", type=Path, required=True, help="file of private keys of models.trust")
    exported = add_command(
        model, "export", "write a version's ciphertext for one worker, by role and daily bytes", _recorded(_export)
    )
    _add_version(exported)
    exported.add_argument("--to", type=Path, required=True, help="file of the worker's public key")
    exported.add_argument("--out", type=Path, required=True, help="folder to make")
    model_signing.add(model, _refusing)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=_MODEL)
    parser.add_argument("version", type=int, help="number of the version")


def _refusing(act: Act) -> Act:
    """The act, with the registry's refusals as wrong usage."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        try:
            return act(arguments, settings)
        except ModelRefused as refusal:
            raise ConfigError(str(refusal)) from refusal

    return run


def _recorded(act: Act) -> Act:
    """The act, and its attempt forwarded to the log at once; else the worker beside the registry does it."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        try:
            return act(arguments, settings)
        finally:
            _forward(settings)

    return _refusing(run)


def _forward(settings: Settings) -> None:
    try:
        asyncio.run(wiring.forward_model_acts(settings))
    except (Retryable, ConfigError, ModelRefused, OSError):
        print("sluice: on record in models.home; no broker took it into the topic access yet", file=sys.stderr)


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    versions = wiring.models(settings).list_versions(arguments.model or "")
    if arguments.model and not versions:
        raise ModelRefused("unknown", f"{arguments.model}: no version of it here; see: sluice model list")
    columns = ("model", "version", "kind", "bytes", "percent", "status")
    terminal.table("models", columns, [_row(version) for version in versions], as_json=arguments.json)
    return 0


def _row(version: StoredVersion | BrokenVersion) -> tuple[str | int | float, ...]:
    if isinstance(version, BrokenVersion):
        return version.model, version.version, "", 0, 0.0, f"{version.refusal.code}: {version.refusal}"
    manifest = version.manifest
    percent = version.share * 100 / WHOLE
    return manifest.model, manifest.version, manifest.kind, manifest.size, percent, version.status


def _show(arguments: argparse.Namespace, settings: Settings) -> int:
    version = wiring.models(settings).version(arguments.model, arguments.version)
    document: dict[str, Any] = msgspec.to_builtins(version.manifest)
    document |= {"manifest": version.digest, "percent": version.share * 100 / WHOLE, "status": version.status}
    if arguments.json:
        terminal.document(document)
        return 0
    terminal.fields("", _readable(document))
    rows = [(entry.path, entry.size, entry.blake3) for entry in version.manifest.files]
    terminal.table("", ("file", "bytes", "blake3"), rows)
    return 0


def _readable(document: Mapping[str, Any]) -> dict[str, object]:
    """The fields that a person reads; files have a table of their own."""
    fields = {name: value for name, value in document.items() if name != "files"}
    return fields | {name: UnixSeconds(fields[name]) for name in _TIMES}


def _log(arguments: argparse.Namespace, settings: Settings) -> int:
    columns = ("time", "actor", "act", "outcome", "model", "version", "to", "count", "alarm", "reason")
    events = [msgspec.to_builtins(event) for event in wiring.models(settings).events()]
    rows = [[UnixMs(event["time"]), *(event[name] for name in columns[1:])] for event in events]
    terminal.table("record", columns, rows, as_json=arguments.json)
    return 0


def _add(arguments: argparse.Namespace, settings: Settings) -> int:
    kms = FileKeyring.create(settings.keys.keyring)
    worker = create_worker(settings.keys.worker_key)
    recipients: list[Recipient] = [
        TenantRecipient(kms),
        worker.address,
        *(TenantRecipient(kms, tenant) for tenant in arguments.tenant),
    ]
    manifest = wiring.models(settings).add(arguments.folder, recipients, worker)
    return model_signing.print_manifest(manifest, arguments)


def _roll(arguments: argparse.Namespace, settings: Settings) -> int:
    wiring.models(settings).rollouts.roll(arguments.model, shares_of(map(_share, arguments.shares)))
    return _list(arguments, settings)


def _share(text: str) -> tuple[int, int]:
    version, _, percent = text.partition("=")
    try:
        points = Decimal(percent) * 100
        if not version.isdecimal() or points != int(points):
            raise ValueError
        return int(version), int(points)
    except (ValueError, InvalidOperation, OverflowError):
        raise ModelRefused("rollout", f"expected VERSION=PERCENT such as 2=12.5, got {text!r}") from None


def _rollback(arguments: argparse.Namespace, settings: Settings) -> int:
    wiring.models(settings).rollouts.rollback(arguments.model)
    return _list(arguments, settings)


def _revoke(arguments: argparse.Namespace, settings: Settings) -> int:
    keys = [key for key in read_signing_keys(arguments.keys) if key.public.algorithm != ECDSA]
    registry = wiring.models(settings)
    listed = registry.rollouts.revoke(arguments.model, arguments.version, arguments.reason, keys)
    if not registry.rollouts.shares(arguments.model):
        print(f"sluice: no version of {arguments.model} has traffic; if it is served, roll one out", file=sys.stderr)
    rows = [(entry.model, entry.version, entry.reason) for entry in listed.revoked]
    terminal.table(f"revoked, list {listed.sequence}", ("model", "version", "reason"), rows, as_json=arguments.json)
    return 0


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    operator = TenantRecipient(FileKeyring(settings.keys.keyring))
    worker = WorkerAddress.read(arguments.to)
    record = wiring.models(settings).exports.export(arguments.model, arguments.version, operator, worker, arguments.out)
    if record.alarm:
        print(f"sluice: {record.actor} is near the day's budget of bytes; this is on record", file=sys.stderr)
    terminal.table("", ("to", "bytes", "alarm"), [(record.to, record.count, record.alarm)], as_json=arguments.json)
    return 0
