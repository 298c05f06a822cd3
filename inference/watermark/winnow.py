"""Fingerprints of delivered text: Schleimer, Wilkerson, Aiken, "Winnowing" (SIGMOD 2003), and an index of them.

The exact channel beside the watermark: any copied passage of at least ``GUARANTEE`` letters and digits is found,
whatever was done to case, spaces and punctuation. Hashes are keyed, so the index tells nobody what was delivered.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GRAM, WINDOW = 30, 21
GUARANTEE = GRAM + WINDOW - 1
"""Every common passage of this many letters and digits shares a fingerprint."""
MAX_TEXT = 4 << 20
"""Characters of one text."""
MAX_KEPT = 1024
"""Fingerprints packed for the record of one answer: some eleven thousand letters. What follows is not traced."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS fingerprint (hash INTEGER NOT NULL, document INTEGER NOT NULL, position INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_hash ON fingerprint (hash);
"""
Hashes = NDArray[np.int64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SharedPassage:
    """A delivered text that shares fingerprints with a suspect; ``start`` and ``end`` are characters of the suspect."""

    tenant: str
    name: str
    start: int
    end: int
    shared: int
    """Fingerprints in common."""
    share: float
    """Of the suspect's fingerprints."""


def unpacked(packed: bytes) -> Hashes:
    """The hashes of ``Winnower.packed``. Raises ValueError for bytes that are none."""
    return np.frombuffer(packed, dtype="<i8").astype(np.int64)


def normalised(text: str) -> tuple[str, Positions]:
    """Letters and digits (NFKC, case folded), and for each the character of ``text`` it came from."""
    kept: list[str] = []
    origins: list[int] = []
    for index, letter in enumerate(text):
        if letter.isascii():
            folded = letter.lower() if letter.isalnum() else ""
        else:
            folded = "".join(c for c in unicodedata.normalize("NFKC", letter).casefold() if c.isalnum())
        kept.append(folded)
        origins.extend([index] * len(folded))
    return "".join(kept), np.array(origins, dtype=np.intp)


class Winnower:
    """Fingerprints under one key: multilinear hashing (Lemire and Kaser 2014) of ``GRAM`` letters, mod 2^64."""

    def __init__(self, key: bytes) -> None:
        stream = hashlib.shake_256(b"sluice/winnow/v1" + len(key).to_bytes(2, "big") + key).digest(8 * (GRAM + 1))
        self._factors = np.frombuffer(stream, dtype="<u8")

    def fingerprints(self, text: str) -> tuple[Hashes, Positions, Positions]:
        """Hashes, and where their passages start and end in ``text``. Raises ValueError for a text too long."""
        if len(text) > MAX_TEXT:
            raise ValueError(f"fingerprints: expected at most {MAX_TEXT} characters, got {len(text)}")
        letters, origins = normalised(text)
        if len(letters) < GRAM:
            empty = np.empty(0, np.intp)
            return np.empty(0, np.int64), empty, empty
        chosen, hashes = self._winnow(self._hash(letters))
        return hashes, origins[chosen], origins[chosen + GRAM - 1] + 1

    def packed(self, text: str) -> bytes:
        """The first ``MAX_KEPT`` distinct fingerprints, eight bytes each, little-endian: what a record keeps."""
        hashes, _, _ = self.fingerprints(text[:MAX_TEXT])
        return np.array(list(dict.fromkeys(hashes.tolist()))[:MAX_KEPT], dtype="<i8").tobytes()

    def _hash(self, letters: str) -> NDArray[np.uint64]:
        codes = np.frombuffer(letters.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
        count = len(codes) - GRAM + 1
        found = np.full(count, self._factors[GRAM], dtype=np.uint64)
        for offset in range(GRAM):
            found += self._factors[offset] * codes[offset : offset + count]
        # only the high half is strongly universal; fold it down so that no stored bit is weak
        return found ^ (found >> np.uint64(32))

    def _winnow(self, hashes: NDArray[np.uint64]) -> tuple[Positions, Hashes]:
        width = min(WINDOW, len(hashes))
        windows = np.lib.stride_tricks.sliding_window_view(hashes, width)
        # the rightmost of equal minima, as the paper has it
        last = width - 1 - np.argmin(windows[:, ::-1], axis=1)
        chosen = np.unique(last + np.arange(len(windows)))
        return chosen, hashes[chosen].view(np.int64)


class FingerprintIndex:
    """Fingerprints of delivered texts by tenant and name (a request id), in one SQLite file; of one thread."""

    def __init__(self, path: Path | None, key: bytes) -> None:
        self._winnower = Winnower(key)
        self._base = sqlite3.connect(str(path) if path is not None else ":memory:")
        self._base.executescript(_SCHEMA)

    def add(self, tenant: str, name: str, text: str) -> int:
        """Keep a text's fingerprints; gives their number. A name that is there already changes nothing."""
        hashes, starts, _ = self._winnower.fingerprints(text)
        return self._keep(tenant, name, hashes, starts)

    def add_packed(self, tenant: str, name: str, packed: bytes) -> int:
        """Likewise with the fingerprints of a record, whose text is not at hand. Raises ValueError."""
        hashes = unpacked(packed)
        return self._keep(tenant, name, hashes, np.full(len(hashes), -1, np.intp))

    def _keep(self, tenant: str, name: str, hashes: Hashes, starts: Positions) -> int:
        with self._base:
            row = self._base.execute(
                "INSERT INTO document (tenant, name) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id", (tenant, name)
            ).fetchone()
            if row is None:
                return 0
            rows = ((int(h), row[0], int(start)) for h, start in zip(hashes, starts, strict=True))
            self._base.executemany("INSERT INTO fingerprint VALUES (?, ?, ?)", rows)
        return len(hashes)

    def find(self, text: str, least: int = 1) -> list[SharedPassage]:
        """Delivered texts that share at least ``least`` fingerprints with ``text``, most shared first."""
        hashes, starts, ends = self._winnower.fingerprints(text)
        spans: dict[int, tuple[int, int, set[int]]] = {}
        for found, start, end in zip(hashes.tolist(), starts.tolist(), ends.tolist(), strict=True):
            query = "SELECT DISTINCT document FROM fingerprint WHERE hash = ?"
            for (document,) in self._base.execute(query, (found,)):
                first, last, shared = spans.get(document, (start, end, set()))
                shared.add(found)
                spans[document] = (min(first, start), max(last, end), shared)
        distinct = max(len(set(hashes.tolist())), 1)
        passages = []
        for document, (start, end, shared) in spans.items():
            if len(shared) >= least:
                tenant, name = self._base.execute(
                    "SELECT tenant, name FROM document WHERE id = ?", (document,)
                ).fetchone()
                passages.append(SharedPassage(tenant, name, start, end, len(shared), len(shared) / distinct))
        return sorted(passages, key=lambda passage: (-passage.shared, passage.tenant, passage.name))

    def close(self) -> None:
        self._base.close()
