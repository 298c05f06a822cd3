"""Train the prompt scorer: `python -m detectors.prompts.training [--labels FILE] FOLDER`; FOLDER holds `train.jsonl`.

Prints the leave-one-source-out tables, then writes `weights/prompts.npz` and `weights/prompts.json`. The same rows and
seed give the same files.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from detectors.prompts.scorer import HEADS
from detectors.prompts.training.borrowed import borrowed_of
from detectors.prompts.training.heads import SEED, Trained, assembled, train
from detectors.prompts.training.labelled import LabelError, labelled
from detectors.prompts.training.pasted import pasted
from detectors.prompts.training.rows import LabelledText, drawing, read
from detectors.prompts.training.synthesis import synthesise

MAX_BENIGN = 2_000
"""Benign rows of one source that are learned from."""


def training_rows(file: Path) -> list[LabelledText]:
    """The pack's rows, at most MAX_BENIGN benign ones of a source, and those written for this project."""
    rows = read(file)
    borrowed = borrowed_of(rows)
    sizes = Counter(row.source for row in rows)
    draw = drawing(f"{SEED}")
    kept = [row for row in rows if row.attack or draw.random() < MAX_BENIGN / sizes[row.source]]
    return [*kept, *pasted(), *synthesise(SEED, borrowed)]


def write(heads: dict[str, Trained], folder: Path) -> None:
    """`prompts.npz` and `prompts.json`, without the time of day that an archive would bear."""
    held = io.BytesIO()
    np.save(held, np.stack([heads[name].weights for name in HEADS]))
    with zipfile.ZipFile(folder / "prompts.npz", "w") as archive:
        entry = zipfile.ZipInfo("weights.npy")
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, held.getvalue(), compresslevel=9)
    text = msgspec.json.format(msgspec.json.encode(assembled(heads)), indent=2)
    (folder / "prompts.json").write_bytes(text + b"\n")


def main(arguments: Sequence[str]) -> int:
    """Train and write, or only print the tables; 2 where the folder has no rows or the labels are none."""
    parser = argparse.ArgumentParser(prog="python -m detectors.prompts.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds train.jsonl, as make detectors DATA=FOLDER gives it")
    parser.add_argument("--tables", action="store_true", help="print the tables and write nothing")
    parser.add_argument("--labels", type=Path, help="what analysts labelled, with texts; one more source")
    home = Path(str(resources.files("detectors.prompts") / "weights"))
    parser.add_argument("--to", type=Path, default=home, help="folder")
    asked = parser.parse_args(arguments)
    file = asked.folder / "train.jsonl"
    if not file.is_file():
        parser.error(f"expected a folder with train.jsonl, got {asked.folder}")
    try:
        more = labelled(asked.labels) if asked.labels else []
    except (OSError, LabelError) as error:
        parser.error(str(error))
    heads = train([*training_rows(file), *more], borrowed_of(read(file)))
    if not asked.tables:
        write(heads, asked.to)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
