"""``python -m inference.bench gpu``: figures that need a device of their own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path


def main() -> int:
    """Measure the figures that the arguments name, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m inference.bench")
    acts = parser.add_subparsers(metavar="ACT", required=True, dest="act")
    gpu = acts.add_parser("gpu", help="decoding on a CUDA device: random weights of the shapes of Llama 3.1 and 3.2")
    gpu.add_argument("--shape", action="append", choices=("1b", "8b"), help="both where none is given")
    some, any_ = _within(1, 4096), _within(0, 4096)
    gpu.add_argument("--batch", type=some, action="append", help="requests at once; 1, 4, 16, 64, 128, 256")
    gpu.add_argument("--compare", type=any_, default=64, help="requests at once where switches are compared; 0: none")
    gpu.add_argument("--prompt", type=some, default=256, help="tokens of each prompt")
    gpu.add_argument("--tokens", type=some, default=128, help="tokens of each answer")
    gpu.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    if arguments.json and not arguments.json.parent.is_dir():
        # minutes of measuring would be lost
        parser.error(f"--json: expected a folder at {arguments.json.parent}, got none; make it first")
    # it needs CUDA and Triton
    from inference.bench import gpu as bench
    from inference.bench.shapes import SHAPES

    load = bench.Load(arguments.prompt, arguments.tokens)
    batches = arguments.batch or list(bench.BATCHES)
    try:
        report = bench.measure(arguments.shape or list(SHAPES), batches, arguments.compare, load)
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(bench.table(report))
    return 0


def _within(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {text[:32]!r}")
        return int(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
