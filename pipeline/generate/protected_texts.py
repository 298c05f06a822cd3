"""The operator's protected texts, read once when a worker starts and kept as hashes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from detectors.verbatim import ProtectedIndex
from pipeline.errors import ConfigError

MAX_FILE = 64 << 20
"""Bytes of one protected text."""
_SUFFIXES = frozenset({".txt", ".md"})


def read_protected(setting: str) -> ProtectedIndex | None:
    """An index of the text files that ``generate.protected`` names, and of those (.txt, .md) in folders it names.

    A file's name without its suffix is what findings tell. None where nothing is named. Raises ConfigError.
    """
    corpora: dict[str, list[str]] = {}
    try:
        for path in _files(setting):
            corpora.setdefault(re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:64], []).append(_text(path))
        index = ProtectedIndex({name: corpora[name] for name in sorted(corpora)})
    except ValueError as error:
        raise ConfigError(f"generate.protected: {error}") from error
    except OSError as error:
        raise ConfigError(f"generate.protected {error.filename}: {error.strerror}") from error
    if corpora and not index:
        raise ConfigError(f"generate.protected: expected a text of at least {index.run} letters, got none")
    return index or None


def _files(setting: str) -> Iterator[Path]:
    for name in filter(None, (part.strip() for part in setting.split(","))):
        path = Path(name)
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        else:
            yield path


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise ValueError(f"{path}: expected at most {MAX_FILE} bytes; cut it")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, byte {error.start} is none; save it as UTF-8") from None
