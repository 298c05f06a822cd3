"""Progress marks: what is committed is never run again, what is not is never skipped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.generate.progress import Progress


@given(st.lists(st.integers(0, 200), unique=True), st.integers(0, 1000))
def test_a_dumped_mark_knows_exactly_what_was_finished(finished: list[int], base: int) -> None:
    progress = Progress(base)
    for offset in finished:
        progress.finish(base + offset)
    again = Progress.load(progress.low, progress.dump())
    for offset in range(base, base + 201):
        assert again.begin(offset) == (offset - base not in finished)


def test_a_note_of_another_offset_is_not_believed() -> None:
    progress = Progress(5)
    progress.finish(7)
    assert Progress.load(6, progress.dump()).begin(7)


def test_a_long_gap_stays_within_the_metadata_bound() -> None:
    progress = Progress(0)
    for offset in range(1, 40_000):
        progress.finish(offset)
    assert len(progress.dump()) < 4096
    assert not Progress.load(0, progress.dump()).begin(16_000)
