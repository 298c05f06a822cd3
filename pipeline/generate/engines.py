"""Engines of the generate stage, and the registry that their weights come from.

A model is served only from bytes whose signature held: the shipped one, a signed folder, or a version of the registry.
"""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from pathlib import Path

from inference.engines.adapter_versions import Adapters
from inference.engines.versions import VersionedEngine
from inference.registry.dsse import Trust
from inference.registry.install import install
from inference.registry.keys import read_verifying_keys
from inference.registry.opening import OpenModel
from inference.registry.refusal import ModelRefused
from inference.registry.release import RELEASE_KEYS, SHIPPED
from inference.registry.store import ModelRegistry
from inference.registry.traffic import WHOLE
from inference.registry.wrapping import Recipient, TenantRecipient, create_worker
from inference.types import GenerationRequest, InferenceEngine
from inference.watermark.secrets import Secrets, create_master, read_secrets
from pipeline.clock import now_ms
from pipeline.config import Generate, Keys, Models
from pipeline.errors import ConfigError, Malformed
from pipeline.keys.vault import FileKeyring, open_kms
from pipeline.sections import read_secret

_FROM_REGISTRY = "registry:"


def model_trust(models: Models) -> Trust:
    """The keys whose signatures count. Raises ConfigError."""
    try:
        return Trust(read_verifying_keys(Path(models.trust or RELEASE_KEYS)), models.require.split(","))
    except ModelRefused as error:
        raise ConfigError(f"models.trust: {error}") from error


def model_registry(models: Models, actor: str = "") -> ModelRegistry:
    """The registry of a deployment, its folder made where there is none. Raises ConfigError."""
    try:
        return ModelRegistry(models.home, model_trust(models), actor=actor or _account(), clock=now_ms)
    except OSError as error:
        raise ConfigError(f"models.home {models.home}: {error.strerror}; name a folder that can be written") from error


def make_engine(generate: Generate, models: Models, keys: Keys) -> InferenceEngine:
    """The engine that ``generate.model`` names, here or at ``generate.upstream``. Raises ConfigError."""
    if generate.upstream:
        return _remote_engine(generate, keys)
    if generate.model == "echo":
        from inference.engines.echo import EchoEngine

        return EchoEngine(delay=generate.echo_delay_ms / 1000)
    try:
        if generate.model == "glossary" or generate.model.startswith(_FROM_REGISTRY):
            return _registry_engine(generate, models, keys)
        if generate.allow_unsigned and Path(generate.model).is_dir():
            return _torch_engine(Path(generate.model), generate, keys)
        with model_registry(models, "generate").open_folder(Path(generate.model)) as model:
            return _torch_engine(model.folder, generate, keys)
    except (ValueError, OSError) as error:
        raise ConfigError(f"generate.model {generate.model}: {error}") from error


def adapter_loader(engine: InferenceEngine) -> Callable[[GenerationRequest], Awaitable[GenerationRequest]] | None:
    """A function that loads a request's adapter into ``engine`` and raises Malformed; None where it takes none."""
    if not isinstance(engine, VersionedEngine):
        return None

    async def with_adapter(request: GenerationRequest) -> GenerationRequest:
        try:
            return await engine.with_adapter(request)
        except ModelRefused as fault:
            raise Malformed(str(fault)) from fault

    return with_adapter


async def follow(engine: InferenceEngine, stop: asyncio.Event) -> None:
    """Keep an engine of several versions at the shares in force, until ``stop``."""
    if isinstance(engine, VersionedEngine):
        await engine.follow(stop)


def _remote_engine(generate: Generate, keys: Keys) -> InferenceEngine:
    from inference.remote.engine import RemoteEngine

    return RemoteEngine(
        generate.upstream,
        generate.model,
        # of the deployment, not of this process: all workers of a tenant find the same prefixes
        salt_key=_secrets(generate, keys).salt,
        key=read_secret("generate.upstream_key_file", file, "key") if (file := generate.upstream_key_file) else "",
        max_context=generate.upstream_context,
    )


def make_trace(generate: Generate, keys: Keys) -> Callable[[str], bytes] | None:
    """A function that makes the fingerprints of an answer; None where none are kept. Raises ConfigError."""
    if not generate.fingerprints:
        return None
    from inference.watermark.winnow import Winnower

    return Winnower(_secrets(generate, keys).index).packed


def _torch_engine(folder: Path, generate: Generate, keys: Keys) -> InferenceEngine:
    from inference.engines.torch import TorchEngine, TorchOptions
    from inference.watermark.marking import MarkPolicy, TenantMarker

    marker = None
    if generate.watermark:
        spared = frozenset(generate.unmarked.replace(" ", "").split(","))
        marker = TenantMarker(
            _secrets(generate, keys).mark, lambda tenant: MarkPolicy(opted_out=tenant in spared), now_ms
        )
    return TorchEngine(
        folder, TorchOptions(max_batch=generate.batch, threads=generate.threads, device=generate.device, marker=marker)
    )


def _secrets(generate: Generate, keys: Keys) -> Secrets:
    try:
        if not keys.watermark_key.exists():
            create_master(keys.watermark_key)
        secrets = read_secrets(keys.watermark_key)
        if secrets.tenant not in ("", generate.pool):
            raise ValueError(f"{keys.watermark_key}: granted to tenant {secrets.tenant}; run with --pool of that name")
        return secrets
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(
            f"{keys.watermark_key}: {error.strerror}; run: sluice topics apply, or set generate.watermark and "
            "generate.fingerprints to false"
        ) from error


def _registry_engine(generate: Generate, models: Models, keys: Keys) -> VersionedEngine:
    """The engine that ``registry:MODEL`` or ``registry:MODEL@VERSION`` names, decrypted with this worker's own key.

    The model that ships is put into the registry first; a process that has the keyring lets its worker in.
    """
    actor = f"generate.{generate.pool}" if generate.pool else "generate"
    registry, worker = model_registry(models, actor), create_worker(keys.worker_key)
    # a new embedded deployment starts this stage before anything else has made its keys
    kms = open_kms(keys.keyring) if keys.keyring.exists() else FileKeyring.create(keys.keyring)
    operator = TenantRecipient(kms) if isinstance(kms, FileKeyring) else None
    name, _, version = generate.model.removeprefix(_FROM_REGISTRY).partition("@")
    if generate.model == "glossary":
        to: list[Recipient] = [worker.address] if operator is None else [operator, worker.address]
        name = install(registry, model_trust(models), SHIPPED, to)
    if version and not version.isdecimal():
        raise ModelRefused("unknown", "expected registry:MODEL or registry:MODEL@VERSION; see: sluice model list")

    def opened(model: str, number: int) -> OpenModel:
        if operator is not None:
            registry.exports.grant(model, number, operator, worker.address)
        return registry.open(model, number, worker)

    def load(number: int) -> InferenceEngine:
        with opened(name, number) as model:
            return _torch_engine(model.folder, generate, keys)

    def digest(model: str, number: int) -> str:
        return registry.version(model, number).digest

    adapters = Adapters(opened, registry.rollouts.shares, digest)
    # a version that is named outright gets all traffic, until it is revoked
    shares = (lambda: {int(version): WHOLE}) if version else (lambda: registry.rollouts.shares(name))
    return VersionedEngine(name, load, shares, adapters, lambda: registry.rollouts.revoked(name))


def _account() -> str:
    """The account this process runs under: what the record names, and no argument can claim."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid-{os.geteuid()}"
