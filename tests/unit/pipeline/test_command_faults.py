"""Wrong words and files given to the command: a short answer that says what was expected, and exit code 2."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.producer import Producer

KEY = "sk-sluice-k." + "A" * 43


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("account list --limit 0", "--limit: expected 1 to 100,000, came '0'"),
        ("label list --limit 100001", "--limit: expected 1 to 100,000, came '100001'"),
        ("key add acme app --days -5", "--days: expected 0 to 36,500, came '-5'"),
        ("up --port 0", "--port: expected 1 to 65,535, came '0'"),
        ("demo --kafka-port x", "--kafka-port: expected 1 to 65,535, came 'x'"),
        ("ask hello --max-tokens 0", "--max-tokens: expected 1 to 1,000,000, came '0'"),
        ("engine bench --rounds 21", "--rounds: expected 1 to 20, came '21'"),
        ("watermark detect answer.txt --epochs 0", "--epochs: expected 1 to 1,000, came '0'"),
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


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1", "127.0.0.1:8080"])
def test_a_gateway_url_that_is_none_is_the_callers_to_mend(url: str) -> None:
    async def start() -> None:
        async with Producer(url, KEY):
            raise AssertionError("started")

    with pytest.raises(ConfigError, match=r"expected http\(s\)://host:port"):
        asyncio.run(start())
