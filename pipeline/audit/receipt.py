"""A receipt proves that a record is in the log, by a signed checkpoint and without the operator.

The proof is a c2sp.org/tlog-proof text. Its ``extra`` line carries the framed record (see leaves.leaf_value), so the
receipt alone suffices; a checker believes nothing of it before the path leads to the signed root.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.audit.checkpoint import MAX_NOTE_BYTES, Checkpoint, Verifiers, open_checkpoint
from pipeline.audit.leaves import leaf_value, read_leaf
from pipeline.audit.merkle import Frontier, leaf_hash, node_hash, root, verify_inclusion
from pipeline.errors import Malformed
from pipeline.events.messages import Manifest

VERSION = "c2sp.org/tlog-proof@v1"
MAX_RECORD_BYTES = 2 * 1024 * 1024
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record is in the log: its leaf index, source offset, time (Unix ms) and stored bytes."""

    checkpoint: Checkpoint
    leaf: int
    offset: int
    time: int
    value: bytes


def write_receipt(offset: int, time: int, value: bytes, leaf: int, proof: Sequence[bytes], note: str) -> str:
    """Write the receipt of one record; ``proof`` from merkle.inclusion_proof over the leaves under ``note``."""
    framed = base64.b64encode(leaf_value(offset, time, value)).decode("ascii")
    path = "".join(base64.b64encode(node).decode("ascii") + "\n" for node in proof)
    return f"{VERSION}\nextra {framed}\nindex {leaf}\n{path}\n{note}"


def prove(manifest: Manifest, before: Manifest | None, records: Sequence[tuple[int, int, bytes]], leaf: int) -> str:
    """Write the receipt of ``leaf`` under the checkpoint of the batch that sealed it: needs nothing but that batch.

    ``before`` is the manifest before (None for the first), ``records`` offset, time (Unix ms) and stored bytes of all
    rows of the batch in leaf order. Raises Malformed where they do not belong together.
    """
    edge = Frontier(before.size, before.frontier) if before is not None else Frontier()
    if len(records) != manifest.rows or not edge.size <= leaf < edge.size + len(records):
        raise Malformed(f"receipt: expected leaf {leaf} among {manifest.rows} rows, got {len(records)} rows")
    leaves = [leaf_hash(leaf_value(*record)) for record in records]
    proof = batch_proof(edge, leaves, leaf)
    text = write_receipt(*records[leaf - edge.size], leaf, proof, manifest.checkpoint)
    if not verify_inclusion(leaves[leaf - edge.size], leaf, manifest.size, proof, manifest.root):
        raise Malformed(f"receipt: the rows do not give the root of batch {manifest.index}; run: sluice audit verify")
    return text


def batch_proof(before: Frontier, leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Give the RFC 6962 inclusion proof of leaf ``index`` in the tree of ``before`` and the leaf hashes behind it.

    Every sibling on its path that lies left of the batch is one of the subtrees on the right edge of ``before``,
    since a larger complete one would contain the leaf.
    """
    start = before.size
    edge: dict[tuple[int, int], bytes] = {}
    low = 0
    for width, node in zip(_widths(start), before.hashes, strict=True):
        edge[low, low + width] = node
        low += width

    def subtree(low: int, high: int) -> bytes:
        if low >= start:
            return root(leaves[low - start : high - start])
        known = edge.get((low, high))
        if known is not None:
            return known
        middle = low + _half(high - low)
        return node_hash(subtree(low, middle), subtree(middle, high))

    path: list[bytes] = []
    low, high = 0, start + len(leaves)
    while high - low > 1:
        middle = low + _half(high - low)
        if index < middle:
            path.append(subtree(middle, high))
            high = middle
        else:
            path.append(subtree(low, middle))
            low = middle
    return path[::-1]


def check_receipt(text: str, verifiers: Verifiers) -> Receipt:
    """Check a receipt. Raises Malformed where a signature, the path or a byte is not as signed."""
    if len(text) > 2 * MAX_RECORD_BYTES + MAX_NOTE_BYTES:
        raise Malformed(f"receipt: expected at most {2 * MAX_RECORD_BYTES + MAX_NOTE_BYTES} characters")
    head, gap, note = text.partition("\n\n")
    lines = head.split("\n")
    if not gap or len(lines) < 3 or lines[0] != VERSION or not lines[1].startswith("extra "):
        raise Malformed(f"receipt: expected {VERSION}, a line extra, a line index, a path, and a checkpoint")
    index = _INDEX.fullmatch(lines[2])
    if index is None or len(lines) - 3 > _MAX_PATH:
        raise Malformed(f"receipt: expected index and a path of at most {_MAX_PATH} hashes")
    framed, path = _raw(lines[1].removeprefix("extra ")), [_raw(line) for line in lines[3:]]
    offset, time, value = read_leaf(framed)
    checkpoint = open_checkpoint(note, verifiers)
    leaf = int(index[1])
    if not verify_inclusion(leaf_hash(framed), leaf, checkpoint.size, path, checkpoint.root):
        raise Malformed(f"receipt: the record is not leaf {leaf} of the {checkpoint.size} under the checkpoint")
    return Receipt(checkpoint, leaf, offset, time, value)


def _half(count: int) -> int:
    """Give the largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _widths(size: int) -> list[int]:
    """Count the leaves under each node of the right edge, largest first."""
    return [1 << level for level in reversed(range(size.bit_length())) if size >> level & 1]


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("receipt: expected standard base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise Malformed("receipt: expected canonical base64")
    return raw
