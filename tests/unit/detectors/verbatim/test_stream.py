"""The verbatim redactor against a slow reference, in every cut, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detectors.verbatim import MARKER, ProtectedIndex, VerbatimRedactor
from detectors.verbatim.index import LEAD, MAX_CORPORA, MAX_RUN
from detectors.verbatim.letters import MAX_GAP, letters

RUN = 20
ENGLISH = "The supplier shall deliver the goods within fourteen days of the order, carriage paid, to the buyer's depot."
CHINESE = "供应商应当在收到订单之日起十四日内将货物运至买方仓库，运费由供应商承担。"
INDEX = ProtectedIndex({"contracts": (ENGLISH,), "vertraege": (CHINESE,)}, RUN)
PIECES = st.one_of(
    st.integers(0, 80).flatmap(lambda at: st.integers(1, 40).map(lambda n: ENGLISH[at : at + n])),
    st.integers(0, 30).flatmap(lambda at: st.integers(1, 12).map(lambda n: CHINESE[at : at + n])),
    st.sampled_from(("", " ", "-", "\u200b", "e\u0301", "ﬁ", "ＡＢ", "日", "\n" * (MAX_GAP + 1), " " * MAX_GAP, "😀")),
    st.text(max_size=8),
)


def streamed(text: str, cuts: list[int], index: ProtectedIndex = INDEX) -> tuple[str, VerbatimRedactor]:
    redactor, out, at = VerbatimRedactor(index), [], 0
    for cut in [*sorted(min(cut, len(text)) for cut in cuts), len(text)]:
        out.append(redactor.push(text[at:cut]))
        at = cut
    return "".join([*out, redactor.flush()]), redactor


def lettered(text: str) -> list[list[tuple[int, int]]]:
    """(letter, place) of each stretch without a long gap."""
    found: list[list[tuple[int, int]]] = [[]]
    gap = 0
    for place, character in enumerate(text):
        read = letters(character)
        gap = 0 if read else gap + 1
        if gap > MAX_GAP:
            found.append([])
        found[-1] += [(code, place) for code in read]
    return found


def protected() -> set[tuple[int, ...]]:
    runs = set()
    for text in (ENGLISH, CHINESE):
        codes = [code for code, _ in lettered(text)[0]]
        runs |= {tuple(codes[at : at + RUN]) for at in range(len(codes) - RUN + 1)}
    return runs


RUNS = protected()


def reference(text: str) -> str:
    """Every stretch of protected runs that share letters is a marker, with what lies between its letters."""
    spans: list[list[int]] = []
    for stretch in lettered(text):
        codes = [code for code, _ in stretch]
        for at in range(len(codes) - RUN + 1):
            if tuple(codes[at : at + RUN]) in RUNS:
                start, end = stretch[at][1], stretch[at + RUN - 1][1]
                if spans and start <= spans[-1][1]:
                    spans[-1][1] = end
                else:
                    spans.append([start, end])
    for start, end in reversed(spans):
        text = text[:start] + MARKER + text[end + 1 :]
    return text


@given(st.lists(PIECES, max_size=12).map("".join), st.lists(st.integers(0, 400), max_size=30))
@example(ENGLISH + " and " + ENGLISH, [])
@example(ENGLISH.upper().replace(" ", "-") + CHINESE, list(range(400)))
def test_every_cut_gives_what_the_reference_gives(text: str, cuts: list[int]) -> None:
    left, redactor = streamed(text, cuts)
    assert left == reference(text)
    assert sum(redactor.counts.values()) == left.count(MARKER) - text.count(MARKER)
    for start, end in redactor.spans.values():
        codes = [code for character in text[start:end] for code in letters(character)]
        assert len(codes) >= RUN


@given(st.lists(PIECES, max_size=12).map("".join), st.lists(st.integers(0, 400), max_size=30))
def test_no_protected_run_leaves(text: str, cuts: list[int]) -> None:
    left, _ = streamed(text, cuts)
    for piece in left.split(MARKER):
        for stretch in lettered(piece):
            codes = [code for code, _ in stretch]
            assert not any(tuple(codes[at : at + RUN]) in RUNS for at in range(len(codes) - RUN + 1))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("It says: the supplier shall deliver, or so.", f"It says: {MARKER}, or so."),
        ("THE SUPPLIER\n* Shall* deliver the goods!", f"{MARKER}!"),
        ("t-h-e s-u-p-p-l-i-e-r s-h-a-l-l d-e-l-i-v-e-r", MARKER),
        ("The supplier shall pay.", "The supplier shall pay."),
        ("合同写明：将货物运至买方仓库，等等", f"合同写明：{MARKER}，等等"),
        ("将货物运", "将货物运"),
        ("", ""),
    ],
)
def test_copies_are_taken_out_whatever_their_dress(text: str, left: str) -> None:
    assert streamed(text, list(range(len(text))))[0] == left


def test_the_first_passage_of_each_corpus_is_told_by_place() -> None:
    copied = "the supplier shall deliver the goods"
    _, redactor = streamed(f"He said {copied}; and again {copied}. So: 将货物运至买方仓库", [3, 30])
    assert redactor.counts == {"contracts": 2, "vertraege": 1}
    assert redactor.spans["contracts"] == (8, 8 + len(copied))


def test_ordinary_text_waits_for_a_few_letters_only() -> None:
    redactor = VerbatimRedactor(INDEX)
    said = "Nothing of this has ever been written in a contract, and so it is soon let go."
    left = redactor.push(said)
    assert sum(len(letters(c)) for c in said[len(left) :]) < LEAD


@pytest.mark.parametrize("hostile", [" " * 100_000, "\u0301" * 100_000, ("a" + " " * MAX_GAP) * 1000])
def test_what_is_held_back_is_bounded(hostile: str) -> None:
    redactor = VerbatimRedactor(INDEX)
    left = redactor.push(ENGLISH[:12] + hostile)
    assert len(ENGLISH[:12] + hostile) - len(left) <= (RUN - 1) * (MAX_GAP + 1)


def test_an_index_has_bounds() -> None:
    for run in (LEAD - 1, MAX_RUN + 1):
        with pytest.raises(ValueError, match="protected runs: expected"):
            ProtectedIndex({}, run)
    with pytest.raises(ValueError, match="corpora"):
        ProtectedIndex({str(n): () for n in range(MAX_CORPORA + 1)})
    assert len(ProtectedIndex({"short": ("a few words",)})) == 0
    assert streamed(ENGLISH, [], ProtectedIndex({}))[0] == ENGLISH
