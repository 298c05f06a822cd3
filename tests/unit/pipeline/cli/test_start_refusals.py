"""A process that cannot start says why, with the exit code that tells an operator whose turn it is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.control import topics as topic_admin
from pipeline.embedded.supervisor import free_port
from pipeline.keys.vault import FileKeyring

STAGES = ("admit", "gateway", "notify", "watch")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The command silences the client library for its whole process; tests after this one want it back."""
    library = logging.getLogger("aiokafka")
    level = library.level
    yield
    library.setLevel(level)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A sound file of settings whose broker is absent."""
    file = tmp_path / "sluice.toml"
    file.write_text(f'[kafka]\nbootstrap = "127.0.0.1:{free_port()}"\n[keys]\nhome = "{tmp_path}/keys"\n')
    return file


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str]:
    code = cli.main([str(word) for word in argv])
    said = capsys.readouterr().err
    assert said.startswith("sluice: ")
    assert "Traceback" not in said
    return code, said


@pytest.mark.parametrize("command", [("run", "admit"), ("tenant", "list"), ("config",)])
def test_an_unknown_setting_is_named_with_file_and_line(
    settings: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    settings.write_text(settings.read_text() + 'hme = "x"\n')
    code, said = refused(capsys, "--config", settings, *command)
    assert (code, said) == (2, f"sluice: {settings}:5: keys.hme: no such setting; known ones: sluice config\n")


def test_a_missing_keyring_is_named_with_what_to_do(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--config", settings, "tenant", "list")
    assert code == 2
    assert f"keyring {settings.parent}/keys/keyring.json does not exist; run: sluice topics apply" in said


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"current": "k1", "keys": {}}', '{"keys": {"k1": "AA=="}}', '{"current": "a", "keys": {"a": 1}}'],
)
def test_a_keyring_of_another_shape_is_told(settings: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    keyring = settings.parent / "keys" / "keyring.json"
    keyring.parent.mkdir()
    keyring.write_text(content)
    code, said = refused(capsys, "--config", settings, "tenant", "list")
    assert code == 2
    assert f"keyring {keyring}: expected current and keys" in said


def test_a_missing_log_key_is_named_before_anything_else(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--config", settings, "run", "seal")
    assert code == 2
    assert f"log key {settings.parent}/keys/log-key.json does not exist; run: sluice topics apply" in said


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "seal"])
def test_a_stage_that_is_told_no_deployment_says_what_to_do(
    settings: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    code, said = refused(capsys, "--config", settings, "run", stage)
    assert code == 2
    assert "keys.deployment is empty" in said
    assert "copy the pin from: sluice keys show" in said


def test_a_command_says_which_broker_it_tried_and_for_how_long(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FileKeyring.create(settings.parent / "keys" / "keyring.json")
    genuine = topic_admin.reach
    monkeypatch.setattr(topic_admin, "reach", lambda bootstrap, timeout_s: genuine(bootstrap, timeout_s / 20))
    code, said = refused(capsys, "--config", settings, "tenant", "list")
    assert code == 3
    assert re.search(r"no Kafka broker answered at 127\.0\.0\.1:\d+ for \d+ s \(last: .+\)\. Start it, or set", said)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_which_broker_it_tried_and_for_how_long(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr("pipeline.control.connect.START_S", 0.2)
    monkeypatch.setenv("SLUICE_KEYS__DEPLOYMENT", "0" * 64)
    code, said = refused(capsys, "--config", settings, "run", stage)
    assert code == 3
    assert re.search(r"no Kafka broker answered at 127\.0\.0\.1:\d+ for \d+ s \(last: .+\)\. Start it, or set", said)
