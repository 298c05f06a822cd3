"""``sluice model`` from keys to export, the model that ships, and a generate stage that refuses another."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from inference.engines.echo import EchoEngine
from inference.engines.versions import VersionedEngine
from inference.registry.content import MANIFEST_FILE
from inference.registry.release import SHIPPED
from pipeline.cli import main
from pipeline.config import Generate, Keys, Models
from pipeline.errors import ConfigError
from pipeline.generate import engines
from pipeline.generate.engines import make_engine
from tests.unit.inference.registry.registry_site import WEIGHTS, make_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_MODELS__HOME", str(tmp_path / "models"))
    monkeypatch.setenv("SLUICE_KEYS__HOME", str(tmp_path / "keys"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main(["model", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_shipped_model_verifies_with_the_shipped_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = run(capsys, "verify")
    assert (found["model"], found["found"]) == ("glossary", "verified")
    assert not (home / "models").exists(), "a check of a folder leaves no trace"


def test_from_keys_to_export(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(capsys, "keygen", home / "k.pem")
    monkeypatch.setenv("SLUICE_MODELS__TRUST", str(home / "k.pem.pub"))
    for version in (1, 2):
        folder = make_model(home / f"m{version}", version, {})
        words = ("--model", "tiny", "--version", version, "--licence", "MIT", "--keys", home / "k.pem")
        run(capsys, "sign", folder, *words)
        run(capsys, "add", folder, "--tenant", "acme")
    run(capsys, "roll", "tiny", "1=100")
    shares = run(capsys, "roll", "tiny", "1=87.5", "2=12.5")
    assert [(row["version"], row["percent"]) for row in shares] == [(1, 87.5), (2, 12.5)]
    assert [row["found"] for row in run(capsys, "verify", "tiny")] == ["verified"] * 2
    assert run(capsys, "show", "tiny", 2)["licence"] == "MIT"
    run(capsys, "revoke", "tiny", 2, "--reason", "bad", "--keys", home / "k.pem")
    assert [row["status"] for row in run(capsys, "list")] == ["served", "revoked"]
    run(capsys, "rollback", "tiny")
    run(capsys, "keygen", home / "w.pem", "--worker")
    export = ["model", "export", "tiny", "1", "--to", str(home / "w.pem.pub"), "--out", str(home / "out")]
    assert main(export) == 2
    assert "model:export" in capsys.readouterr().err
    account = run(capsys, "log")[0]["actor"]
    access = f'[identity.{account}]\nroles = ["model:export"]\ndaily_bytes = 9_000_000\n'
    (home / "models" / "access.toml").write_text(access)
    assert main(export) == 0
    capsys.readouterr()
    assert (home / "out" / f"{WEIGHTS}.sealed").stat().st_size > 1_200_000
    record = run(capsys, "log")
    assert [event["outcome"] for event in record if event["act"] == "export"] == ["refused", "done"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["roll", "tiny", "1=a"], "2=12.5"),
        (["roll", "tiny", "1=12.345"], "2=12.5"),
        (["roll", "tiny", "1=NaN"], "2=12.5"),
        (["roll", "tiny", "1=10", "1=100"], "once"),
        (["list", "nosuch"], "sluice model list"),
        (["show", "tiny", "4"], "sluice model list"),
        (["verify", "nothing"], "neither a folder nor a model"),
        (["verify", "nothing", "--version", "1"], "keyring"),
        (["add", "nowhere"], "model folder"),
        (["revoke", "tiny", "1", "--reason", "x", "--keys", "nowhere"], "PEM"),
    ],
)
def test_what_does_not_work_says_why(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["model", *words]) == 2
    assert told in capsys.readouterr().err


def test_verify_names_the_damage_and_exits_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(SHIPPED, home / "glossary")
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xfe\xfd")
    assert main(["model", "verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "altered" in out
    assert WEIGHTS in out


def test_the_generate_stage_refuses_a_tampered_and_an_unsigned_folder(home: Path) -> None:
    models, keys = Models(home=home / "models"), Keys(home=home / "keys")
    folder = shutil.copytree(SHIPPED, home / "glossary")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("10000", "20000") + " ")
    with pytest.raises(ConfigError, match=r"config\.json: expected"):
        make_engine(Generate(model=str(folder)), models, keys)
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(ConfigError, match="expected a signed model"):
        make_engine(Generate(model=str(folder)), models, keys)
    with pytest.raises(ConfigError, match="registry:MODEL@VERSION"):
        make_engine(Generate(model="registry:glossary@one"), models, keys)
    with pytest.raises(ConfigError, match="sluice model roll"):
        make_engine(Generate(model="registry:glossary"), models, keys)


def test_the_generate_stage_serves_what_verifies(home: Path) -> None:
    engine = make_engine(Generate(batch=2), Models(home=home / "models"), Keys(home=home / "keys"))
    try:
        assert engine.models == ("glossary",)
    finally:
        asyncio.run(engine.close())
    assert '"floor":1' in (home / "models" / "state.json").read_text().replace(" ", "")


def signed(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: int = 1) -> Path:
    """A folder of a small model whose keys are the ones that are trusted."""
    if not (home / "k.pem").exists():
        run(capsys, "keygen", home / "k.pem")
    monkeypatch.setenv("SLUICE_MODELS__TRUST", str(home / "k.pem.pub"))
    folder = make_model(home / f"m{version}", version, {})
    words = ("--model", "tiny", "--version", version, "--licence", "MIT", "--keys", home / "k.pem")
    run(capsys, "sign", folder, *words)
    return folder


def test_a_folder_of_a_revoked_version_does_not_verify(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = signed(home, capsys, monkeypatch)
    assert run(capsys, "verify", folder)[0]["found"] == "verified"
    run(capsys, "revoke", "tiny", 1, "--reason", "bad", "--keys", home / "k.pem")
    assert main(["model", "verify", str(folder)]) == 1
    assert "revoked" in capsys.readouterr().out


def test_a_worker_of_one_version_serves_it_no_more_once_it_is_revoked(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "add", signed(home, capsys, monkeypatch))
    run(capsys, "roll", "tiny", "1=100")
    monkeypatch.setattr(engines, "_torch_engine", lambda *_: EchoEngine())
    models = Models(home=home / "models", trust=str(home / "k.pem.pub"))
    engine = make_engine(Generate(model="registry:tiny@1"), models, Keys(home=home / "keys"))
    assert isinstance(engine, VersionedEngine)

    async def scene() -> None:
        await engine.refresh()
        assert engine.versions == (1,)
        run(capsys, "revoke", "tiny", 1, "--reason", "bad", "--keys", home / "k.pem")
        await engine.refresh()
        assert not engine.versions
        await engine.close()

    # the command runs a loop of its own to tell a broker
    monkeypatch.setattr("pipeline.cli.model._forward", lambda _settings: None)
    asyncio.run(scene())


def test_a_list_tells_the_version_that_does_not_hold_beside_those_that_do(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        run(capsys, "add", signed(home, capsys, monkeypatch, version))
    (home / "models" / "models" / "tiny" / "1" / MANIFEST_FILE).write_text("{}")
    first, second = run(capsys, "list")
    assert first["status"].startswith("signature: ")
    assert (second["version"], second["status"]) == (2, "held")
    assert run(capsys, "show", "tiny", 2)["version"] == 2
    assert main(["model", "show", "tiny", "1"]) == 2


def test_an_export_is_verified_and_added_where_the_workers_key_is_and_nowhere_else(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "add", signed(home, capsys, monkeypatch))
    there = home / "there"
    run(capsys, "keygen", home / "worker.pem", "--worker")
    account = run(capsys, "log")[0]["actor"]
    access = f'[identity.{account}]\nroles = ["model:export"]\ndaily_bytes = 9_000_000\n'
    (home / "models" / "access.toml").write_text(access)
    run(capsys, "export", "tiny", 1, "--to", home / "worker.pem.pub", "--out", home / "out")
    # this place's own worker is not the one that it was exported for
    assert main(["model", "verify", str(home / "out")]) == 1
    assert "wrapped for" in capsys.readouterr().out
    monkeypatch.setenv("SLUICE_MODELS__HOME", str(there / "models"))
    monkeypatch.setenv("SLUICE_KEYS__HOME", str(there / "keys"))
    (there / "keys").mkdir(parents=True)
    (home / "worker.pem").rename(there / "keys" / "worker.pem")
    assert run(capsys, "verify", home / "out")[0]["found"] == "verified"
    run(capsys, "add", home / "out", "--tenant", "acme")
    assert [row["found"] for row in run(capsys, "verify", "tiny")] == ["verified"]
    sealed = (home / "out" / f"{WEIGHTS}.sealed").read_bytes()
    assert (there / "models" / "models" / "tiny" / "1" / f"{WEIGHTS}.sealed").read_bytes() != sealed, "a key of its own"
    (home / "out" / f"{WEIGHTS}.sealed").write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert main(["model", "verify", str(home / "out")]) == 1
    assert "sealed" in capsys.readouterr().out


def test_revoking_the_last_version_with_traffic_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        run(capsys, "add", signed(home, capsys, monkeypatch, version))
    run(capsys, "roll", "tiny", "1=50", "2=50")
    for version, told in ((1, False), (2, True)):
        words = ["model", "revoke", "tiny", str(version), "--reason", "bad", "--keys", str(home / "k.pem")]
        assert main(words) == 0
        assert ("no version of tiny has traffic" in capsys.readouterr().err) is told
