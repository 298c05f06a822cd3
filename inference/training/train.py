"""Train the shipped model: ``python -m inference.training.train --glossary PATH --out DIR``.

The same seed, thread count and number of steps give the same weights on one machine; ``--minutes``
ends by the clock, so a run to be repeated exactly gives ``--steps`` as printed by the first one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

from inference.chat.tokenizer import SPECIAL_TOKENS, ChatTokenizer
from inference.model.config import ModelConfig
from inference.model.transformer import LanguageModel
from inference.training.corpus import GlossaryEntry, conversations, read_entries

VOCABULARY = 5120
BATCH = 96
POOL = 16
"""Batches drawn together, sorted by length and shuffled, so padding stays small."""
CHECKPOINT_EVERY = 200
CONFIG = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=640,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)


def train_tokenizer(entries: list[GlossaryEntry], seed: int) -> Tokenizer:
    """A byte-level BPE without normaliser: every token stands for at least one byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    stream = islice(conversations(entries, seed), 60000)
    texts = (text for turns, answer in stream for text in (turns[-1].text, answer))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def batches(entries: list[GlossaryEntry], chat: ChatTokenizer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (tokens, targets) pairs ``[batch, time]``; a target of -100 is not learned."""
    stream = conversations(entries, seed)
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        pool = []
        for turns, answer in islice(stream, BATCH * POOL):
            prompt = chat.encode(turns)
            pool.append((prompt, [*chat.encode_text(answer), chat.end]))
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        for index in torch.randperm(POOL, generator=shuffle).tolist():
            yield collate(pool[index * BATCH : (index + 1) * BATCH], chat.end)


def collate(pairs: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    """Pad (prompt, answer) pairs to one length; only answers carry targets."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
    tokens = torch.full((len(pairs), longest), pad)
    targets = torch.full((len(pairs), longest), -100)
    for row, (prompt, answer) in enumerate(pairs):
        whole = torch.tensor([*prompt, *answer])
        tokens[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    return tokens, targets


def loss_of(model: LanguageModel, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats over the learned positions of ``[batch, time]`` tokens and targets."""
    learned = targets != -100
    logits = model.lm_head(model(tokens)[learned])
    return functional.cross_entropy(logits, targets[learned])


class Muon:
    """Muon: momentum with orthogonalised updates for matrices (Jordan et al. 2024), fp32.

    Matrices of one shape are stacked, so the Newton-Schulz iteration is a few batched products.
    """

    def __init__(self, matrices: Sequence[Tensor], momentum: float = 0.95) -> None:
        self.groups: dict[tuple[int, ...], list[Tensor]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.velocity = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply one update with a learning rate."""
        for shape, group in self.groups.items():
            grads = torch.stack([torch.as_tensor(matrix.grad) for matrix in group])
            velocity = self.velocity[shape].lerp_(grads, 1 - self.momentum)
            update = orthogonalise(grads.lerp(velocity, self.momentum))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - 0.01 * rate).sub_(scale * change)
                matrix.grad = None


def orthogonalise(stack: Tensor, rounds: int = 4) -> Tensor:
    """Push the singular values of each ``[n, rows, columns]`` matrix towards one, by Newton-Schulz iteration."""
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.transpose(-1, -2) if tall else stack
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.transpose(-1, -2)
        # the quintic a X + b (X X^T) X + c (X X^T)^2 X with the paper's coefficients
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return torch.as_tensor(x.transpose(-1, -2) if tall else x)


def schedule(progress: float) -> float:
    """Short warm-up, flat, then linear decay over the last 60 %; ``progress`` in 0..1."""
    return min(1.0, progress / 0.01 + 0.02, max(0.0, (1.0 - progress) / 0.6))


def fit(
    model: LanguageModel,
    data: Iterator[tuple[Tensor, Tensor]],
    length: tuple[float, int | None],
    checkpoint: Callable[[], None],
) -> int:
    """Train for ``length`` (minutes, or steps where given); returns the steps done."""
    minutes, steps = length
    hidden = [parameter for name, parameter in model.named_parameters() if parameter.ndim == 2 and "embed" not in name]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    muon, adam = Muon(hidden), torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    start = time.monotonic()
    done, average = 0, math.nan
    while True:
        elapsed = (time.monotonic() - start) / 60
        progress = done / steps if steps else elapsed / minutes
        if progress >= 1:
            return done
        loss = loss_of(model, *next(data))
        torch.autograd.backward(loss)
        factor = schedule(progress)
        muon.step(0.02 * factor)
        for group in adam.param_groups:
            group["lr"] = 0.004 * factor
        adam.step()
        adam.zero_grad()
        average = loss.item() if math.isnan(average) else 0.97 * average + 0.03 * loss.item()
        done += 1
        if done % 25 == 0:
            print(f"step {done} minute {elapsed:.2f} loss {average:.3f}", flush=True)
        if done % CHECKPOINT_EVERY == 0:
            checkpoint()


def build(seed: int) -> LanguageModel:
    """A freshly initialised model."""
    torch.manual_seed(seed)
    model = LanguageModel(CONFIG)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02 if "embed" in name else 0.04)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def save(model: LanguageModel, tokenizer: Tokenizer, out: Path) -> None:
    """Write weights in half precision, the configuration and the tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    save_file(tensors, out / "model.safetensors")
    tokenizer.save(str(out / "tokenizer.json"))
    config = {name: getattr(CONFIG, name) for name in CONFIG.__struct_fields__}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    config |= {"torch_dtype": "float16", "head_dim": CONFIG.head_size}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Command line: train and save."""
    parser = argparse.ArgumentParser(description="Train the glossary model on one CPU core.")
    parser.add_argument("--glossary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=None, help="exact step count instead")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    entries = read_entries(arguments.glossary)
    tokenizer = train_tokenizer(entries, arguments.seed)
    chat = ChatTokenizer(tokenizer)
    model = build(arguments.seed)
    print(f"parameters {sum(p.numel() for p in model.parameters())} entries {len(entries)}", flush=True)

    def checkpoint() -> None:
        save(model, tokenizer, arguments.out)

    data = batches(entries, chat, arguments.seed)
    steps = fit(model, data, (arguments.minutes, arguments.steps), checkpoint)
    checkpoint()
    print(json.dumps({"steps": steps}))


if __name__ == "__main__":
    main()
