"""``python -m tests.honest.excerpts FOLDER ...``: excerpts of files of the open half, for the scorer to learn from.

Only packages under licences that let excerpts be passed on are read; the list names them. What is written is checked
in, so that training is the same on every machine.
"""

from __future__ import annotations

import lzma
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from detectors.base import Part
from detectors.prompts.assess import PROMPTS
from detectors.prompts.training.pasted import FILE, PastedExcerpt
from detectors.prompts.training.rows import drawing
from tests.honest.machine import files, roots, text_of
from tests.honest.pastes import WHOLE

LICENCES = {
    "0BSD": ("liblzma-dev",),
    "BSD-2-Clause": ("docutils", "sphinx", "pygments", "importlinter"),
    "BSD-3-Clause": (
        "flask", "werkzeug", "bokeh", "scrapy", "pandas", "d3", "networkx", "torchgen", "mpmath", "fsspec", "httpx",
        "httpcore", "psutil", "msgspec", "idna", "mode",
    ),
    "Apache-2.0": (
        "requests", "typescript", "puppeteer", "pyarrow", "cryptography", "phonenumbers", "aiokafka", "chdb", "cuda",
        "prometheus_client",
    ),
    "MIT": (
        "mypy", "node", "jquery", "eslint", "vue", "katex", "moment", "handlebars", "postcss", "mocha", "commander",
        "axios", "pip", "setuptools", "_pytest", "anyio", "urllib3", "yaml", "uvloop", "pre_commit", "referencing",
        "platformdirs", "python_discovery", "libffi8",
    ),
    "PSF-2.0": (
        "_typeshed", "asyncio", "email", "json", "turtledemo", "lib2to3", "idlelib", "distutils", "unittest", "tkinter",
        "xml", "html", "http", "logging", "ctypes", "concurrent", "multiprocessing", "sqlite3", "encodings", "curses",
        "argparse", "ast", "inspect", "typing", "pickle", "tarfile", "zipfile", "subprocess", "socket", "ssl", "string",
    ),
    "Unlicense": ("jgo",),
    "Zlib": ("zlib1g-dev",),
}  # fmt: skip
MOST = {"py": 600, "ts": 300, "js": 300, "h": 240}
OTHER = 160
PER_PACKAGE = 0.25
"""Share of a type that one package may fill."""
PIECE = 600
"""Characters of a piece around the place where the scorer sees most."""
SEEN = -2.0
"""Log-odds above the flag threshold that such a piece has at least; the rest teaches nothing."""


def _random_piece(text: str, draw: np.random.Generator) -> str:
    size = int(draw.integers(200, 1200))
    start = int(draw.integers(max(1, len(text) - size)))
    return text[start : start + size]


def _worst_piece(text: str) -> str | None:
    """The piece around the worst window of a file, where the scorer makes much of it."""
    (verdict,) = PROMPTS.assess([(Part("user", text[:WHOLE]),)])[0] or (None,)
    if verdict is None or verdict.odds < SEEN:
        return None
    start = max(0, (verdict.start + verdict.end - PIECE) // 2)
    return text[start : start + PIECE]


def main(folders: list[Path]) -> int:
    """Write the excerpts and say how many of each type there are."""
    allowed = {package: licence for licence, packages in LICENCES.items() for package in packages}
    taken: list[PastedExcerpt] = []
    for kind, found in files([*folders, *roots()], "open").items():
        most, of = MOST.get(kind, OTHER), Counter[str]()
        for file in found:
            licence = allowed.get(file.package.lower())
            if licence is None or of.total() >= most or of[file.package] >= PER_PACKAGE * most:
                continue
            if (text := text_of(file)) is None:
                continue
            of[file.package] += 1
            draw = drawing(f"excerpt/{file.package}/{file.path.name}")
            taken.append(PastedExcerpt(kind, file.package, licence, _random_piece(text, draw)))
            if worst := _worst_piece(text):
                taken.append(PastedExcerpt(kind, file.package, licence, worst, worst=True))
    raw = b"\n".join(msgspec.json.encode(each) for each in taken)
    FILE.write_bytes(lzma.compress(raw, preset=9))
    print(dict(Counter(each.kind for each in taken)), len(FILE.read_bytes()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(folder) for folder in sys.argv[1:]]))
