"""Which batches of a single-writer topic are valid, whatever else was written in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.chain import EMPTY, UNKNOWN, ChainReader, Entry, Link, Position, batch_digest, links
from pipeline.events.codec import encode
from pipeline.events.records import Upgrade


def batch(at: Position, offset: int, values: list[bytes], span: tuple[int, int] | None = None) -> list[Entry]:
    made = links(at, len(values), span)
    return [Entry(offset + i, 0, link, v) for i, (link, v) in enumerate(zip(made, values, strict=True))]


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


@pytest.mark.parametrize(
    "link",
    [Link(2**40, 3, 7, b"\x05" * 32), Link(2**40, 3, 7, b"\x05" * 32, 2**41, 2**41 + 9), Link(0, 0, 1, EMPTY, 0, 0)],
)
def test_link_round_trip(link: Link) -> None:
    assert Link.unpack(link.pack()) == link


def test_a_link_whose_span_runs_backwards_is_none() -> None:
    assert Link.unpack(Link(0, 0, 1, EMPTY, 5, 4).pack()) is None


def test_one_part_of_the_source_is_answered_once() -> None:
    """A writer that knows the history, but not what of the source it answers, gets nothing in."""
    first = batch(Position(), 0, [b"a"], (0, 3))
    known = Position(1, batch_digest(EMPTY, 0, [b"a"]), 3)
    again = batch(known, 1, [b"a again"], (0, 3))
    over = batch(known._replace(offset=2), 2, [b"passes over 3"], (4, 5))
    following = batch(known._replace(offset=3), 3, [b"b"], (3, 4))
    values, reader = read(first + again + over + following)
    assert values == [b"a", b"b"]
    assert reader.skipped == 2
    assert reader.at.source == 4


MARK = encode(Upgrade(0, 6, 7, 7))
"""The build before has answered everything below offset 7 of the source."""


def lifted() -> tuple[list[Entry], Position]:
    """A log of the build before and the mark that ends it, with the position behind them."""
    first = batch(Position(), 0, [b"a"])
    known = Position(1, batch_digest(EMPTY, 0, [b"a"]))
    return [*first, *batch(known, 1, [MARK])], Position(2, batch_digest(known.digest, 1, [MARK]), 7)


def test_the_version_of_links_never_falls() -> None:
    entries, known = lifted()
    old = batch(known, 2, [b"of an old build, behind the mark"])
    second = batch(known._replace(offset=3), 3, [b"b"], (7, 9))
    known = Position(4, batch_digest(known.digest, 3, [b"b"]), 9)
    older = batch(known, 4, [b"of an old build"])
    values, reader = read([*entries, *old, *second, *older])
    assert values == [b"a", MARK, b"b"]
    assert reader.at == known._replace(offset=5)


@pytest.mark.parametrize("start", [0, 6, 8])
def test_the_first_link_with_a_span_goes_on_where_the_mark_says(start: int) -> None:
    entries, known = lifted()
    values, reader = read([*entries, *batch(known, 2, [b"b"], (start, start + 2))])
    assert values == [b"a", MARK]
    assert reader.at == known._replace(offset=3)


def test_a_writer_that_lifts_a_log_knows_what_comes_next() -> None:
    entries, known = lifted()
    writer = ChainReader()
    writer.push(entries[0])
    writer.advance([MARK])
    assert writer.at == known


def test_a_link_with_a_span_counts_for_nothing_in_a_log_that_was_not_lifted() -> None:
    first = batch(Position(), 0, [b"a"])
    known = Position(1, batch_digest(EMPTY, 0, [b"a"]))
    assert read([*first, *batch(known, 1, [b"b"], (0, 1))])[0] == [b"a"]
    assert read(batch(Position(), 0, [b"b"], (1, 2)))[0] == []


def test_half_a_batch_is_passed_over_by_what_comes_instead_of_its_rest() -> None:
    half = batch(Position(), 0, [b"x", b"y"])[:1]
    values, reader = read(half)
    assert reader.at.offset == 0
    assert reader.next_offset == 1
    genuine = batch(Position(1), 1, [b"a"])
    values, reader = read(half + genuine)
    assert values == [b"a"]
    assert reader.skipped == 1
    writer, _ = ChainReader(), None
    writer.push(half[0])
    writer.advance([b"a"])
    assert writer.at == reader.at


def test_the_rest_of_a_batch_bears_the_same_link() -> None:
    """Else a forged record could finish a batch with another history or span than its first record said."""
    first, second = batch(Position(), 0, [b"x", b"y"], (0, 2))
    other = Link.unpack(second.link)
    assert other is not None
    forged = second._replace(link=Link(other.base, other.index, other.count, other.prev, 0, 99).pack())
    values, reader = read([first, forged])
    assert values == []
    assert reader.skipped == 2
    assert reader.at.source == UNKNOWN


def test_gaps_between_batches_are_passed_over() -> None:
    """The markers of a transaction take offsets and bring no record."""
    first = batch(Position(), 0, [b"a"])
    reader = ChainReader()
    reader.push(first[0])
    reader.skip_to(3)
    later = batch(reader.at, 3, [b"b"])
    assert [e.value for e in reader.push(later[0])] == [b"b"]
    assert read(first + later)[0] == [b"a", b"b"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=30))
def test_writers_that_race_answer_every_input_once(moves: list[tuple[int, int, bool]]) -> None:
    """Writers with any view of the past append batches for what they believe comes next; readers agree on one."""
    log: list[Entry] = []
    views = [ChainReader() for _ in range(4)]
    reads = [0, 0, 0, 0]
    for writer, count, catches_up in moves:
        view = views[writer]
        if catches_up:
            for entry in log[reads[writer] :]:
                view.push(entry)
            reads[writer] = len(log)
        start = max(view.at.source, 0)
        at = view.at._replace(offset=view.next_offset)
        span = (start, start + count)
        values = [f"{writer}:{n}".encode() for n in range(start, start + count)] or [b"tick"]
        log += batch(at, len(log), values, span)
    reader = ChainReader()
    answered = [e.value for entry in log for e in reader.push(entry)]
    inputs = [int(value.split(b":")[1]) for value in answered if value != b"tick"]
    assert inputs == list(range(len(inputs)))
