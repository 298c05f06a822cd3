"""An index of the runs of letters in protected texts: hashes of every run of ``run`` letters, no text itself.

Multilinear hashing (Lemire and Kaser 2014) mod 2^64 of letters as numbers. A hash that meets by chance (one in 2^64 for
each pair) could only take an innocent run out, never let a protected one pass. A verbatim guard stops copies; a
paraphrase, a translation or an encoding passes it (Ippolito et al. 2023, "Preventing Verbatim Memorization in Language
Models Gives a False Sense of Privacy").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from operator import mul

import numpy as np
from numpy.typing import NDArray

from detectors.verbatim.letters import stretches

RUN = 48
"""Letters of a protected run by default: some ten English words, twelve ideographs."""
LEAD = 16
"""Letters of the beginnings that are indexed too: an answer that holds none of them waits for so many letters only."""
MAX_RUN = 256
MAX_CORPORA = 255
MAX_LETTERS = 64 << 20
"""Of all protected texts together; eight bytes for each lead and nine for each run."""
_MASK = (1 << 64) - 1
_FACTORS = np.frombuffer(hashlib.shake_256(b"sluice/verbatim/v1").digest(8 * (MAX_RUN + 1)), dtype="<u8")
_NUMBERS: tuple[int, ...] = tuple(_FACTORS.tolist())
Hashes = NDArray[np.uint64]


class ProtectedIndex:
    """Runs of ``run`` letters in the texts of named corpora, ``LEAD`` to ``MAX_RUN``.

    Raises ValueError for a run out of range, or for more corpora or letters than an index holds.
    """

    def __init__(self, corpora: Mapping[str, Sequence[str]], run: int = RUN) -> None:
        if not LEAD <= run <= MAX_RUN:
            raise ValueError(f"protected runs: expected {LEAD} to {MAX_RUN} letters, got {run}")
        if len(corpora) > MAX_CORPORA:
            raise ValueError(f"protected texts: expected at most {MAX_CORPORA} corpora, got {len(corpora)}")
        self.run = run
        self._names = tuple(corpora)
        leads, grams = [_EMPTY], [_EMPTY]
        owners = [np.empty(0, np.uint8)]
        size = 0
        for number, texts in enumerate(corpora.values()):
            for stretch in (stretch for text in texts for stretch in stretches(text)):
                size += len(stretch)
                if size > MAX_LETTERS:
                    raise ValueError(
                        f"protected texts: expected at most {MAX_LETTERS} letters in all, got more; protect fewer texts"
                    )
                if len(stretch) < run:
                    continue
                codes = np.array(stretch, dtype=np.uint64)
                leads.append(_hashes(codes, LEAD))
                grams.append(_hashes(codes, run))
                owners.append(np.full(len(grams[-1]), number, np.uint8))
        self._leads = np.unique(np.concatenate(leads))
        self._sieve = _sieve(self._leads)
        self._grams, first = np.unique(np.concatenate(grams), return_index=True)
        self._owners = np.concatenate(owners)[first]

    def __len__(self) -> int:
        """Runs held."""
        return len(self._grams)

    def leads(self, codes: Sequence[int]) -> bool:
        """True where ``LEAD`` letters stand somewhere in a protected run."""
        wanted = _hash(codes)
        bit = wanted & (len(self._sieve) * 8 - 1)
        return bool(self._sieve[bit >> 3] >> (bit & 7) & 1) and _at(self._leads, wanted) >= 0

    def owner(self, codes: Sequence[int]) -> str | None:
        """The corpus that holds this run of ``run`` letters; the first of several."""
        index = _at(self._grams, _hash(codes))
        return self._names[self._owners[index]] if index >= 0 else None


_EMPTY: Hashes = np.empty(0, np.uint64)


def _hashes(codes: Hashes, width: int) -> Hashes:
    """``_hash`` of every window of ``width`` letters."""
    count = len(codes) - width + 1
    found = np.full(count, _FACTORS[MAX_RUN], dtype=np.uint64)
    for offset in range(width):
        found += _FACTORS[offset] * codes[offset : offset + count]
    folded: Hashes = found ^ (found >> np.uint64(32))
    return folded


def _sieve(hashes: Hashes) -> bytes:
    """A bit for the low bits of each hash, sixteen times as many bits: it answers most questions faster."""
    bits = 1 << max(10, (16 * len(hashes)).bit_length())
    found = np.zeros(bits, np.uint8)
    found[(hashes & np.uint64(bits - 1)).astype(np.intp)] = 1
    return np.packbits(found, bitorder="little").tobytes()


def _hash(codes: Sequence[int]) -> int:
    # factors in excess of the letters are passed over
    found: int = (sum(map(mul, codes, _NUMBERS)) + _NUMBERS[MAX_RUN]) & _MASK
    return found ^ (found >> 32)


def _at(hashes: Hashes, wanted: int) -> int:
    """The index of a hash in a sorted array, -1 where it is not there."""
    index = int(np.searchsorted(hashes, np.uint64(wanted)))
    return index if index < len(hashes) and hashes[index] == wanted else -1
