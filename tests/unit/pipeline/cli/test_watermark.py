"""``sluice watermark`` names the tenant of a marked text, and finds a copied passage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from inference.registry.release import SHIPPED
from inference.types import GenerationRequest, SamplingParams, Turn
from inference.watermark.secrets import create_master
from pipeline.cli import main
from pipeline.config import Generate, Keys, Models
from pipeline.generate.engines import make_engine

WORDS = ("zyzzyva", "quixotry", "oxbow", "gnomon", "fjord", "axolotl", "tmesis", "sphinx", "cwm", "umlaut", "iamb")
"""Hardly known to the model, so that it has much to choose from."""
FORMS = ("What is a {}?", "Define {}")
TENANTS = ("--tenant", "acme", "--tenant", "beta", "--tenant", "gamma", "--epochs", "2")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_KEYS__HOME", str(tmp_path / "keys"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    return tmp_path


def told(tenant: str, home: Path) -> str:
    """Enough of the generate stage's own text to be traced."""
    engine = make_engine(Generate(batch=8), Models(home=home / "models"), Keys(home=home / "keys"))

    async def one(question: str) -> str:
        turns, sampling = (Turn("user", question),), SamplingParams(1.5)
        request = GenerationRequest(f"{tenant}-{question}", tenant, turns, 60, sampling)
        return "".join([chunk.text async for chunk in engine.submit(request)])

    async def run() -> str:
        texts = await asyncio.gather(*(one(form.format(word)) for word in WORDS for form in FORMS))
        await engine.close()
        return "\n".join(texts)

    return asyncio.run(run())


def test_text_of_the_generate_stage_is_traced_to_its_tenant(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "leak.txt").write_text(told("beta", home))
    assert main(["watermark", "detect", str(home / "leak.txt"), *TENANTS, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["best"]["tenant"], found["attributed"], found["tried"]) == ("beta", True, 6)
    assert found["false_alarm"] < 1e-6
    assert main(["watermark", "detect", str(home / "leak.txt"), "--tenant", "acme"]) == 0
    out = capsys.readouterr().out
    assert "not attributed" in out
    assert "acme" not in out
    assert main(["watermark", "detect", str(home / "leak.txt"), "--tenant", "acme", "--json"]) == 0
    assert (found := json.loads(capsys.readouterr().out))["best"] is None
    assert (found["others"], found["attributed"]) == ([], False)
    saved = "\ufeff" + (home / "leak.txt").read_text().replace("\n", "\r\n")
    (home / "saved.txt").write_bytes(saved.encode())
    assert main(["watermark", "detect", str(home / "saved.txt"), *TENANTS, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["best"]["tenant"] == "beta"


def test_other_text_is_attributed_to_nobody(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_master(home / "keys" / "watermark.key")
    assert main(["watermark", "detect", str(SHIPPED / "MODEL_CARD.md"), *TENANTS]) == 0
    (home / "empty.txt").write_text("")
    assert main(["watermark", "detect", str(home / "empty.txt"), *TENANTS]) == 0
    assert "nothing to score" in capsys.readouterr().out


def test_a_copied_passage_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_master(home / "keys" / "watermark.key")
    text = "The quick brown fox jumps over the lazy dog and then sleeps under the old bridge by the river until dawn."
    (home / "answer.txt").write_text(text)
    (home / "leak.txt").write_text("As they say: " + text.upper()[4:95])
    base = str(home / "answers.db")
    assert main(["watermark", "index", base, str(home / "answer.txt"), "--tenant", "acme", "--name", "r1"]) == 0
    capsys.readouterr()
    assert main(["watermark", "find", base, str(home / "leak.txt"), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["tenant"], found["name"]) == ("acme", "r1")
    assert main(["watermark", "find", base, str(SHIPPED / "MODEL_CARD.md")]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["detect", "nowhere.txt", "--tenant", "a"], "nowhere.txt"),
        (["detect", str(SHIPPED / "config.json"), "--tenant", "a"], "watermark.key"),
        (["detect", str(SHIPPED / "model.safetensors"), "--tenant", "a"], "at most"),
        (["detect", str(SHIPPED / "config.json"), "--tenant", "a", "--model", "nowhere"], "nowhere/tokenizer.json"),
        (["detect", str(SHIPPED / "config.json"), "--tenant", "a", "--model", "spoilt"], "tokenizer.json"),
        (["find", "spoilt/tokenizer.json", str(SHIPPED / "config.json")], "spoilt/tokenizer.json: expected an index"),
        (["index", "no/where.db", str(SHIPPED / "config.json"), "--tenant", "a", "--name", "n"], "no/where.db"),
        (["find", "nowhere.db", str(SHIPPED / "config.json")], "sluice watermark index"),
    ],
)
def test_what_does_not_work_says_why(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    if says != "watermark.key":
        create_master(home / "keys" / "watermark.key")
    monkeypatch.chdir(home)
    (home / "spoilt").mkdir()
    (home / "spoilt" / "tokenizer.json").write_text("{" * 200)
    assert main(["watermark", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_tenant_that_opted_out_is_not_marked_and_its_record_says_so(home: Path) -> None:
    keys, models = Keys(home=home / "keys"), Models(home=home / "models")
    engine = make_engine(Generate(batch=2, unmarked="beta, gamma"), models, keys)

    async def skipped(tenant: str) -> str:
        request = GenerationRequest(tenant, tenant, (Turn("user", "Define fjord"),), 8, SamplingParams(1.0))
        mark = [chunk async for chunk in engine.submit(request)][-1].mark
        assert mark is not None
        return mark.skipped

    async def run() -> list[str]:
        found = [await skipped(tenant) for tenant in ("acme", "beta", "gamma", "bet")]
        await engine.close()
        return found

    assert asyncio.run(run()) == ["", "opted_out", "opted_out", ""]


def test_a_number_of_epochs_out_of_bounds_is_told_with_the_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["watermark", "detect", str(SHIPPED / "config.json"), "--epochs", "0"])
    assert "--epochs: expected 1 to 1,000, got '0'" in capsys.readouterr().err
