"""``sluice engine bench``: the speed at which this machine generates, and what timing gives away, with the load."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.cli.arguments import add_command, add_group, whole
from pipeline.config import Settings
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

RANDOM = "random"


def add(commands: Any) -> None:
    """Add ``engine``."""
    engine = add_group(commands, "engine", "measure the engine on this machine")
    bench = add_command(
        engine,
        "bench",
        "compare one by one, static and continuous batches, and probe what timing gives away",
        _bench,
        "Runs the same requests one by one, in fixed batches and continuously, and prints tokens per second with their "
        "ratios; then guesses at another tenant's prefix by time, which must not tell (AUC near 0.5). Minutes on two "
        "cores; figures are worth something on a quiet machine only.",
    )
    bench.add_argument("--model", default="glossary", help="'glossary', a model folder, or 'random' (56 M parameters)")
    bench.add_argument("--concurrent", type=whole(2, 1024), metavar="N", default=32, help="requests at once")
    bench.add_argument(
        "--prompt", type=whole(0, 256), metavar="N", default=64, help="longest prompt in words; 0 short questions"
    )
    bench.add_argument("--tokens", type=whole(1, 512), metavar="N", default=64, help="longest answer in tokens")
    bench.add_argument("--threads", type=whole(1, 256), metavar="N", default=2, help="threads of the CPU's arithmetic")
    bench.add_argument("--rounds", type=whole(1, 20), metavar="N", default=2, help="rounds, of which the best counts")
    bench.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    bench.add_argument("--probe", type=whole(0, 1000), metavar="N", default=20, help="pairs of guesses; 0 for no probe")
    bench.add_argument("--reference", action="store_true", help="measure transformers' continuous batching too")


def _bench(arguments: argparse.Namespace, _settings: Settings) -> int:
    try:
        with _folder(arguments.model) as folder:
            figures = _measure(folder, arguments)
    except OSError as error:
        raise ConfigError(
            f"--model {arguments.model}: expected a model folder, got: {error.filename or ''} {error.strerror}; "
            "give another"
        ) from error
    except ValueError as error:
        raise ConfigError(f"--model {arguments.model}: {error}") from error
    terminal.fields("", figures, as_json=arguments.json)
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


def _measure(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    import asyncio

    from inference.bench import throughput, transformers_batching, workload

    requests = workload.questions(arguments.concurrent, arguments.tokens, prompt=arguments.prompt)
    prompts = workload.encoded(folder, requests)
    bits = "fp32" if arguments.device == "cpu" else "bf16"
    figures: dict[str, object] = {
        "model": f"{folder.name}, {workload.parameters(folder):.1f} M parameters, {bits}, {arguments.device}",
        "requests": arguments.concurrent,
        "prompt tokens": f"{min(map(len, prompts))} to {max(map(len, prompts))}",
        "answer tokens": f"{min(r.max_tokens for r in requests)} to {max(r.max_tokens for r in requests)}",
        "threads": arguments.threads,
    }
    speeds = asyncio.run(
        throughput.modes(
            folder,
            requests,
            arguments.threads,
            slots=arguments.concurrent,
            rounds=arguments.rounds,
            device=arguments.device,
        )
    )
    alone = speeds["one by one"].tokens_per_second
    for mode, speed in speeds.items():
        figures[f"{mode}, tokens/s"] = round(speed.tokens_per_second, 1)
        figures[f"{mode}, against one by one"] = round(speed.tokens_per_second / alone, 2)
    if arguments.reference:
        theirs = transformers_batching.speed(
            folder, prompts, [r.max_tokens for r in requests], arguments.threads, arguments.rounds
        )
        rate = theirs and theirs.tokens_per_second
        figures["transformers, tokens/s"] = rate and round(rate, 1)
        if rate:
            figures["continuous, against transformers"] = round(speeds["continuous"].tokens_per_second / rate, 2)
    if arguments.probe:
        figures |= _probe(folder, arguments)
    return figures


def _probe(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Guess at another tenant's prefix by time."""
    from inference.bench import prefix_reuse

    leak = prefix_reuse.run_probe(folder, arguments.probe, min(200, max(64, arguments.prompt)), arguments.threads)
    return {"probe of another tenant, AUC": round(leak.auc, 3), "own prefix, times faster": round(leak.reuse, 1)}
