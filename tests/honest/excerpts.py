"""``python -m tests.honest.excerpts FOLDER ...``: excerpts of files of the open half, for the scorer to learn from.

Only packages under licences that let excerpts be passed on are read; the list names them. What is written is checked
in, so that training is the same on every machine.
"""

from __future__ import annotations

import lzma
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import msgspec

from detectors.prompts.training.pasted import FILE, PastedExcerpt
from detectors.prompts.training.rows import drawing
from tests.honest.machine import files, text_of

LICENCES = {
    "BSD-2-Clause": ("docutils", "sphinx"),
    "BSD-3-Clause": ("flask", "werkzeug", "bokeh", "scrapy", "pandas", "d3"),
    "Apache-2.0": ("requests", "typescript", "puppeteer"),
    "MIT": (
        "mypy", "node", "jquery", "eslint", "vue", "katex", "moment", "handlebars", "postcss", "mocha", "commander",
        "axios",
    ),
    "PSF-2.0": (
        "_typeshed", "asyncio", "email", "json", "turtledemo", "lib2to3", "idlelib", "distutils", "unittest", "tkinter",
        "xml", "html", "http", "logging", "ctypes", "concurrent", "multiprocessing", "sqlite3", "encodings", "curses",
        "argparse", "ast", "inspect", "typing", "pickle", "tarfile", "zipfile", "subprocess", "socket", "ssl", "string",
    ),
}  # fmt: skip
MOST = {"py": 160, "pyi": 160, "ts": 220, "js": 200, "html": 160, "md": 160, "rst": 120, "css": 120, "json": 120}
OTHER = 80
PER_PACKAGE = 0.5
"""Share of a type that one package may fill."""


def main(folders: list[Path]) -> int:
    """Write the excerpts and say how many of each type there are."""
    allowed = {package: licence for licence, packages in LICENCES.items() for package in packages}
    taken: list[PastedExcerpt] = []
    for kind, found in files([*folders, Path(sysconfig.get_paths()["stdlib"])], "open").items():
        most, of = MOST.get(kind, OTHER), Counter[str]()
        for file in found:
            licence = allowed.get(file.package.lower())
            if licence is None or of.total() >= most or of[file.package] >= PER_PACKAGE * most:
                continue
            if (text := text_of(file)) is None:
                continue
            of[file.package] += 1
            draw = drawing(f"excerpt/{file.package}/{file.path.name}")
            size = int(draw.integers(200, 1200))
            start = int(draw.integers(max(1, len(text) - size)))
            taken.append(PastedExcerpt(kind, file.package, licence, text[start : start + size]))
    raw = b"\n".join(msgspec.json.encode(each) for each in taken)
    FILE.write_bytes(lzma.compress(raw, preset=9))
    print(dict(Counter(each.kind for each in taken)), len(FILE.read_bytes()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(folder) for folder in sys.argv[1:]]))
