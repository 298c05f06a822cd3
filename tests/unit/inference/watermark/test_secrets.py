"""What one tenant's own worker holds marks that tenant's text as the operator expects it, and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.watermark.secrets import SECRET_BYTES, grant, of_master, read_master, read_secrets
from pipeline.config import Generate, Keys
from pipeline.errors import ConfigError
from pipeline.generate.engines import make_trace

MASTER = bytes(range(SECRET_BYTES))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(home=tmp_path)
    made.watermark_key.write_bytes(grant(MASTER, "acme"))
    made.watermark_key.chmod(0o640)
    return made


def test_a_grant_is_the_operators_own_for_that_tenant_alone(keys: Keys) -> None:
    operator, granted = of_master(MASTER), read_secrets(keys.watermark_key)
    assert granted.tenant == "acme"
    assert granted.mark("acme") == operator.mark("acme") != operator.mark("beta")
    assert granted.index == operator.index, "copies are looked for across tenants"
    assert granted.salt != operator.salt, "with that key another tenant's cache could be asked for"
    with pytest.raises(ValueError, match="not granted"):
        granted.mark("beta")


def test_a_grant_neither_holds_the_master_nor_passes_for_it(keys: Keys) -> None:
    raw = keys.watermark_key.read_bytes()
    assert MASTER not in raw
    with pytest.raises(ValueError, match="expected 32 bytes"):
        read_master(keys.watermark_key)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", os.urandom(33), grant(MASTER, "acme")[:-9], b"x" * 5000],
    ids=["empty", "document", "noise", "cut", "long"],
)
def test_other_bytes_are_refused_and_not_quoted(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "watermark.key"
    path.write_bytes(raw)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="sluice deploy grant") as told:
        read_secrets(path)
    assert len(str(told.value)) < 300


def test_a_granted_worker_serves_its_tenant_alone(keys: Keys) -> None:
    assert make_trace(Generate(pool="acme"), keys) is not None
    for pool in ("", "beta"):
        with pytest.raises(ConfigError, match="granted to tenant acme"):
            make_trace(Generate(pool=pool), keys)


def test_one_tenants_secret_tells_nothing_of_anothers() -> None:
    made = [of_master(master).mark(tenant) for master in (MASTER, MASTER[::-1]) for tenant in ("a", "b", "ab", "")]
    assert len(set(made)) == len(made)
    with pytest.raises(ValueError, match="expected 32 bytes"):
        of_master(b"short")
