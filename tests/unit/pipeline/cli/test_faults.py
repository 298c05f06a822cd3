"""Wrong words and files given to the command: a short answer that says what was expected, and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.watermark.secrets import create_master
from pipeline import cli
from pipeline.cli import label, local
from pipeline.config import Settings
from pipeline.control.policy_file import checked_webhook
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("account list --limit 0", "--limit: expected 1 to 100,000, got '0'"),
        ("label list --limit 100001", "--limit: expected 1 to 100,000, got '100001'"),
        ("key add acme app --days -5", "--days: expected 0 to 36,500, got '-5'"),
        ("up --port 0", "--port: expected 1 to 65,535, got '0'"),
        ("demo --kafka-port x", "--kafka-port: expected 1 to 65,535, got 'x'"),
        ("ask hello --max-tokens 0", "--max-tokens: expected 1 to 1,000,000, got '0'"),
        ("engine bench --rounds 21", "--rounds: expected 1 to 20, got '21'"),
        ("watermark detect answer.txt --epochs 0", "--epochs: expected 1 to 1,000, got '0'"),
    ],
)
def test_a_number_out_of_bounds_is_told_with_its_bounds(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text) < 800


@pytest.mark.parametrize("text", ['[plan.x]\nid = "y"\n', "plan = 3\n", "plan = [1]\n", 'model = "x"\n'])
def test_a_policy_file_of_another_shape_is_told(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    assert cli.main(["policy", "check", str(file)]) == 2
    assert f"{file}: {text.strip('[')[:4]}" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_verifier_keys_that_cannot_be_read_are_no_finding(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["audit", "verify", "--keys", str(file)]) == 2
    assert f"--keys {file}: " in capsys.readouterr().err


def test_a_file_that_is_no_index_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "sluice.toml"
    settings.write_text(f'[keys]\nhome = "{tmp_path}/keys"\n')
    create_master(tmp_path / "keys" / "watermark.key")
    answer = tmp_path / "answer.txt"
    answer.write_text("A dog is a member of the genus Canis. " * 50)
    assert cli.main(["--config", str(settings), "watermark", "find", str(answer), str(answer)]) == 2
    assert f"{answer}: expected an index" in capsys.readouterr().err


def test_services_on_one_port_are_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert cli.main(["--home", str(home), "up", "--port", "8123"]) == 2
    assert "expected five that differ" in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize(
    "url", ["alerts", "ftp://a.example", "http://", "https://a b", "https://a:x/", "https://é", "https://" + "a" * 600]
)
def test_a_webhook_that_could_never_be_delivered_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"webhook: expected http\(s\)://host/path"):
        checked_webhook(url)
    assert [checked_webhook(good) for good in ("", "https://a.example/x?y=1")] == ["", "https://a.example/x?y=1"]


class Sealing:
    """A store in which a decision appears with the third look."""

    looks = 0

    def query(self, _: str, __: dict[str, str]) -> list[tuple[str, ...]]:
        self.looks += 1
        return [("acme", "eve", "deny", "policy", "")] if self.looks > 2 else []


def test_a_label_waits_until_the_decision_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    store, paused = Sealing(), list[float]()
    monkeypatch.setattr("pipeline.wiring.store", lambda *_, **__: contextlib.nullcontext(store))
    monkeypatch.setattr("time.sleep", paused.append)
    assert label._decided("g1-0-1", Settings()) == ("acme", "eve", "deny", "policy", "")
    store.looks = -99
    with pytest.raises(ConfigError, match="expected a sealed decision about 'g1-0-1', got none within 5 s"):
        label._decided("g1-0-1", Settings())
    assert sum(paused) < 8


@pytest.mark.parametrize(
    ("started", "expected"),
    [("/x/pipeline/__main__.py", "python -m pipeline"), (".venv/bin/sluice", ".venv/bin/sluice")],
)
def test_hints_name_a_command_that_can_be_typed(started: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.argv", [started])
    assert local._itself() == expected


def failing(error: Exception) -> Callable[[argparse.Namespace, Settings], int]:
    def act(_: argparse.Namespace, __: Settings) -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "keys/log-key.json"), 2, "keys/log-key.json: Permission denied"),
        (ValueError("prompt: my card is 4111"), 4, "unexpected ValueError"),
        (OSError("secret"), 4, "unexpected OSError"),
        (OSError(28, "secret"), 2, "No space left on device"),
        (ConnectionRefusedError(111, "secret"), 3, "Connection refused"),
    ],
)
def test_no_fault_reads_as_a_finding_or_quotes_its_input(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.cli.stage._config", failing(error))
    assert cli.main(["config"]) == code
    text = capsys.readouterr().err
    assert said in text
    assert "4111" not in text
    assert "secret" not in text
