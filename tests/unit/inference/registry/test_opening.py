"""A signed folder opens; whatever was done to it shows."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

from inference.registry.content import MANIFEST_FILE
from inference.registry.dsse import Trust, sign
from inference.registry.keys import ED25519, ML_DSA, RSA_PSS, SigningKey
from inference.registry.manifest import PAYLOAD_TYPE, FileEntry, ModelManifest, encode_manifest
from inference.registry.opening import Freshness, OpenModel, open_model
from inference.registry.refusal import ModelRefused
from inference.registry.release import ReleaseTerms, sign_folder
from inference.registry.source import PlainFolder
from tests.unit.inference.registry.registry_site import NOW_MS, WEIGHTS, make_model

Release = Callable[..., Path]
FRESH = Freshness(NOW_MS // 1000)


def opened(folder: Path, trust: Trust, freshness: Freshness = FRESH) -> OpenModel:
    return open_model(PlainFolder(folder), trust, freshness, sha256=True)


def test_what_was_signed_is_what_is_loaded_also_when_the_folder_changes_afterwards(
    release: Release, trust: Trust
) -> None:
    folder = release()
    before = (folder / WEIGHTS).read_bytes()
    with opened(folder, trust) as model:
        (folder / WEIGHTS).write_bytes(b"swapped")
        assert model.folder.name == "tiny"
        assert sorted(entry.name for entry in model.folder.iterdir()) == ["config.json", WEIGHTS, "tokenizer.json"]
        assert model.file(WEIGHTS).read() == before
        loaded = load_file(model.folder / WEIGHTS)
        assert all((loaded[name] == array).all() for name, array in load(before).items())
        assert model.manifest.size == sum(entry.size for entry in model.manifest.files)
        view = model.folder
        with pytest.raises(PermissionError):
            os.pwrite(os.open(view / WEIGHTS, os.O_RDWR), b"x", 0)
    assert not view.exists()


def _flip(folder: Path) -> None:
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS).write_bytes(raw)


def _replace_with_link(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    shutil.move(folder / "config.json", outside)
    (folder / "config.json").symlink_to(outside)


def _replace_with_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def _edit_payload(folder: Path) -> None:
    envelope = json.loads((folder / MANIFEST_FILE).read_text())
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]
    (folder / MANIFEST_FILE).write_text(json.dumps(envelope))


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (_flip, "altered"),
    (lambda folder: (folder / WEIGHTS).open("ab").write(b"x"), "altered"),
    (lambda folder: os.truncate(folder / WEIGHTS, 1000), "altered"),
    (lambda folder: (folder / "more.json").write_text("{}"), "extra_file"),
    (lambda folder: (folder / "model-2.safetensors").write_bytes(b""), "extra_file"),
    (lambda folder: (folder / WEIGHTS).unlink(), "missing_file"),
    (_replace_with_link, "forbidden_file"),
    (_replace_with_pipe, "forbidden_file"),
    (lambda folder: (folder / ".git").mkdir(), "forbidden_file"),
    (lambda folder: (folder / MANIFEST_FILE).unlink(), "unsigned"),
    (_edit_payload, "signature"),
    (lambda folder: (folder / MANIFEST_FILE).write_text("[]"), "signature"),
    (lambda folder: (folder / MANIFEST_FILE).write_bytes(b" " * (5 << 20)), "content"),
]


@pytest.mark.parametrize(("damage", "code"), DAMAGE)
def test_a_damaged_folder_is_refused_and_told_why(
    release: Release, trust: Trust, damage: Callable[[Path], object], code: str
) -> None:
    folder = release()
    damage(folder)
    with pytest.raises(ModelRefused) as refusal:
        opened(folder, trust)
    assert refusal.value.code == code, str(refusal.value)


def weights(header: str, size: int) -> bytes:
    """A safetensors file with this header and ``size`` bytes of tensors."""
    return len(header).to_bytes(8, "little") + header.encode() + bytes(size)


OVERLAP = (
    '{"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}, '
    '"b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}}'
)
CONTENTS = [
    ({"pytorch_model__bin": pickle.dumps([1])}, "forbidden_file"),
    ({"modeling__py": b"import os"}, "forbidden_file"),
    ({"LICENSE__py": b"import os"}, "forbidden_file"),
    ({"weights__safetensors": pickle.dumps([1] * 100)}, "content"),
    ({"weights__safetensors": (2).to_bytes(8, "little") + b"{}" + b"tail"}, "content"),
    ({"weights__safetensors": weights('{"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}', 8)}, "content"),
    (
        {"weights__safetensors": weights('{"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}', 12)},
        "content",
    ),
    ({"weights__safetensors": weights('{"w": {"dtype": "X9", "shape": [8], "data_offsets": [0, 8]}}', 8)}, "content"),
    ({"weights__safetensors": weights(OVERLAP, 12)}, "content"),
    ({"weights__safetensors": weights('{"w": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}', 1)}, "content"),
    ({"weights__safetensors": weights('{"w": ' + "[" * 900 + "]" * 900 + "}", 0)}, "content"),
    ({"generation_config__json": b'{"a": [{"auto_map": {"AutoModel": "x--y.Z"}}]}'}, "remote_code"),
    ({"tokenizer_config__json": b'{"trust_remote_code": true}'}, "remote_code"),
    ({"model__safetensors__index__json": b'{"weight_map": {"w": "model-2.safetensors"}}'}, "missing_file"),
    ({"vocab__json": b"not json"}, "content"),
    ({"deep_config__json": b"[" * 900 + b"]" * 900}, "content"),
]


@pytest.mark.parametrize(("more", "code"), CONTENTS)
def test_what_can_run_or_is_not_whole_is_never_signed(
    tmp_path: Path, keys: dict[str, SigningKey], more: dict[str, bytes], code: str
) -> None:
    folder = make_model(tmp_path / "m", 1, more)
    with pytest.raises(ModelRefused) as refusal:
        sign_folder(folder, [keys[ED25519]], ReleaseTerms(model="m", version=1, licence="MIT", issued=1, expires=2))
    assert refusal.value.code == code, str(refusal.value)
    assert not (folder / MANIFEST_FILE).exists()


def test_a_signer_who_signs_what_is_forbidden_is_refused_too(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    folder = make_model(tmp_path / "m", 1, {"evil__bin": b"x"})
    entry = FileEntry("evil.bin", 1, "0" * 64, "0" * 64)
    manifest = ModelManifest("m", 1, "base", "MIT", 1, NOW_MS, (entry,))
    (folder / MANIFEST_FILE).write_bytes(sign(encode_manifest(manifest), PAYLOAD_TYPE, [keys[ED25519]]))
    with pytest.raises(ModelRefused) as refusal:
        opened(folder, Trust([keys[ED25519].public], [ED25519]))
    assert refusal.value.code == "forbidden_file"


@pytest.mark.parametrize("name", ["../x.json", "a/b.json", "/etc/x.json", "..", ".hidden.json", "a\n.json", ""])
def test_no_manifest_names_a_file_elsewhere(name: str) -> None:
    entry = FileEntry(name, 1, "0" * 64, "0" * 64)
    with pytest.raises(ModelRefused) as refusal:
        encode_manifest(ModelManifest("m", 1, "base", "MIT", 1, 2, (entry,)))
    assert refusal.value.code == "manifest"


@pytest.mark.parametrize(
    ("freshness", "code"),
    [
        (Freshness(NOW_MS), "expired"),
        (Freshness(NOW_MS // 1000, {"tiny": 3}), "rolled_back"),
        (Freshness(NOW_MS // 1000, {}, frozenset({("tiny", 2)})), "revoked"),
    ],
)
def test_an_old_version_is_refused(release: Release, trust: Trust, freshness: Freshness, code: str) -> None:
    folder = release(2)
    with pytest.raises(ModelRefused) as refusal:
        opened(folder, trust, freshness)
    assert refusal.value.code == code


@pytest.mark.parametrize("missing", [RSA_PSS, ED25519, ML_DSA])
def test_each_required_algorithm_must_have_signed(
    tmp_path: Path, keys: dict[str, SigningKey], trust: Trust, missing: str
) -> None:
    folder = make_model(tmp_path / "m", 1, {})
    signers = [key for name, key in keys.items() if name != missing]
    sign_folder(folder, signers, ReleaseTerms(model="m", version=1, licence="MIT", issued=1, expires=NOW_MS))
    with pytest.raises(ModelRefused, match=missing) as refusal:
        opened(folder, trust)
    assert refusal.value.code == "signature"
    others = [key.public for name, key in keys.items() if name in trust.required - {missing}]
    with opened(folder, Trust(others, trust.required - {missing})) as model:
        assert model.manifest.model == "m"


def test_a_stranger_s_signature_counts_for_nothing(release: Release, trust: Trust) -> None:
    strangers = [SigningKey.generate(name) for name in (ED25519, ML_DSA)]
    with pytest.raises(ModelRefused) as refusal:
        opened(release(), Trust([key.public for key in strangers], [ED25519, ML_DSA]))
    assert refusal.value.code == "signature"
    with pytest.raises(ModelRefused, match="no key of"):
        Trust([strangers[0].public], [ED25519, ML_DSA])
    with pytest.raises(ModelRefused):
        Trust([strangers[0].public], [])


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"nothing": np.zeros((0, 7), np.float32), "one": np.ones((), np.int64)},
        {kind: np.zeros((3, 2), kind) for kind in ("bool", "uint8", "int8", "float16", "int16", "int32", "float64")},
    ],
)
def test_weights_of_every_type_and_size_may_be_signed(
    tmp_path: Path, keys: dict[str, SigningKey], tensors: dict[str, np.ndarray]
) -> None:
    folder = make_model(tmp_path / "m", 1, {"more__safetensors": save(tensors, {"format": "pt"})})
    sign_folder(folder, [keys[ED25519]], ReleaseTerms(model="m", version=1, licence="MIT", issued=1, expires=2))
