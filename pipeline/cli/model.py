"""``sluice model``: sign, keep, verify, roll out and hand on the models that are served."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from inference.registry.encrypted import source_of
from inference.registry.keys import ECDSA, MANIFEST_ALGORITHMS, SigningKey, read_signing_keys, write_private
from inference.registry.listing import Broken, Held
from inference.registry.manifest import ModelManifest, Parent
from inference.registry.opening import Freshness, OpenModel, open_model, read_manifest
from inference.registry.refusal import ModelRefused
from inference.registry.release import SHIPPED, sign_folder
from inference.registry.rollout import WHOLE, shares_of
from inference.registry.source import PlainFolder
from inference.registry.wrapping import Recipient, TenantRecipient, Worker, WorkerAddress, create_worker
from pipeline import terminal, wiring
from pipeline.cli.arguments import whole
from pipeline.config import Settings
from pipeline.errors import ConfigError, Retryable
from pipeline.keys.vault import FileKeyring

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
exit codes: 0 done   1 verify found something   2 refused, or wrong usage; the text says what to do
"""
_DAY_S = 86_400
_RECORDED = frozenset({"add", "roll", "rollback", "revoke", "export"})
Act = Callable[[argparse.Namespace, Settings], int]


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "model",
        help="sign, verify, keep and roll out models",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_subparsers(metavar="ACT", required=True)
    verify = _command(group, "verify", "exit 1 where a model is not what was signed, with what differs", _verify)
    verify.add_argument("what", nargs="?", default="", help="a folder, or a model of the registry; else what ships")
    verify.add_argument("--version", type=int, default=0, help="of the registry; else all")
    _command(group, "list", "versions in the registry with their shares", _list).add_argument("model", nargs="?")
    _versioned(_command(group, "show", "one version: files, digests, lineage", _show))
    _command(group, "log", "every attempt on record; exit 2 where the record was changed", _log)
    adding = _command(group, "add", "verify a signed folder, or an export, and keep it encrypted", _add)
    adding.add_argument("folder", type=Path)
    adding.add_argument("--tenant", action="append", default=[], help="may open it too; give it once for each")
    rolling = _command(group, "roll", "give versions their shares of traffic in percent", _roll)
    rolling.add_argument("model")
    rolling.add_argument("shares", nargs="+", metavar="VERSION=PERCENT", help="100 in all, two decimals at most")
    _command(group, "rollback", "back to the shares before the last roll-out", _rollback).add_argument("model")
    revoking = _versioned(_command(group, "revoke", "never serve a version again; signs the list anew", _revoke))
    revoking.add_argument("--reason", required=True)
    revoking.add_argument("--keys", type=Path, required=True, help="private keys of models.trust")
    leaving = _versioned(_command(group, "export", "ciphertext for one worker, by role and daily bytes", _export))
    leaving.add_argument("--to", type=Path, required=True, help="the worker's public key")
    leaving.add_argument("--out", type=Path, required=True, help="folder to make")
    _signing(group)


def _signing(group: Any) -> None:
    keys = _command(group, "keygen", "make keys: private at FILE (mode 0600), public beside it", _keygen)
    keys.add_argument("file", type=Path)
    keys.add_argument("--worker", action="store_true", help="a key that opens exports, not one that signs")
    signing = _command(group, "sign", "sign what lies in a folder as one version", _sign)
    signing.add_argument("folder", type=Path)
    signing.add_argument("--model", required=True, help="id")
    signing.add_argument("--version", type=int, required=True, help="higher than the one before")
    signing.add_argument("--licence", required=True, help="SPDX expression")
    signing.add_argument("--keys", type=Path, required=True, help="private keys, as keygen writes them")
    signing.add_argument("--days", type=whole(1, 36_500), default=730, help="until the signature expires")
    signing.add_argument("--base", type=Path, help="signed folder that an adapter belongs to")


def _command(group: Any, name: str, meaning: str, act: Act) -> argparse.ArgumentParser:
    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        try:
            return act(arguments, settings)
        except ModelRefused as refusal:
            raise ConfigError(str(refusal)) from refusal
        except OSError as error:
            raise ConfigError(f"{error.filename or name}: {error.strerror}") from error
        finally:
            if name in _RECORDED:
                _tell(settings)

    parser: argparse.ArgumentParser = group.add_parser(name, help=meaning, description=f"{meaning}.")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(act=run)
    return parser


def _tell(settings: Settings) -> None:
    """Put the act into the log now; the worker beside the registry does it else."""
    try:
        asyncio.run(wiring.forward_model_acts(settings))
    except (Retryable, ConfigError, ModelRefused, OSError):
        print("sluice: on record in models.home; no broker took it into the topic access yet", file=sys.stderr)


def _versioned(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("model")
    parser.add_argument("version", type=int)
    return parser


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    rows, faults = [], 0
    for name, opening in _openings(arguments, settings):
        try:
            with opening() as opened:
                manifest = opened.manifest
                rows.append((name, manifest.model, manifest.version, len(manifest.files), manifest.size, "verified"))
        except ModelRefused as refusal:
            faults += 1
            rows.append((name, "", 0, 0, 0, f"{refusal.code}: {refusal}"))
    columns = ("what", "model", "version", "files", "bytes", "found")
    terminal.table("", columns, rows, as_json=arguments.json)
    return 1 if faults else 0


def _openings(arguments: argparse.Namespace, settings: Settings) -> list[tuple[str, Callable[[], OpenModel]]]:
    folder = Path(arguments.what) if arguments.what else SHIPPED
    if not arguments.what or folder.is_dir():
        trust = wiring.model_trust(settings)
        # no registry is made for a look at a folder, but what one has revoked is revoked here too
        known = settings.models.home.is_dir()
        freshness = wiring.models(settings).freshness(floors=False) if known else Freshness(int(time.time()))
        source = source_of(folder, lambda: Worker.read(settings.keys.worker_key))
        return [(str(folder), lambda: open_model(source, trust, freshness, sha256=True))]
    registry = wiring.models(settings)
    versions = [arguments.version] if arguments.version else registry.versions(arguments.what)
    if not versions:
        raise ModelRefused(
            "unknown", f"{arguments.what}: neither a folder nor a model of the registry: sluice model list"
        )

    operator = TenantRecipient(FileKeyring(settings.keys.keyring))

    def opening(version: int) -> Callable[[], OpenModel]:
        return lambda: registry.open(arguments.what, version, operator, "verify")

    return [(f"{arguments.what}@{version}", opening(version)) for version in versions]


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    held = wiring.models(settings).held(arguments.model or "")
    if arguments.model and not held:
        raise ModelRefused("unknown", f"{arguments.model}: no version of it here; see: sluice model list")
    columns = ("model", "version", "kind", "bytes", "percent", "status")
    terminal.table("models", columns, [_row(one) for one in held], as_json=arguments.json)
    return 0


def _row(held: Held | Broken) -> tuple[str | int | float, ...]:
    if isinstance(held, Broken):
        return held.model, held.version, "", 0, 0.0, f"{held.why.code}: {held.why}"
    manifest = held.manifest
    return manifest.model, manifest.version, manifest.kind, manifest.size, held.share * 100 / WHOLE, held.status


def _show(arguments: argparse.Namespace, settings: Settings) -> int:
    held = wiring.models(settings).one(arguments.model, arguments.version)
    if arguments.json:
        terminal.document(_document(held))
        return 0
    for name, value in _document(held).items():
        if name != "files":
            print(f"{name:10} {value}")
    rows = [(entry.path, entry.size, entry.blake3) for entry in held.manifest.files]
    terminal.table("", ("file", "bytes", "blake3"), rows)
    return 0


def _document(held: Held) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(held.manifest)
    document |= {"manifest": held.digest, "percent": held.share * 100 / WHOLE, "status": held.status}
    return document


def _log(arguments: argparse.Namespace, settings: Settings) -> int:
    events = [msgspec.to_builtins(event) for event in wiring.models(settings).events()]
    columns = ("time", "actor", "act", "outcome", "model", "version", "to", "count", "alarm", "reason")
    terminal.table("record", columns, [[e[name] for name in columns] for e in events], as_json=arguments.json)
    return 0


def _add(arguments: argparse.Namespace, settings: Settings) -> int:
    kms, worker = FileKeyring.create(settings.keys.keyring), create_worker(settings.keys.worker_key)
    recipients: list[Recipient] = [
        TenantRecipient(kms),
        worker.address,
        *(TenantRecipient(kms, tenant) for tenant in arguments.tenant),
    ]
    return _told(wiring.models(settings).add(arguments.folder, recipients, worker), arguments)


def _told(manifest: ModelManifest, arguments: argparse.Namespace) -> int:
    row = (manifest.model, manifest.version, len(manifest.files), manifest.size)
    terminal.table("", ("model", "version", "files", "bytes"), [row], as_json=arguments.json)
    return 0


def _roll(arguments: argparse.Namespace, settings: Settings) -> int:
    wiring.models(settings).roll(arguments.model, shares_of(map(_share, arguments.shares)))
    return _list(arguments, settings)


def _share(text: str) -> tuple[int, int]:
    version, _, percent = text.partition("=")
    try:
        points = Decimal(percent) * 100
        if not version.isdecimal() or points != int(points):
            raise ValueError
        return int(version), int(points)
    except (ValueError, InvalidOperation, OverflowError):
        raise ModelRefused("rollout", f"{text!r}: expected VERSION=PERCENT such as 2=12.5") from None


def _rollback(arguments: argparse.Namespace, settings: Settings) -> int:
    wiring.models(settings).rollback(arguments.model)
    return _list(arguments, settings)


def _revoke(arguments: argparse.Namespace, settings: Settings) -> int:
    keys = [key for key in read_signing_keys(arguments.keys) if key.public.algorithm != ECDSA]
    registry = wiring.models(settings)
    listed = registry.revoke(arguments.model, arguments.version, arguments.reason, keys)
    if not registry.shares(arguments.model):
        print(f"sluice: no version of {arguments.model} has traffic; if it is served, roll one out", file=sys.stderr)
    rows = [(entry.model, entry.version, entry.reason) for entry in listed.revoked]
    terminal.table(f"revoked, list {listed.sequence}", ("model", "version", "reason"), rows, as_json=arguments.json)
    return 0


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    operator, worker = TenantRecipient(FileKeyring(settings.keys.keyring)), WorkerAddress.read(arguments.to)
    record = wiring.models(settings).export(arguments.model, arguments.version, operator, worker, arguments.out)
    if record.alarm:
        print(f"sluice: {record.actor} is near the day's budget of bytes; this is on record", file=sys.stderr)
    terminal.table("", ("to", "bytes", "alarm"), [(record.to, record.count, record.alarm)], as_json=arguments.json)
    return 0


def _keygen(arguments: argparse.Namespace, settings: Settings) -> int:
    path: Path = arguments.file
    if arguments.worker:
        worker = Worker.generate()
        worker.write(path)
        rows = [(worker.name, str(path), f"{path}.pub")]
    else:
        keys = [SigningKey.generate(name) for name in (*MANIFEST_ALGORITHMS, ECDSA)]
        write_private(path, b"".join(key.pem() for key in keys))
        path.with_name(f"{path.name}.pub").write_bytes(b"".join(key.public.pem for key in keys[:-1]))
        path.with_name(f"{path.name}.oms.pub").write_bytes(keys[-1].public.pem)
        rows = [(k.public.algorithm, str(path), f"{path}{'.oms' if k is keys[-1] else ''}.pub") for k in keys]
    terminal.table("keep the private file from everybody", ("key", "private", "public"), rows, as_json=arguments.json)
    return 0


def _sign(arguments: argparse.Namespace, settings: Settings) -> int:
    issued = int(time.time())
    parent = None
    if arguments.base is not None:
        manifest, digest = read_manifest(PlainFolder(arguments.base), wiring.model_trust(settings))
        parent = Parent(manifest.model, manifest.version, digest)
    signed = sign_folder(
        arguments.folder,
        read_signing_keys(arguments.keys),
        model=arguments.model,
        version=arguments.version,
        licence=arguments.licence,
        issued=issued,
        expires=issued + arguments.days * _DAY_S,
        kind="adapter" if parent else "base",
        parent=parent,
    )
    return _told(signed, arguments)
