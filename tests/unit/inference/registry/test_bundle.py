"""Keys in files, and the bundle for outside tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.registry.content import BUNDLE_FILE
from inference.registry.keys import (
    ECDSA,
    MANIFEST_ALGORITHMS,
    SigningKey,
    read_signing_keys,
    read_verifying_keys,
    write_private,
)
from inference.registry.refusal import ModelRefused

Release = Callable[..., Path]


def test_keys_come_back_from_their_files(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    write_private(tmp_path / "k.pem", b"".join(key.pem() for key in keys.values()))
    (tmp_path / "k.pub").write_bytes(b"".join(key.public.pem for key in keys.values()))
    public = {key.algorithm: key for key in read_verifying_keys(tmp_path / "k.pub")}
    assert set(public) == {*MANIFEST_ALGORITHMS, ECDSA}
    for key in read_signing_keys(tmp_path / "k.pem"):
        signature = key.sign(b"message")
        assert public[key.public.algorithm].verifies(signature, b"message")
        assert not public[key.public.algorithm].verifies(signature, b"another")
        assert not public[key.public.algorithm].verifies(signature[:-1], b"message")
    with pytest.raises(ModelRefused, match="never overwritten"):
        write_private(tmp_path / "k.pem", b"")
    (tmp_path / "k.pem").chmod(0o640)
    with pytest.raises(ModelRefused, match="chmod 600"):
        read_signing_keys(tmp_path / "k.pem")


@pytest.mark.parametrize("raw", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"x" * 70_000])
def test_other_files_are_no_keys(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "k").write_bytes(raw)
    with pytest.raises(ModelRefused) as refusal:
        read_verifying_keys(tmp_path / "k")
    assert refusal.value.code == "key"


def test_the_openssf_tool_accepts_the_bundle_and_refuses_a_flipped_bit(
    release: Release, keys: dict[str, SigningKey], tmp_path: Path
) -> None:
    verifying = pytest.importorskip("model_signing.verifying", reason="model-signing is not installed")
    folder = release()
    (tmp_path / "oms.pub").write_bytes(keys[ECDSA].public.pem)

    def verify() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "oms.pub")
        config.verify(folder, folder / BUNDLE_FILE)

    verify()
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes()[:-1] + b" ")
    with pytest.raises(ValueError, match=r"config\.json"):
        verify()
