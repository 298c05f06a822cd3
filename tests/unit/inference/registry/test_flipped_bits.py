"""One bit of any file, plain or at rest: refused as the project refuses, or without effect; never another fault."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.registry.content import BUNDLE_FILE, MANIFEST_FILE
from inference.registry.dsse import Trust
from inference.registry.encrypted import ENVELOPE_FILE, EncryptedFolder
from inference.registry.opening import Freshness, open_model
from inference.registry.refusal import ModelRefused
from inference.registry.source import ModelSource, PlainFolder
from inference.registry.store import ModelRegistry
from inference.registry.wrapping import Worker
from tests.unit.inference.registry.registry_site import NOW_MS, WEIGHTS

Release = Callable[..., Path]
FRESH = Freshness(NOW_MS // 1000)
WHERE = st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 1e-4))
"""Of a file's length; beginnings hold headers."""


@pytest.fixture(params=["plain", "at rest"])
def kept(
    request: pytest.FixtureRequest, release: Release, registry: ModelRegistry
) -> tuple[Path, Callable[[Path], ModelSource]]:
    """A model's folder, and how it is read."""
    folder = release()
    if request.param == "plain":
        return folder, PlainFolder
    worker = Worker.generate()
    registry.add(folder, [worker.address])
    return registry.home / "models" / "tiny" / "1", lambda place: EncryptedFolder(place, worker)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_refused_or_without_effect(
    kept: tuple[Path, Callable[[Path], ModelSource]], trust: Trust, tmp_path: Path, data: st.DataObject
) -> None:
    folder, source = kept
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[int(data.draw(WHERE) * len(raw))] ^= 1 << data.draw(st.integers(0, 7))
    (copy / name).write_bytes(raw)
    with contextlib.suppress(ModelRefused), open_model(source(copy), trust, FRESH, sha256=True) as opened:
        with open_model(source(folder), trust, FRESH) as whole:
            assert opened.digest == whole.digest
            assert opened.file(WEIGHTS).read() == whole.file(WEIGHTS).read()
        # blanks of the envelopes, names of other signers or recipients, and what is for outside tools
        assert name in (MANIFEST_FILE, ENVELOPE_FILE, BUNDLE_FILE)


@pytest.mark.parametrize("name", ["state.json", "revocations.json", "events.jsonl"])
def test_a_registry_whose_own_files_are_no_text_says_which(
    registry: ModelRegistry, release: Release, name: str
) -> None:
    registry.add(release(), [Worker.generate().address])
    path = registry.home / name
    before = path.read_bytes() if path.exists() else b"{}"
    path.write_bytes(b'{"type": "\xe6"' + before[1:])
    told = name if name != "revocations.json" else "envelope"
    with pytest.raises(ModelRefused, match=told):
        (registry.events if name == "events.jsonl" else registry.list_versions)()
