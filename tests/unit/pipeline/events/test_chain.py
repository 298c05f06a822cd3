"""Which batches of a single-writer topic are valid, whatever else was written in between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.chain import (
    EMPTY,
    MAX_BATCH_BYTES,
    UNKNOWN,
    ChainReader,
    Entry,
    Link,
    Position,
    batch_digest,
    links,
)
from pipeline.events.codec import encode
from pipeline.events.records import Decision, Facts, Tick, Upgrade


def batch(at: Position, offset: int, values: list[bytes], span: tuple[int, int] | None = None) -> list[Entry]:
    made = links(at, len(values), span)
    return [Entry(offset + i, 0, link, v) for i, (link, v) in enumerate(zip(made, values, strict=True))]


def answers(start: int, end: int) -> list[bytes]:
    """Decisions on a part of the source, one for each offset."""
    return [encode(Decision(f"q{n}", Facts(n, 0), "deny", 0)) for n in range(start, end)]


TICK = encode(Tick(0))


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
    first = batch(Position(), 0, answers(0, 3), (0, 3))
    known = Position(3, batch_digest(EMPTY, 0, answers(0, 3)), 3)
    again = batch(known, 3, answers(0, 3), (0, 3))
    over = batch(known._replace(offset=6), 6, answers(4, 5), (4, 5))
    following = batch(known._replace(offset=7), 7, answers(3, 4), (3, 4))
    values, reader = read(first + again + over + following)
    assert values == answers(0, 4)
    assert reader.skipped == 4
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
    second = batch(known._replace(offset=3), 3, answers(7, 9), (7, 9))
    known = Position(5, batch_digest(known.digest, 3, answers(7, 9)), 9)
    older = batch(known, 5, [b"of an old build"])
    values, reader = read([*entries, *old, *second, *older])
    assert values == [b"a", MARK, *answers(7, 9)]
    assert reader.at == known._replace(offset=6)


@pytest.mark.parametrize("start", [0, 6, 8])
def test_the_first_link_with_a_span_goes_on_where_the_mark_says(start: int) -> None:
    entries, known = lifted()
    values, reader = read([*entries, *batch(known, 2, answers(start, start + 2), (start, start + 2))])
    assert values == [b"a", MARK]
    assert reader.at == known._replace(offset=4)


def test_a_writer_that_lifts_a_log_knows_what_comes_next() -> None:
    entries, known = lifted()
    writer = ChainReader()
    writer.push(entries[0])
    writer.advance([MARK])
    assert writer.at == known


def test_a_link_with_a_span_counts_for_nothing_in_a_log_that_was_not_lifted() -> None:
    first = batch(Position(), 0, [b"a"])
    known = Position(1, batch_digest(EMPTY, 0, [b"a"]))
    assert read([*first, *batch(known, 1, answers(0, 1), (0, 1))])[0] == [b"a"]
    assert read(batch(Position(), 0, answers(1, 2), (1, 2)))[0] == []


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
    first, second = batch(Position(), 0, answers(0, 2), (0, 2))
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
        values = answers(start, start + count) or [TICK]
        log += batch(at, len(log), values, span)
    reader = ChainReader()
    answered = [e.value for entry in log for e in reader.push(entry)]
    inputs = [value for value in answered if value != TICK]
    assert inputs == answers(0, len(inputs))


def skipping(offset: int, skipped: int, first: int = -1) -> bytes:
    return encode(Decision("q", Facts(offset, 0, fault="malformed", skipped=skipped, first=first), "deny", 0))


DEEP = b'{"kind":"tick","time":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HOSTILE: dict[str, tuple[list[bytes], tuple[int, int]]] = {
    "no decision, and a part of the source": ([TICK], (3, 4)),
    "a part of the source that has no end": ([TICK], (3, 2**64 - 1)),
    "a decision, and no part of the source": (answers(3, 4), (3, 3)),
    "fewer than it says": (answers(3, 4), (3, 9)),
    "more than it says": (answers(3, 9), (3, 4)),
    "an answer twice": (answers(3, 4) + answers(3, 4), (3, 4)),
    "in another order": (answers(3, 5)[::-1], (3, 5)),
    "a hole": (answers(3, 4) + answers(5, 6), (3, 6)),
    "skipped backwards": ([skipping(2, -1), *answers(3, 4)], (3, 4)),
    "a part of the source before": ([skipping(3, 0, first=1)], (3, 4)),
    "a run that ends before it begins": ([skipping(3, 0, first=5)], (3, 4)),
    "no JSON": ([b"{"], (3, 3)),
    "no bytes": ([b""], (3, 3)),
    "no record of the log": ([b'{"kind":"wish","time":1}'], (3, 3)),
    "a record of another form": ([b'{"kind":"tick","time":"soon"}'], (3, 3)),
    "values within values": ([DEEP], (3, 3)),
    "one that cannot be read among others": ([*answers(3, 4), b"\xff", *answers(4, 5)], (3, 5)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_batch_whose_records_are_not_what_its_link_says_is_passed_over_whole(name: str) -> None:
    values, span = HOSTILE[name]
    first = batch(Position(), 0, answers(0, 3), (0, 3))
    known = Position(3, batch_digest(EMPTY, 0, answers(0, 3)), 3)
    forged = batch(known, 3, values, span)
    behind = 3 + len(values)
    genuine = batch(known._replace(offset=behind), behind, answers(3, 4), (3, 4))
    found, reader = read([*first, *forged, *genuine])
    assert found == answers(0, 4)
    assert reader.skipped == len(values)


def test_offsets_without_a_request_and_runs_of_strangers_are_told_by_the_decision() -> None:
    values = [skipping(2, 2), skipping(9, 0, first=3), *answers(10, 11)]
    assert read(batch(Position(), 0, values, (0, 11)))[0] == values


def test_a_batch_that_never_ends_is_given_up_and_takes_no_memory() -> None:
    piece = b"x" * (1024 * 1024)
    made = Link(0, 0, 2**32 - 1, EMPTY, 0, 0)
    reader = ChainReader()
    for n in range(40):
        link = msgspec.structs.replace(made, index=n).pack()
        assert reader.push(Entry(n, 0, link, piece)) == []
        assert sum(len(entry.value) for entry in reader._open) <= MAX_BATCH_BYTES
    assert reader.skipped == 40
    genuine = batch(Position(40), 40, answers(0, 1), (0, 1))
    assert [entry.value for entry in reader.push(genuine[0])] == answers(0, 1)
