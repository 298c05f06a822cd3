"""Files of a model that are signed and yet unfit: each a ValueError that names the file, whatever library reads it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.chat.tokenizer import MAX_TOKENS, load_tokenizer
from inference.engines.torch import shipped_model
from inference.model.lora import add_adapter
from inference.model.transformer import LanguageModel, load_model
from tests.unit.inference.model.test_lora import tiny, write_adapter

HEADER = b'{"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}'
WEIGHTS = {
    "empty": b"",
    "no header": b"\xff" * 64,
    "another shape": len(HEADER).to_bytes(8, "little") + HEADER + bytes(8),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_model(), tmp_path / "glossary"))


@pytest.mark.parametrize("raw", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_no_library_reads_are_named(folder: Path, raw: bytes) -> None:
    (folder / "model.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("raw", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_an_adapter_that_no_library_reads_is_named_and_not_loaded(tmp_path: Path, raw: bytes) -> None:
    model = tiny()
    adapter = write_adapter(tmp_path / "a", model, 1)
    (adapter / "adapter_model.safetensors").write_bytes(raw)
    refuse(model, adapter)


@pytest.mark.parametrize("alpha", [1e300, 1e42])
def test_an_adapter_whose_scale_makes_its_values_infinite_is_refused(tmp_path: Path, alpha: float) -> None:
    model = tiny()
    refuse(model, write_adapter(tmp_path / "a", model, 1, lora_alpha=alpha))


def test_an_adapter_that_is_infinite_in_the_models_type_is_refused(tmp_path: Path) -> None:
    model = tiny().half()
    adapter = write_adapter(tmp_path / "a", model, 1)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * 1e6 for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    refuse(model, adapter)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.view(-1)[7].fill_(math.nan), "finite"),
        (lambda weights: weights.view(-1)[-1].fill_(-math.inf), "finite"),
        (lambda weights: weights.to(torch.int32), "floating point"),
        (lambda weights: weights.to(torch.complex64), "floating point"),
        (lambda weights: weights[:-1].clone(), "size mismatch"),
    ],
)
def test_weights_that_no_answer_can_come_of_are_refused(
    folder: Path, change: Callable[[torch.Tensor], torch.Tensor], told: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[3]
    save_file(tensors | {name: change(tensors[name])}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=told) as fault:
        load_model(folder)
    assert name in str(fault.value)
    assert "\n" not in str(fault.value)


def refuse(model: LanguageModel, adapter: Path) -> None:
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors"):
        add_adapter(model, ("t", "a"), adapter)
    assert not any(getattr(module, "adapters", None) for module in model.modules())


def _far_id(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"]["zz"] = MAX_TOKENS + 1
    (folder / "tokenizer.json").write_text(json.dumps(document))


SPOILT: dict[str, Callable[[Path], object]] = {
    "no JSON": lambda folder: (folder / "tokenizer.json").write_bytes(b"\x80\x04pickled"),
    "another document": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "cut": lambda folder: (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:5000]),
    "an id far out": _far_id,
    "no JSON, with a template": lambda folder: (
        (folder / "tokenizer.json").write_bytes(b"\x80\x04pickled"),
        (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "eos_token": "x"}'),
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_tokenizer_that_no_library_reads_is_named(folder: Path, spoil: Callable[[Path], object]) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


def test_a_tokenizer_that_is_not_there_is_an_error_of_the_system(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError):
        load_tokenizer(folder)
