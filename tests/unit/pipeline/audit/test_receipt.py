"""A receipt proves one record; any change to it proves nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.checkpoint import Verifiers
from pipeline.audit.leaves import leaf_value
from pipeline.audit.merkle import Frontier, inclusion_proof, leaf_hash
from pipeline.audit.receipt import batch_proof, check_receipt, prove, write_receipt
from pipeline.errors import Malformed
from pipeline.tables import RECORDS
from tests.unit.pipeline.audit.audit_world import KEYS, Store, decisions

VERIFIERS = Verifiers(KEYS.verifier_keys)
STORE = decisions()
_OFFSET, _TIME, _BODY = (RECORDS.columns.index(name) for name in ("offset", "time", "body"))


def record(row: Sequence[Any]) -> tuple[int, int, bytes]:
    return row[_OFFSET], row[_TIME], row[_BODY]


def receipt(store: Store, leaf: int) -> str:
    framed = [record(row) for row in store.rows]
    proof = inclusion_proof([leaf_hash(leaf_value(*record)) for record in framed], leaf)
    return write_receipt(*framed[leaf], leaf, proof, store.sealed[-1].checkpoint)


@pytest.mark.parametrize("leaf", range(len(STORE.rows)))
def test_every_record_has_a_receipt(leaf: int) -> None:
    found = check_receipt(receipt(STORE, leaf), VERIFIERS)
    assert found.leaf == leaf
    assert (found.offset, found.time, found.value) == record(STORE.rows[leaf])
    assert found.checkpoint.origin == STORE.name


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_character_of_a_receipt_can_be_changed(data: st.DataObject) -> None:
    text = receipt(STORE, 3)
    at = data.draw(st.integers(0, len(text) - 1))
    altered = text[:at] + data.draw(st.characters(codec="ascii")) + text[at + 1 :]
    if altered == text:
        return
    with pytest.raises(Malformed):
        check_receipt(altered, VERIFIERS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("index 3", "index 4"),
        ("index 3", "index 03"),
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("extra ", "extra " + base64.b64encode(b"x").decode()),
        ("index 3\n", "index 3\n" + base64.b64encode(b"n" * 32).decode() + "\n"),
        ("\n\n", "\n"),
    ],
)
def test_an_altered_receipt_is_refused(before: str, after: str) -> None:
    with pytest.raises(Malformed):
        check_receipt(receipt(STORE, 3).replace(before, after, 1), VERIFIERS)


def test_a_record_that_is_not_in_the_log_has_no_receipt() -> None:
    head, _, note = receipt(STORE, 3).partition("\n\n")
    other = base64.b64encode(leaf_value(3, 5, b"never happened")).decode()
    lines = [f"extra {other}" if line.startswith("extra") else line for line in head.split("\n")]
    with pytest.raises(Malformed, match="is not leaf 3"):
        check_receipt("\n".join(lines) + "\n\n" + note, VERIFIERS)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 70), st.integers(1, 70), st.data())
def test_a_proof_from_one_batch_is_the_proof_from_the_whole_tree(start: int, count: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes((number,))) for number in range(start + count)]
    index = data.draw(st.integers(start, start + count - 1))
    before = Frontier()
    before.extend(leaves[:start])
    assert batch_proof(before, leaves[start:], index) == inclusion_proof(leaves, index)


def test_every_record_is_proven_by_its_own_batch() -> None:
    before = None
    for manifest in STORE.sealed:
        low = manifest.size - manifest.rows
        records = [record(row) for row in STORE.rows[low : manifest.size]]
        for leaf in range(low, manifest.size):
            found = check_receipt(prove(manifest, before, records, leaf), VERIFIERS)
            assert (found.leaf, found.value) == (leaf, records[leaf - low][2])
            assert found.checkpoint.size == manifest.size
        before = manifest


def test_rows_that_were_altered_give_no_receipt() -> None:
    first, second = STORE.sealed[:2]
    records = [record(row) for row in STORE.rows[first.size : second.size]]
    with pytest.raises(Malformed, match="expected leaf"):
        prove(second, first, records, first.size - 1)
    with pytest.raises(Malformed, match="expected leaf"):
        prove(second, first, records[1:], first.size)
    with pytest.raises(Malformed, match="do not give the root"):
        prove(second, first, [(*records[0][:2], b"other"), *records[1:]], first.size)


def test_a_receipt_is_bounded() -> None:
    with pytest.raises(Malformed, match="at most"):
        check_receipt("x" * 5_000_000, VERIFIERS)
