"""The keys of one tenant's own workers: its text keys, its secrets of traces, a worker's key of their own."""

from __future__ import annotations

import os
from pathlib import Path

from inference.registry.refusal import ModelRefused
from inference.registry.wrapping import create_worker
from inference.watermark.secrets import grant, read_master
from pipeline.config import Keys
from pipeline.errors import ConfigError
from pipeline.events.control import Tenant
from pipeline.keys.vault import FileKeyring, GrantedKeys, usable


def write_grant(keys: Keys, tenant: Tenant, out: Path) -> None:
    """Make or renew the keys in ``out``, readable by its owner and its owner's group. Raises ConfigError."""
    granted = Keys(home=out)
    kms = FileKeyring(keys.keyring)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o750)
        GrantedKeys.write(granted.keyring, kms, granted_secrets(tenant))
        _replace(granted.pin_file, keys.pin.encode())
        _replace(granted.watermark_key, grant(read_master(keys.watermark_key), tenant.id))
        create_worker(granted.worker_key)
        granted.worker_key.chmod(0o640)
    except (OSError, ValueError, ModelRefused) as error:
        raise ConfigError(f"keys of {tenant.id} into {out}: {error}") from error


def granted_secrets(tenant: Tenant) -> dict[str, tuple[str, ...]]:
    """Give the wrapped secrets that a tenant's own workers open, by their context."""
    return {
        f"data/{tenant.id}": usable(tenant.data_key, tenant.next_data_key, tenant.former_data_keys),
        f"hpke/{tenant.id}": usable(tenant.hpke_private, tenant.next_hpke_private, tenant.former_hpke_keys),
    }


def _replace(path: Path, raw: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as file:
        os.fchmod(file.fileno(), 0o640)
        file.write(raw)
