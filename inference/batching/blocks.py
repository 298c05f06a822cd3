"""Blocks of the KV cache and the requests that hold them. Pure arithmetic: block numbers in, block numbers out.

Paged attention's bookkeeping (Kwon et al., SOSP 2023): blocks with reference counts, full ones named by their prefix
(``prefix``) so that a tenant's later request can hold them too, and copied before anything is written into a
block that is partly another's. A block without a holder is either free, and then zeroed, or idle: still named, so it
may be held again, until space is needed. Nothing of one tenant is ever in a block that another gets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference.batching.prefix import PrefixKeys
from inference.ports import ERASE, Move

MAX_CANDIDATES = 16
"""Blocks after one prefix that are compared for a partial match; bounds the work of an admission."""


class NoBlocks(Exception):
    """Every block is held by a running request."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A named block: the key of its prefix, its parent's key, and its tokens."""

    key: bytes
    parent: bytes
    tokens: tuple[int, ...]


@dataclass(slots=True)
class BlockTable:
    """The blocks of one request in the order of its positions; ``keys`` name those that are full so far."""

    root: bytes
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    @property
    def tip(self) -> bytes:
        """The name that the next full block follows."""
        return self.keys[-1] if self.keys else self.root


class BlockPool:
    """``blocks`` blocks of ``size`` positions each.

    ``moves`` collects what must be done to the cache's memory, in order, before the next step computes.
    """

    def __init__(self, blocks: int, size: int, keys: PrefixKeys) -> None:
        if blocks < 1 or size < 1:
            raise ValueError(f"expected at least one block of at least one position, got {blocks} of {size}")
        self.total = blocks
        self.size = size
        self.moves: list[Move] = []
        self._keys = keys
        self._free = list(range(blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._holders = [0] * blocks
        self._names: dict[int, _Name] = {}
        self._by_key: dict[bytes, int] = {}
        self._children: dict[bytes, dict[bytes, int]] = {}

    @property
    def available(self) -> int:
        """Blocks that no request holds."""
        return len(self._free) + len(self._idle)

    @property
    def named(self) -> int:
        """Blocks that a later request of the same tenant could hold too."""
        return len(self._names)

    def needed(self, tokens: int) -> int:
        """Blocks that ``tokens`` positions take."""
        return -(-tokens // self.size)

    def match(self, root: bytes, tokens: Sequence[int]) -> BlockTable:
        """A table that holds the cached full blocks of ``tokens``, short of the last token: its logits are wanted."""
        table = BlockTable(root)
        start = 0
        while start + self.size <= len(tokens) - 1:
            wanted = tuple(tokens[start : start + self.size])
            key = self._keys.follow(table.tip, wanted)
            block = self._by_key.get(key)
            if block is None or self._names[block].tokens != wanted:
                break
            self._hold(block)
            table.blocks.append(block)
            table.keys.append(key)
            start += self.size
        return table

    def fork(self, table: BlockTable, tokens: Sequence[int]) -> int:
        """Positions of ``tokens`` that a table fresh from ``match`` covers, once the next block is looked for too.

        A cached block that only begins like what follows is copied into a new one (copy on write), where one is to be
        had: what comes after differs, and others may hold the original.
        """
        start = len(table.blocks) * self.size
        return start + self._copy_partly(table, tokens[start : min(len(tokens) - 1, start + self.size)])

    def extend(self, table: BlockTable, tokens: int) -> None:
        """Take blocks until the table covers ``tokens`` positions; ``NoBlocks`` leaves it as far as it came."""
        while len(table.blocks) < self.needed(tokens):
            table.blocks.append(self._take())

    def name_full(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Name the blocks that ``tokens``, all computed, have filled, so that later requests find them."""
        while (len(table.keys) + 1) * self.size <= len(tokens):
            index = len(table.keys)
            filled = tuple(tokens[index * self.size : (index + 1) * self.size])
            parent = table.tip
            key = self._keys.follow(parent, filled)
            table.keys.append(key)
            # of two requests that computed the same at once, the first to finish a block names it
            if key not in self._by_key:
                self._names[table.blocks[index]] = _Name(key, parent, filled)
                self._by_key[key] = table.blocks[index]
                self._children.setdefault(parent, {})[key] = table.blocks[index]

    def release(self, table: BlockTable, *, spoiled: bool = False) -> None:
        """Give up a table's blocks; ``spoiled`` ones, of a request that failed, are not found again."""
        # from the end: of a chain, the last block is the first to be taken for something else
        for block in reversed(table.blocks):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if spoiled and block in self._names:
                self._unname(block)
            if block in self._names:
                self._idle[block] = None
            else:
                self._erase(block)
                self._free.append(block)
        table.blocks, table.keys = [], []

    def take_moves(self) -> list[Move]:
        """The moves collected since the last call."""
        moves, self.moves = self.moves, []
        return moves

    def _copy_partly(self, table: BlockTable, rest: Sequence[int]) -> int:
        """Copy the cached block that begins most like ``rest``; gives the tokens in common."""
        best, common = -1, 0
        for block in list(self._children.get(table.tip, {}).values())[:MAX_CANDIDATES]:
            same = _common(self._names[block].tokens, rest)
            if same > common:
                best, common = block, same
        if not common:
            return 0
        # held meanwhile, or taking a block might evict the very one to be copied
        self._hold(best)
        try:
            copy = self._take()
            self.moves.append((best, copy))
            table.blocks.append(copy)
        except NoBlocks:
            common = 0
        finally:
            self.release(BlockTable(b"", [best]))
        return common

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _take(self) -> int:
        if not self._free:
            if not self._idle:
                raise NoBlocks
            block, _ = self._idle.popitem(last=False)
            self._unname(block)
            self._erase(block)
            self._free.append(block)
        block = self._free.pop()
        self._holders[block] = 1
        return block

    def _erase(self, block: int) -> None:
        self.moves.append((ERASE, block))

    def _unname(self, block: int) -> None:
        name = self._names.pop(block)
        del self._by_key[name.key]
        siblings = self._children[name.parent]
        del siblings[name.key]
        if not siblings:
            del self._children[name.parent]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
