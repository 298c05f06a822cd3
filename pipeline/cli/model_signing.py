"""``sluice model keygen|sign|verify``: the keys and signatures of models."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.registry.encrypted import source_of
from inference.registry.keys import ECDSA, MANIFEST_ALGORITHMS, SigningKey, read_signing_keys, write_private
from inference.registry.manifest import ModelManifest, Parent
from inference.registry.opening import Freshness, OpenModel, open_model, read_manifest
from inference.registry.refusal import ModelRefused
from inference.registry.release import SHIPPED, ReleaseTerms, sign_folder
from inference.registry.source import PlainFolder
from inference.registry.wrapping import TenantRecipient, Worker
from pipeline import terminal, wiring
from pipeline.cli.arguments import Act, add_command, whole
from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.keys.vault import FileKeyring

_DAY_S = 86_400


def add(model: Any, refusing: Callable[[Act], Act]) -> None:
    """Add the commands; ``refusing`` makes the registry's refusals wrong usage."""
    verified = add_command(
        model,
        "verify",
        "compare models with what was signed",
        refusing(_verify),
        "Exit 1 where one differs, with what differs.",
    )
    verified.add_argument(
        "what", nargs="?", default="", help="folder, or id of a model in the registry (default: the model that ships)"
    )
    verified.add_argument("--version", type=int, default=0, help="version in the registry (default: all)")
    made = add_command(model, "keygen", "make keys: private at FILE (mode 0600), public beside it", refusing(_keygen))
    made.add_argument("file", type=Path, metavar="FILE", help="file to write the private keys to")
    made.add_argument("--worker", action="store_true", help="make a key that opens exports, not one that signs")
    signed = add_command(model, "sign", "sign what lies in a folder as one version", refusing(_sign))
    signed.add_argument("folder", type=Path, help="folder of safetensors, JSON and text")
    signed.add_argument("--model", required=True, help="id of the model")
    signed.add_argument("--version", type=int, required=True, help="number of the version, higher than the one before")
    signed.add_argument("--licence", required=True, help="SPDX expression")
    signed.add_argument("--keys", type=Path, required=True, help="file of private keys, as keygen writes it")
    signed.add_argument(
        "--days", type=whole(1, 36_500), metavar="N", default=730, help="days until the signature expires (default 730)"
    )
    signed.add_argument("--base", type=Path, help="signed folder that an adapter belongs to")


def print_manifest(manifest: ModelManifest, arguments: argparse.Namespace) -> int:
    """Print one version in a line and give exit code 0."""
    row = (manifest.model, manifest.version, len(manifest.files), manifest.size)
    terminal.table("", ("model", "version", "files", "bytes"), [row], as_json=arguments.json)
    return 0


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    rows = []
    faults = 0
    for name, open_it in _models_to_open(arguments, settings):
        try:
            with open_it() as opened:
                manifest = opened.manifest
                rows.append((name, manifest.model, manifest.version, len(manifest.files), manifest.size, "verified"))
        except ModelRefused as refusal:
            faults += 1
            rows.append((name, "", 0, 0, 0, f"{refusal.code}: {refusal}"))
    columns = ("what", "model", "version", "files", "bytes", "found")
    terminal.table("", columns, rows, as_json=arguments.json)
    return 1 if faults else 0


def _models_to_open(arguments: argparse.Namespace, settings: Settings) -> list[tuple[str, Callable[[], OpenModel]]]:
    folder = Path(arguments.what) if arguments.what else SHIPPED
    if not arguments.what or folder.is_dir():
        trust = wiring.model_trust(settings)
        # no registry is made for a look at a folder, but what one has revoked is revoked here too
        known = settings.models.home.is_dir()
        freshness = wiring.models(settings).freshness(floors=False) if known else Freshness(now_ms() // 1000)
        source = source_of(folder, lambda: Worker.read(settings.keys.worker_key))
        return [(str(folder), lambda: open_model(source, trust, freshness, sha256=True))]
    registry = wiring.models(settings)
    versions = [arguments.version] if arguments.version else registry.versions(arguments.what)
    if not versions:
        raise ModelRefused(
            "unknown", f"{arguments.what}: neither a folder nor a model of the registry: sluice model list"
        )
    operator = TenantRecipient(FileKeyring(settings.keys.keyring))

    def opener(version: int) -> Callable[[], OpenModel]:
        return lambda: registry.open(arguments.what, version, operator, "verify")

    return [(f"{arguments.what}@{version}", opener(version)) for version in versions]


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
    issued = now_ms() // 1000
    parent = None
    if arguments.base is not None:
        manifest, digest = read_manifest(PlainFolder(arguments.base), wiring.model_trust(settings))
        parent = Parent(manifest.model, manifest.version, digest)
    signed = sign_folder(
        arguments.folder,
        read_signing_keys(arguments.keys),
        ReleaseTerms(
            model=arguments.model,
            version=arguments.version,
            licence=arguments.licence,
            issued=issued,
            expires=issued + arguments.days * _DAY_S,
            kind="adapter" if parent else "base",
            parent=parent,
        ),
    )
    return print_manifest(signed, arguments)
