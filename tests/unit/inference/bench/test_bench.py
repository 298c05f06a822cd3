"""The bench measures what it says: its loads, its statistic, and the command around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inference.bench.__main__ import main as bench
from inference.bench.prefix_reuse import auc
from inference.bench.workload import encoded, questions
from inference.engines.torch import shipped_model
from pipeline.cli import main


def test_loads_are_the_same_each_time_and_within_their_bounds() -> None:
    requests = questions(12, 40, prompt=30)
    assert requests == questions(12, 40, prompt=30) != questions(12, 40, prompt=30, seed=1)
    assert all(16 <= len(request.turns[0].text.split()) <= 30 for request in requests)
    assert all(5 <= request.max_tokens <= 40 for request in requests)
    assert {request.max_tokens for request in questions(3, 9)} == {9}
    assert all(len(ids) > 16 for ids in encoded(shipped_model(), requests))


def test_auc_is_the_chance_that_the_first_is_smaller() -> None:
    assert auc([1, 2], [3, 4]) == 1.0
    assert auc([3, 4], [1, 2]) == 0.0
    assert auc([1, 1], [1, 1]) == 0.5
    assert auc([1, 3], [2, 4]) == 0.75


def test_the_command_states_its_load_and_the_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    arguments = [
        "--concurrent",
        "2",
        "--tokens",
        "2",
        "--prompt",
        "16",
        "--threads",
        "1",
        "--rounds",
        "1",
        "--probe",
        "1",
        "--json",
    ]
    assert main(["engine", "bench", *arguments]) == 0
    torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["threads"]) == (2, 1)
    assert found["one by one, against one by one"] == 1.0
    assert found["continuous, against one by one"] > 0
    assert 0 <= found["probe of another tenant, AUC"] <= 1


@pytest.mark.parametrize("wrong", [["--concurrent", "1"], ["--threads", "0"], ["--prompt", "300"]])
def test_a_load_out_of_bounds_is_wrong_usage(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["engine", "bench", *wrong])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--device", "cuda:77", "--concurrent", "2", "--tokens", "1", "--prompt", "16"], "cuda:77"),
        (["--device", "abacus", "--concurrent", "2", "--tokens", "1", "--prompt", "16"], "abacus"),
    ],
)
def test_what_cannot_be_measured_is_told(capsys: pytest.CaptureFixture[str], wrong: list[str], told: str) -> None:
    assert main(["engine", "bench", "--probe", "0", *wrong]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--batch", "0"], ["--batch", "-1"], ["--compare", "-1"], ["--prompt", "0"], ["--tokens", "0"], ["--tokens", "x"]],
)
def test_a_load_for_a_device_is_checked_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "gpu", *wrong])
    with pytest.raises(SystemExit) as ended:
        bench()
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "gpu", "--json", str(tmp_path / "nowhere" / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        bench()
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err
