"""Text from bytes: the same whatever the cuts, and never a stop string."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.batching.text import TextAssembler


def expected(raw: bytes, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The definition: the text up to the stop string that completes first, the longest of those."""
    text = raw.decode("utf-8", "replace")
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def assemble(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[str, bool]:
    assembler = TextAssembler(stops)
    text = "".join([assembler.push(piece) for piece in pieces])
    text += assembler.flush()
    return text, assembler.stopped


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(raw) + 1) for place in places} | {0, len(raw)})
    return [raw[low:high] for low, high in pairwise(edges)]


RAW = st.one_of(
    st.text(alphabet="ab\n猫é😀", max_size=24).map(str.encode),
    st.binary(max_size=24),
)
STOPS = st.lists(st.text(alphabet="ab\n猫é", min_size=1, max_size=4), max_size=3).map(tuple)


@settings(max_examples=400, deadline=None)
@given(RAW, STOPS, st.lists(st.integers(0, 64), max_size=8))
@example(b"aab", ("ab",), [1, 2])
@example("abab猫".encode(), ("bab", "ab猫"), [1, 2, 3, 4, 5, 6])
@example(b"\xf0\x9f\x98", ("\ufffd",), [1, 2])
def test_cuts_do_not_change_the_text(raw: bytes, stops: tuple[str, ...], places: list[int]) -> None:
    assert assemble(cut(raw, places), stops) == expected(raw, stops)
    assert assemble([raw[i : i + 1] for i in range(len(raw))], stops) == expected(raw, stops)


def test_text_that_cannot_become_a_stop_string_does_not_wait() -> None:
    assembler = TextAssembler(("END",))
    assert assembler.push(b"hello E") == "hello "
    assert assembler.push(b"N") == ""
    assert assembler.push(b"T") == "ENT"


def test_nothing_follows_a_stop_string() -> None:
    assembler = TextAssembler(("!",))
    assert assembler.push(b"hi! there") == "hi"
    assert assembler.stopped
    assert (assembler.push(b"more"), assembler.flush()) == ("", "")
