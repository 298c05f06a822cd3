"""Who holds which block: counts, copies, erasures, and names that do not cross tenants."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batching.blocks import BlockPool, BlockTable, NoBlocks
from inference.batching.prefix import PrefixKeys
from inference.ports import ERASE

KEYS = PrefixKeys(bytes(32))
ALPHA, BETA = KEYS.root("alpha", b"m"), KEYS.root("beta", b"m")


def pool(blocks: int = 8, size: int = 4) -> BlockPool:
    return BlockPool(blocks, size, KEYS)


def fill(into: BlockPool, root: bytes, tokens: list[int]) -> tuple[BlockTable, int]:
    """A request that was admitted and computed to the end of ``tokens``; and how much it found."""
    table = into.match(root, tokens)
    found = into.fork(table, tokens)
    into.extend(table, len(tokens))
    into.name_full(table, tokens)
    return table, found


def test_a_later_request_of_the_tenant_holds_the_same_blocks_and_computes_the_last_token() -> None:
    blocks, tokens = pool(), list(range(8))
    first, found = fill(blocks, ALPHA, tokens)
    assert found == 0
    second = blocks.match(ALPHA, tokens)
    assert second.blocks == first.blocks[:1], "the block of the last token is not held but copied"
    assert blocks.fork(second, tokens) == 7
    assert blocks.take_moves() == [(first.blocks[1], second.blocks[1])]
    assert second.blocks[1] != first.blocks[1]


def test_a_block_that_begins_alike_is_copied_before_it_differs() -> None:
    blocks = pool()
    first, _ = fill(blocks, ALPHA, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    table = blocks.match(ALPHA, [1, 2, 3, 4, 5, 6, 0, 0, 0])
    assert table.blocks == first.blocks[:1]
    assert blocks.fork(table, [1, 2, 3, 4, 5, 6, 0, 0, 0]) == 6
    assert blocks.take_moves() == [(first.blocks[1], table.blocks[1])]


@pytest.mark.parametrize("root", [BETA, KEYS.root("alpha", b"other model"), PrefixKeys(b"x" * 32).root("alpha", b"m")])
def test_nothing_is_found_under_another_tenant_model_or_secret(root: bytes) -> None:
    blocks, tokens = pool(), list(range(8))
    fill(blocks, ALPHA, tokens)
    blocks.take_moves()
    table = blocks.match(root, tokens)
    assert (table.blocks, blocks.fork(table, tokens), blocks.take_moves()) == ([], 0, [])


def test_an_equal_name_with_other_tokens_is_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefixKeys, "follow", lambda *_: b"collision")
    blocks = pool()
    fill(blocks, ALPHA, [1, 2, 3, 4, 5])
    assert blocks.match(ALPHA, [9, 9, 9, 9, 9]).blocks == []


def test_roots_keep_fields_apart_and_short_secrets_are_refused() -> None:
    assert KEYS.root("ab", b"c") != KEYS.root("a", b"bc")
    assert KEYS.follow(ALPHA, [1, 2]) != KEYS.follow(ALPHA, [1]) != KEYS.follow(BETA, [1])
    with pytest.raises(ValueError, match="32 bytes"):
        PrefixKeys(b"short")


def test_a_block_is_erased_before_anyone_else_gets_it() -> None:
    blocks = pool(blocks=2)
    first, _ = fill(blocks, ALPHA, [1, 2, 3, 4, 5])
    held = list(first.blocks)
    blocks.release(first)
    assert blocks.take_moves() == [(ERASE, held[1])], "the full one stays for the tenant, the other is erased"
    assert (blocks.available, blocks.named) == (2, 1)
    second = BlockTable(BETA)
    blocks.extend(second, 8)
    assert (ERASE, held[0]) in blocks.take_moves()
    assert blocks.match(ALPHA, [1, 2, 3, 4, 5]).blocks == []


def test_blocks_of_a_failed_request_are_not_found_again() -> None:
    blocks = pool()
    table, _ = fill(blocks, ALPHA, [1, 2, 3, 4, 5])
    blocks.release(table, spoiled=True)
    assert blocks.named == 0
    assert blocks.match(ALPHA, [1, 2, 3, 4, 5]).blocks == []


def test_too_few_blocks_are_said_and_leave_the_others_alone() -> None:
    blocks = pool(blocks=2)
    table, _ = fill(blocks, ALPHA, [1, 2, 3, 4, 5])
    with pytest.raises(NoBlocks):
        blocks.extend(table, 9)
    assert len(table.blocks) == 2
    other = blocks.match(ALPHA, [1, 2, 3, 9])
    assert blocks.fork(other, [1, 2, 3, 9]) == 0, "no block to copy into"


class Memory:
    """Carries moves out on a model of the cache and checks what each table sees."""

    def __init__(self, blocks: int, size: int) -> None:
        self.pool, self.size = BlockPool(blocks, size, KEYS), size
        self.cells: list[list[tuple[str, int] | None]] = [[None] * size for _ in range(blocks)]

    def move(self) -> None:
        for source, target in self.pool.take_moves():
            self.cells[target] = [None] * self.size if source == ERASE else list(self.cells[source])


JOBS = st.lists(
    st.tuples(
        st.sampled_from(["alpha", "beta"]), st.lists(st.integers(0, 1), min_size=1, max_size=14), st.integers(0, 3)
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(JOBS, st.integers(4, 9))
def test_no_request_ever_sees_what_is_not_its_own_prefix(jobs: list[tuple[str, list[int], int]], blocks: int) -> None:
    memory = Memory(blocks, 4)
    running: list[tuple[str, BlockTable]] = []
    for tenant, tokens, leave in jobs:
        table = memory.pool.match(KEYS.root(tenant, b"m"), tokens)
        found = memory.pool.fork(table, tokens)
        try:
            memory.pool.extend(table, len(tokens))
        except NoBlocks:
            memory.pool.release(table)
            continue
        memory.move()
        seen = [cell for block in table.blocks for cell in memory.cells[block]]
        assert seen[:found] == [(tenant, token) for token in tokens[:found]]
        assert all(cell is None or cell[0] == tenant for cell in seen)
        assert found < len(tokens)
        for position in range(found, len(tokens)):
            block = table.blocks[position // 4]
            assert all(block not in other.blocks for _, other in running), "written to a block that another holds"
            memory.cells[block][position % 4] = (tenant, tokens[position])
        memory.pool.name_full(table, tokens)
        running.append((tenant, table))
        for _ in range(min(leave, len(running))):
            memory.pool.release(running.pop(0)[1])
        memory.move()
    for _, table in running:
        memory.pool.release(table)
    memory.move()
    assert memory.pool.available == blocks
    assert sum(any(cells) for cells in memory.cells) <= memory.pool.named


@pytest.mark.parametrize(("blocks", "size"), [(0, 4), (4, 0)])
def test_an_empty_pool_is_refused(blocks: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(blocks, size, KEYS)
