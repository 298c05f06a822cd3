"""Files of this machine by type and package, in two halves: one may be looked at while rules are tuned, one never is.

A package is what lies at the top of a folder of packages; a hash of its name decides its half, so that the halves are
the same on every machine and a package that somebody else has installed falls to one of them too.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Half = Literal["open", "closed"]
TYPES = (
    "py", "pyi", "js", "mjs", "ts", "json", "md", "rst", "txt", "html", "css", "yaml", "yml", "toml", "ini",
    "cfg", "conf", "h", "hpp", "c", "cc", "cpp", "cu", "cuh", "pyx", "pl", "pm", "sh", "sql", "xml", "svg",
    "csv", "tex", "f90", "go", "rs", "java", "rb", "vim", "cmake", "m4", "awk", "jinja", "proto", "1", "3", "5",
    "7", "8",
)  # fmt: skip
"""Endings of files that people paste; single digits are manual pages."""
MANUALS = frozenset("13578")
MOST_BYTES = 400_000
LEAST_CHARS = 200
_DOCUMENTATION = ("/usr/share/doc", "/usr/share/man", "/usr/share/perl", "/usr/share/vim")
_MODULES = ("/usr/lib/node_modules", "/usr/local/lib/node_modules", "/usr/share/nodejs")


class MachineFile(NamedTuple):
    """One readable text file; `kind` is its ending, `package` what it came with."""

    package: str
    kind: str
    path: Path


def roots() -> list[Path]:
    """Folders whose entries are packages: Python's, Node's where it is, and the system's documentation."""
    found = [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    found += [Path(sysconfig.get_paths()["stdlib"]), *map(Path, (*_MODULES, *_DOCUMENTATION))]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def half_of(package: str) -> Half:
    """The half that a package belongs to, by its name alone."""
    return "closed" if hashlib.sha256(package.lower().encode()).digest()[0] & 1 else "open"


def files(folders: Iterable[Path], half: Half) -> dict[str, list[MachineFile]]:
    """The half's files by type, in an order that follows a hash of their names, so that a first few are a sample."""
    found: dict[str, list[MachineFile]] = defaultdict(list)
    for folder in folders:
        for entry in sorted(folder.iterdir()):
            package = entry.name.removesuffix(".py")
            if half_of(package) == half and package not in ("site-packages", "__pycache__"):
                for path in _under(entry):
                    if (kind := _kind(path)) is not None:
                        found[kind].append(MachineFile(package, kind, path))
    return {kind: sorted(each, key=lambda file: _spread(file.path)) for kind, each in sorted(found.items())}


def digest(found: dict[str, list[MachineFile]]) -> str:
    """What names the list of packages: two runs with the same digest read the same ones."""
    packages = sorted({file.package for each in found.values() for file in each})
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]


def text_of(file: MachineFile) -> str | None:
    """The file's text; None where it is none, is too short or too long, or cannot be read."""
    try:
        raw = file.path.read_bytes() if file.path.stat().st_size <= MOST_BYTES else b""
        text = (gzip.decompress(raw) if file.path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        return None
    return text if LEAST_CHARS <= len(text) <= MOST_BYTES and "\x00" not in text else None


def _under(entry: Path) -> Iterator[Path]:
    if entry.is_file():
        yield entry
    elif entry.is_dir():
        for place, folders, names in os.walk(entry):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "site-packages"))
            yield from (Path(place, name) for name in sorted(names))


def _kind(path: Path) -> str | None:
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending not in TYPES:
        return None
    return "man" if ending in MANUALS else ending


def _spread(path: Path) -> bytes:
    return hashlib.sha256(str(Path(*path.parts[-3:])).encode()).digest()
