"""The tree against a slow recursive reading of RFC 6962, and proofs against every kind of lie."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit import merkle
from pipeline.audit.merkle import Frontier

VALUES = st.lists(st.binary(max_size=8), min_size=0, max_size=70)


def reference_root(values: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as written there."""
    if not values:
        return hashlib.sha256(b"").digest()
    if len(values) == 1:
        return hashlib.sha256(b"\x00" + values[0]).digest()
    k = 1
    while k * 2 < len(values):
        k *= 2
    return hashlib.sha256(b"\x01" + reference_root(values[:k]) + reference_root(values[k:])).digest()


def reference_path(m: int, values: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(values) == 1:
        return []
    k = 1
    while k * 2 < len(values):
        k *= 2
    if m < k:
        return [*reference_path(m, values[:k]), reference_root(values[k:])]
    return [*reference_path(m - k, values[k:]), reference_root(values[:k])]


def reference_subproof(m: int, values: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if m == len(values):
        return [] if whole else [reference_root(values)]
    k = 1
    while k * 2 < len(values):
        k *= 2
    if m <= k:
        return [*reference_subproof(m, values[:k], whole), reference_root(values[k:])]
    return [*reference_subproof(m - k, values[k:], False), reference_root(values[:k])]


def test_published_vector() -> None:
    """The eight leaves of the certificate-transparency reference tests."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    hashes = merkle.leaf_hashes(bytes.fromhex(text) for text in inputs)
    assert merkle.root(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(VALUES)
def test_root_is_the_reference(values: list[bytes]) -> None:
    assert merkle.root(merkle.leaf_hashes(values)) == reference_root(values)


@given(VALUES, st.lists(st.integers(0, 70), max_size=5))
def test_any_split_gives_the_same_edge(values: list[bytes], cuts: list[int]) -> None:
    leaves = merkle.leaf_hashes(values)
    frontier, start = Frontier(), 0
    for cut in [*sorted(min(cut, len(leaves)) for cut in cuts), len(leaves)]:
        frontier = Frontier(frontier.size, frontier.hashes)
        frontier.extend(leaves[start:cut])
        start = cut
        assert frontier.root() == reference_root(values[:cut])
        assert frontier.size == cut


@given(VALUES.filter(bool), st.data())
def test_inclusion(values: list[bytes], pick: st.DataObject) -> None:
    leaves, size = merkle.leaf_hashes(values), len(values)
    index = pick.draw(st.integers(0, size - 1))
    top, proof = merkle.root(leaves), merkle.inclusion_proof(leaves, index)
    assert proof == reference_path(index, values)
    assert merkle.verify_inclusion(leaves[index], index, size, proof, top)
    lie = merkle.leaf_hash(values[index] + b"!")
    assert not merkle.verify_inclusion(lie, index, size, proof, top)
    assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, top], top)
    assert not merkle.verify_inclusion(leaves[index], size, size, proof, top)
    if proof:
        assert not merkle.verify_inclusion(leaves[index], index, size, proof[:-1], top)
        assert not merkle.verify_inclusion(leaves[index], index, size, [lie, *proof[1:]], top)


@given(VALUES, st.data())
def test_consistency(values: list[bytes], pick: st.DataObject) -> None:
    leaves, size = merkle.leaf_hashes(values), len(values)
    first = pick.draw(st.integers(0, size))
    older, newer = merkle.root(leaves[:first]), merkle.root(leaves)
    proof = merkle.consistency_proof(leaves, first)
    if 0 < first < size:
        assert proof == reference_subproof(first, values, True)
    assert merkle.verify_consistency(first, size, older, newer, proof)
    lie = merkle.leaf_hash(b"another history")
    assert not merkle.verify_consistency(first, size, lie, newer, proof)
    assert not merkle.verify_consistency(first, size, older, newer, [*proof, lie])
    if 0 < first < size:
        assert not merkle.verify_consistency(first, size, older, lie, proof)
        assert not merkle.verify_consistency(first, size, older, newer, proof[:-1])


def test_edges_and_indexes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 hashes"):
        Frontier(3, (merkle.EMPTY_ROOT,))
    with pytest.raises(ValueError, match="below 1"):
        merkle.inclusion_proof([merkle.EMPTY_ROOT], 1)
    with pytest.raises(ValueError, match="at most 1"):
        merkle.consistency_proof([merkle.EMPTY_ROOT], 2)
