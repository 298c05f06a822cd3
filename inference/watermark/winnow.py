"""Fingerprints of delivered text: Schleimer, Wilkerson, Aiken, "Winnowing" (SIGMOD 2003), and an index of them.

The exact channel beside the watermark: any copied passage of at least ``GUARANTEE`` letters and digits is found, also
after changes of case, spaces and punctuation. Hashes are keyed, so a reader of the index does not learn the texts.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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


class Fingerprints(NamedTuple):
    """Hashes of a text, and the characters at which their passages start and end: ``[n]`` each."""

    hashes: Hashes
    starts: Positions
    ends: Positions


class Winnower:
    """Fingerprints under one key: multilinear hashing (Lemire and Kaser 2014) of ``GRAM`` letters, mod 2^64."""

    def __init__(self, key: bytes) -> None:
        stream = hashlib.shake_256(b"sluice/winnow/v1" + len(key).to_bytes(2, "big") + key).digest(8 * (GRAM + 1))
        self._factors = np.frombuffer(stream, dtype="<u8")

    def fingerprints(self, text: str) -> Fingerprints:
        """Fingerprints of a text. Raises ValueError for a text too long."""
        if len(text) > MAX_TEXT:
            raise ValueError(f"fingerprints: expected at most {MAX_TEXT} characters, got {len(text)}")
        letters, origins = normalised(text)
        if len(letters) < GRAM:
            empty = np.empty(0, np.intp)
            return Fingerprints(np.empty(0, np.int64), empty, empty)
        chosen, hashes = self._winnow(self._hash(letters))
        return Fingerprints(hashes, origins[chosen], origins[chosen + GRAM - 1] + 1)

    def packed(self, text: str) -> bytes:
        """The first ``MAX_KEPT`` distinct fingerprints, eight bytes each, little-endian: what a record keeps."""
        hashes = self.fingerprints(text[:MAX_TEXT]).hashes
        distinct = list(dict.fromkeys(hashes.tolist()))
        return np.array(distinct[:MAX_KEPT], dtype="<i8").tobytes()

    def _hash(self, letters: str) -> NDArray[np.uint64]:
        """Hashes of all passages of ``GRAM`` letters: ``[letters - GRAM + 1]``."""
        codes = np.frombuffer(letters.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
        count = len(codes) - GRAM + 1
        hashes = np.full(count, self._factors[GRAM], dtype=np.uint64)
        for offset in range(GRAM):
            hashes += self._factors[offset] * codes[offset : offset + count]
        # only the high half is strongly universal; fold it down so that no stored bit is weak
        return hashes ^ (hashes >> np.uint64(32))

    def _winnow(self, hashes: NDArray[np.uint64]) -> tuple[Positions, Hashes]:
        """Positions of the least hash of each window, and those hashes."""
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
        found = self._winnower.fingerprints(text)
        return self._keep(tenant, name, found.hashes, found.starts)

    def add_packed(self, tenant: str, name: str, packed: bytes) -> int:
        """Keep the fingerprints of a record, whose text is not at hand. Raises ValueError."""
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
        found = self._winnower.fingerprints(text)
        hashes = found.hashes.tolist()
        overlaps: dict[int, _Overlap] = {}
        for hash_, start, end in zip(hashes, found.starts.tolist(), found.ends.tolist(), strict=True):
            query = "SELECT DISTINCT document FROM fingerprint WHERE hash = ?"
            for (document,) in self._base.execute(query, (hash_,)):
                overlaps.setdefault(document, _Overlap(start, end)).add(hash_, start, end)
        distinct = max(len(set(hashes)), 1)
        passages = []
        for document, overlap in overlaps.items():
            shared = len(overlap.hashes)
            if shared >= least:
                query = "SELECT tenant, name FROM document WHERE id = ?"
                tenant, name = self._base.execute(query, (document,)).fetchone()
                passages.append(SharedPassage(tenant, name, overlap.start, overlap.end, shared, shared / distinct))
        return sorted(passages, key=lambda passage: (-passage.shared, passage.tenant, passage.name))

    def close(self) -> None:
        """Close the file."""
        self._base.close()


@dataclass(slots=True)
class _Overlap:
    """Fingerprints that a suspect shares with one document, and the characters of the suspect that they span."""

    start: int
    end: int
    hashes: set[int] = field(default_factory=set)

    def add(self, hash_: int, start: int, end: int) -> None:
        self.hashes.add(hash_)
        self.start = min(self.start, start)
        self.end = max(self.end, end)
