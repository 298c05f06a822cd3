"""``sluice engine bench``: how fast this machine generates, and what a stop-watch gives away, each with its load."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.arguments import whole
from pipeline.config import Settings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

RANDOM = "random"


def add(commands: Any) -> None:
    """Register ``engine`` with its acts."""
    meaning = "measure the engine on this machine"
    parser = commands.add_parser("engine", help=meaning, description=meaning.capitalize() + ".")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    bench = acts.add_parser(
        "bench",
        help="one by one, static and continuous batches side by side; and a timing probe",
        description="Runs the same requests one by one, in fixed batches and continuously, and tells tokens per second "
        "with their ratios; then guesses at another tenant's prefix by time, which must not tell (AUC near 0.5). "
        "Minutes on two cores; figures are worth something on a quiet machine only.",
    )
    bench.add_argument("--json", action="store_true", help="for programs")
    bench.add_argument("--model", default="glossary", help="'glossary', a model folder, or 'random' (56 M parameters)")
    bench.add_argument("--concurrent", type=whole(2, 1024), default=32, help="requests at once")
    bench.add_argument("--prompt", type=whole(0, 256), default=64, help="longest prompt in words; 0 short questions")
    bench.add_argument("--tokens", type=whole(1, 512), default=64, help="longest answer in tokens")
    bench.add_argument("--threads", type=whole(1, 256), default=2, help="threads of the arithmetic on the CPU")
    bench.add_argument("--rounds", type=whole(1, 20), default=2, help="best of so many rounds")
    bench.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    bench.add_argument("--probe", type=whole(0, 1000), default=20, help="pairs of guesses of the probe; 0 none")
    bench.add_argument("--reference", action="store_true", help="also transformers' continuous batching, if installed")
    bench.set_defaults(act=_bench)


def _bench(asked: argparse.Namespace, _settings: Settings) -> int:
    try:
        with _folder(asked.model) as folder:
            found = _measure(folder, asked)
    except OSError as error:
        raise ConfigError(f"--model {asked.model}: {error.filename or ''} {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--model {asked.model}: {error}") from error
    if asked.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:34} {value}")
    return 0


@contextlib.contextmanager
def _folder(model: str) -> Iterator[Path]:
    from inference.bench.workload import random_model
    from inference.engines.torch import shipped_model

    if model == RANDOM:
        with random_model() as folder:
            yield folder
    else:
        yield shipped_model() if model == "glossary" else Path(model)


def _measure(folder: Path, asked: argparse.Namespace) -> dict[str, object]:
    import asyncio

    from inference.bench import prefix_reuse, throughput, transformers_batching, workload

    requests = workload.questions(asked.concurrent, asked.tokens, prompt=asked.prompt)
    prompts = workload.encoded(folder, requests)
    bits = "fp32" if asked.device == "cpu" else "bf16"
    found: dict[str, object] = {
        "model": f"{folder.name}, {workload.parameters(folder):.1f} M parameters, {bits}, {asked.device}",
        "requests": asked.concurrent,
        "prompt tokens": f"{min(map(len, prompts))} to {max(map(len, prompts))}",
        "answer tokens": f"{min(r.max_tokens for r in requests)} to {max(r.max_tokens for r in requests)}",
        "threads": asked.threads,
    }
    speeds = asyncio.run(
        throughput.modes(
            folder, requests, asked.threads, slots=asked.concurrent, rounds=asked.rounds, device=asked.device
        )
    )
    alone = speeds["one by one"].tokens_per_second
    for mode, speed in speeds.items():
        found[f"{mode}, tokens/s"] = round(speed.tokens_per_second, 1)
        found[f"{mode}, against one by one"] = round(speed.tokens_per_second / alone, 2)
    if asked.reference:
        theirs = transformers_batching.speed(
            folder, prompts, [r.max_tokens for r in requests], asked.threads, asked.rounds
        )
        rate = theirs and theirs.tokens_per_second
        found["transformers, tokens/s"] = rate and round(rate, 1)
        if rate:
            found["continuous, against transformers"] = round(speeds["continuous"].tokens_per_second / rate, 2)
    if asked.probe:
        leak = prefix_reuse.run_probe(folder, asked.probe, min(200, max(64, asked.prompt)), asked.threads)
        found["probe of another tenant, AUC"] = round(leak.auc, 3)
        found["own prefix, times faster"] = round(leak.reuse, 1)
    return found
