"""A marked text is attributed whatever became of its layout, and a text without a mark never is."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.chat.tokenizer import ChatTokenizer
from inference.registry.release import SHIPPED
from inference.watermark.detect import Detection, detect, detect_any
from inference.watermark.keys import MarkKey
from inference.watermark.layout import readings
from inference.watermark.secrets import SECRET_BYTES
from inference.watermark.tournament import tournament

MASTER = bytes(range(SECRET_BYTES))
KEYS = [MarkKey(MASTER, tenant, epoch) for tenant in ("acme", "beta", "gamma") for epoch in (600, 601)]
Layout = Callable[[str], str]


@cache
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(SHIPPED / "tokenizer.json")


@cache
def marked(seed: int, mark: bool = True) -> str:
    """Answers of twenty words, one a line, drawn among words of the shipped vocabulary by the key of beta."""
    cut, draw = tokenizer(), np.random.default_rng(seed)
    pieces = [cut.piece(token) for token in range(cut.size)]
    words = [
        token for token, piece in enumerate(pieces) if len(piece) > 3 and piece[:1] == b" " and piece[1:].isalpha()
    ]
    key = MarkKey(MASTER, "beta", 601)
    lines = []
    for _ in range(6):
        answer = draw.choice(words, 4).tolist()
        while len(answer) < 24:
            ids = draw.choice(words, 64, replace=False)
            likely = draw.dirichlet(np.ones(64))
            chosen = (
                tournament(ids, likely, answer[-4:], key, draw.random()) if mark else int(draw.choice(ids, p=likely))
            )
            answer.append(chosen)
        lines.append(b"".join(pieces[token] for token in answer).decode().strip())
    return ".\n".join(lines)


def detected(text: str) -> Detection:
    return detect_any([tokenizer().encode_text(reading) for reading in readings(text)], KEYS)


def prefixed(prefix: str, text: str) -> str:
    return "\n".join(prefix + line for line in text.split("\n"))


def wrapped(column: int, text: str) -> str:
    wrap = partial(textwrap.fill, width=column, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap(line) for line in text.split("\n"))


def folded(column: int, text: str) -> str:
    return "\n".join(line[at : at + column] for line in text.split("\n") for at in range(0, len(line), column))


def listed(text: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(text.split("\n"), 1))


def item_wrapped(column: int, text: str) -> str:
    wrap = partial(textwrap.fill, width=column, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
    return "\n".join(wrap(line) for line in text.split("\n"))


def emphasised(sign: str, text: str) -> str:
    words = text.split(" ")
    return " ".join(
        f"{sign}{word}{sign}" if index % 4 == 0 and word.isalpha() else word for index, word in enumerate(words)
    )


COLUMNS = st.integers(20, 130)
LAYOUTS: st.SearchStrategy[Layout] = st.one_of(
    st.just(lambda text: text.replace("\n", "\r\n")),
    st.just(lambda text: "\ufeff" + text),
    st.just(lambda text: text.replace(" ", "\u00a0")),
    st.just(lambda text: text.replace("\n", "  \n")),
    st.just(lambda text: text.replace("\n", "\n\n")),
    st.just(listed),
    COLUMNS.map(lambda column: partial(wrapped, column)),
    COLUMNS.map(lambda column: partial(folded, column)),
    COLUMNS.map(lambda column: partial(item_wrapped, column)),
    st.sampled_from(["> ", ">", "> > ", "    ", "| "]).map(lambda prefix: partial(prefixed, prefix)),
    st.sampled_from(["- ", "* ", "## ", "- [ ] ", "• "]).map(lambda prefix: partial(prefixed, prefix)),
    st.sampled_from(["**", "*", "_", "`", "~~"]).map(lambda sign: partial(emphasised, sign)),
)
QUOTED: st.SearchStrategy[Layout] = st.one_of(
    st.just(lambda text: "\ufeff" + text.replace("\n", "\r\n")),
    st.just(partial(prefixed, "> ")),
    st.just(lambda text: text),
)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 3), LAYOUTS, QUOTED)
def test_a_marked_text_is_attributed_after_every_change_of_layout(seed: int, layout: Layout, around: Layout) -> None:
    text = around(layout(marked(seed)))
    found = detected(text)
    assert found.attributed, text
    assert found.best is not None
    assert (found.best.tenant, found.best.epoch) == ("beta", 601)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), LAYOUTS, QUOTED)
def test_a_text_without_a_mark_is_attributed_after_none(seed: int, layout: Layout, around: Layout) -> None:
    assert not detected(around(layout(marked(seed, False)))).attributed


@pytest.mark.parametrize("text", ["", "\n", "> ", "- ", "one line", "\r\n\r\n", "```\n", "* * *"])
def test_the_text_as_it_stands_is_the_first_reading(text: str) -> None:
    assert readings(text)[0] == text
    assert len(set(readings(text))) == len(readings(text))


@given(st.text(alphabet="ab -*>_#1.\n\r\t`|~ \ufeff", max_size=200))
def test_no_text_is_without_readings(text: str) -> None:
    found = readings(text)
    assert found[0] == text
    assert all(letter in text or letter in " \n" for reading in found for letter in reading)


def test_more_readings_are_more_tries() -> None:
    ids = tokenizer().encode_text(marked(0))
    once, twice = detect(ids, KEYS), detect_any([ids, ids[:30]], KEYS)
    assert (once.readings, twice.readings, once.tried, twice.tried) == (1, 2, 6, 6)
    assert once.best == twice.best
    assert twice.false_alarm >= once.false_alarm
