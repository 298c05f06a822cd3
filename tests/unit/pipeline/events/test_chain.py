"""Which batches of a single-writer topic are valid, whatever else was written in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.chain import EMPTY, ChainReader, Entry, Link, Position, batch_digest, links


def batch(at: Position, offset: int, values: list[bytes]) -> list[Entry]:
    return [
        Entry(offset + i, 0, link, v) for i, (link, v) in enumerate(zip(links(at, len(values)), values, strict=True))
    ]


def read(entries: list[Entry]) -> tuple[list[bytes], ChainReader]:
    reader = ChainReader()
    return [e.value for entry in entries for e in reader.push(entry)], reader


def test_two_writers_on_one_history_give_one_winner() -> None:
    first = batch(Position(), 0, [b"a", b"b"])
    loser = batch(Position(), 2, [b"x"])
    known = Position(3, batch_digest(EMPTY, 0, [b"a", b"b"]))
    after = batch(known, 3, [b"c"])
    values, reader = read(first + loser + after)
    assert values == [b"a", b"b", b"c"]
    assert reader.skipped == 1


def test_right_place_on_an_unknown_history_is_refused() -> None:
    values, reader = read(batch(Position(), 0, [b"a"]) + batch(Position(1, b"\x01" * 32), 1, [b"b"]))
    assert values == [b"a"]
    assert reader.skipped == 1


def test_records_without_a_header_or_with_a_broken_one_are_refused() -> None:
    values, reader = read([Entry(0, 0, None, b"a"), Entry(1, 0, b"short", b"b")])
    assert values == []
    assert reader.at == Position(2, EMPTY)


@given(st.lists(st.lists(st.binary(max_size=8), min_size=1, max_size=4), max_size=8), st.data())
def test_a_reader_that_joins_later_ends_at_the_same_digest(history: list[list[bytes]], data: st.DataObject) -> None:
    entries: list[Entry] = []
    writer = ChainReader()
    for values in history:
        if data.draw(st.booleans()):
            entries += batch(Position(writer.at.offset, b"\x07" * 32), writer.at.offset, [b"foreign"])
            writer.push(entries[-1])
        entries += batch(writer.at, writer.at.offset, values)
        writer.advance(values)
    values, reader = read(entries)
    assert values == [value for batch_ in history for value in batch_]
    assert reader.at == writer.at


def test_link_round_trip() -> None:
    link = Link(2**40, 3, 7, b"\x05" * 32)
    assert Link.unpack(link.pack()) == link
