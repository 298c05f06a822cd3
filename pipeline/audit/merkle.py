"""Merkle trees are those of RFC 6962 section 2.1 over SHA-256: roots, right edge, inclusion and consistency proofs.

Proofs are verified with the algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2, which use no recursion and so cost
what the proof is long. All hashes are 32 bytes; leaf indexes and sizes count leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
_sha256 = hashlib.sha256


def leaf_hash(value: bytes) -> bytes:
    """Hash one leaf: SHA-256(0x00 || value)."""
    return _sha256(b"\x00" + value).digest()


def leaf_hashes(values: Iterable[bytes]) -> list[bytes]:
    """Hash many leaves."""
    sha256 = _sha256
    return [sha256(b"\x00" + value).digest() for value in values]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node: SHA-256(0x01 || left || right)."""
    return _sha256(b"\x01" + left + right).digest()


def _pair(nodes: list[bytes]) -> list[bytes]:
    """Give the parents of an even number of neighbours."""
    sha256, each = _sha256, iter(nodes)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(each, each, strict=True)]


def root(leaves: Sequence[bytes]) -> bytes:
    """Give the root over leaf hashes; SHA-256 of nothing for an empty tree."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


class Frontier:
    """The right edge of a tree, the roots of its perfect subtrees, is enough to append to it."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Raises ValueError unless there is one 32-byte hash for each one-bit of ``size``."""
        if size < 0 or len(hashes) != size.bit_count() or any(len(h) != HASH_BYTES for h in hashes):
            raise ValueError(
                f"frontier of {size} leaves: expected {max(size, 0).bit_count()} hashes of 32 bytes, got {len(hashes)}"
            )
        self.size = size
        levels = [level for level in range(size.bit_length()) if size >> level & 1]
        self._at: dict[int, bytes] = dict(zip(reversed(levels), hashes, strict=True))

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Give the roots of the perfect subtrees, largest first."""
        return tuple(self._at[level] for level in sorted(self._at, reverse=True))

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append leaf hashes, level by level: each level's leftover waits in the edge, its pairs go one up."""
        nodes, level = list(leaves), 0
        while nodes:
            waiting = self._at.pop(level, None)
            if waiting is not None:
                nodes.insert(0, waiting)
            if len(nodes) & 1:
                self._at[level] = nodes.pop()
            nodes, level = _pair(nodes), level + 1
        self.size += len(leaves)

    def root(self) -> bytes:
        """Give the root of the tree so far."""
        if not self._at:
            return EMPTY_ROOT
        levels = sorted(self._at)
        top = self._at[levels[0]]
        for level in islice(levels, 1, None):
            top = node_hash(self._at[level], top)
        return top


def _split(count: int) -> int:
    """Give the largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Give the sibling hashes from leaf ``index`` up (RFC 6962 section 2.1.1). Raises ValueError when out of range."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"inclusion proof: expected an index below {len(leaves)}, got {index}")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(root(leaves[middle:high]))
            high = middle
        else:
            path.append(root(leaves[low:middle]))
            low = middle
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Tell whether ``leaf`` is number ``index`` of the tree of ``size`` leaves whose root is ``expected``."""
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    top = leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            top = node_hash(sibling, top)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and top == expected


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """Give nodes which show that the tree of the first ``first`` leaves is the start of this one (RFC 6962 2.1.2)."""
    if not 0 <= first <= len(leaves):
        raise ValueError(f"consistency proof: expected at most {len(leaves)} leaves, got {first}")
    if first in (0, len(leaves)):
        return []
    path: list[bytes] = []
    low, high = 0, len(leaves)
    whole = True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            path.append(root(leaves[middle:high]))
            high = middle
        else:
            path.append(root(leaves[low:middle]))
            low, whole = middle, False
    if not whole:
        path.append(root(leaves[low:high]))
    return path[::-1]


def verify_consistency(first: int, size: int, first_root: bytes, expected: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether the tree of ``first`` leaves begins the tree of ``size`` leaves. Anything extends nothing."""
    if not 0 <= first <= size:
        return False
    if first == 0 or first == size:
        known = EMPTY_ROOT if first == 0 else expected
        return not proof and first_root == known and (size > 0 or expected == EMPTY_ROOT)
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        return False
    node, last = first - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and older == first_root and newer == expected
