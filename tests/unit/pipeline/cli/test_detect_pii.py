"""`sluice detect pii`: one line out per line in, in order, whatever the line is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectors.pii import REDACT
from pipeline.cli import main
from pipeline.cli.detect_pii import answered


def answer(line: bytes) -> dict[str, Any]:
    raw = answered(line, REDACT)
    assert b"\n" not in raw
    found: dict[str, Any] = json.loads(raw)
    return found


def test_spans_and_the_redacted_text() -> None:
    text = "身份证 11010519491231002X, mail a@b.example"
    found = answer(json.dumps({"id": "r1", "text": text}).encode())
    assert found == {
        "id": "r1",
        "spans": [
            {"start": 4, "end": 22, "type": "CN_ID", "score": 0.99},
            {"start": 29, "end": 40, "type": "EMAIL", "score": 0.99},
        ],
        "redacted": "身份证 [CN_ID], mail [EMAIL]",
    }


@pytest.mark.parametrize("known", [7, None, "x", [1], {"a": 1}])
def test_an_id_of_any_kind_comes_back(known: object) -> None:
    assert answer(json.dumps({"id": known, "text": "hi"}).encode()) == {"id": known, "spans": [], "redacted": "hi"}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"no secret 4111111111111111\n", b"[]", b"7", b"{}", b'{"id": 1}',
        b'{"id": 1, "text": 4111111111111111}',
        b'{"text": "\xff"}', b"[" * 100_000, b'{"text": ' + b"9" * 5_000 + b"}", b'\xef\xbb\xbf{"text": ""',
    ],
)  # fmt: skip
def test_a_malformed_line_gets_an_answer_that_tells_nothing_of_it(line: bytes) -> None:
    found = answer(line)
    assert found["error"].startswith("expected")
    assert "4111" not in found["error"]
    assert "spans" not in found


def test_half_a_surrogate_pair_is_answered_and_comes_back() -> None:
    found = answer(b'{"id": 1, "text": "\\ud83d a@b.example"}')
    assert (found["redacted"], found["spans"][0]["start"]) == ("\ud83d [EMAIL]", 2)


def test_answers_come_line_by_line() -> None:
    command = [sys.executable, "-m", "pipeline", "detect", "pii"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps({"id": number, "text": f"user{number}@mail.example"}).encode() + b"\n")
            process.stdin.flush()
            # each is read before the next is written, so an answer that waited for more would stop this test
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.stdout.read() == b""


def test_keyed_actions_ask_for_their_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "pii", "--action", "hash"]) == 2
    assert "at least 16 bytes" in capsys.readouterr().err
    assert main(["detect", "pii", "--action", "hash", "--key-file", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
