"""Leave-one-source-out: every row is read by a model that saw no row of its source, and what it says decides the rest.

Sources that hold much the same are one group; groups are dealt to folds, attacks by size, so that none is learned from
a copy of it. What was written for this project is a fold of its own.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from detectors.base import LOW, Finding, Part
from detectors.prompts.grams import CHAR_BITS, OFFSETS, WIDTH, codes_of, hashed, join
from detectors.prompts.language import languages
from detectors.prompts.phrases import SUFFIX, PhraseDetector
from detectors.prompts.scorer import HEADS, Head, Scorer, windows_of
from detectors.prompts.training.examples import Example
from detectors.prompts.training.fit import Floats, Grams, LinearScorer, fit, grams_of
from detectors.prompts.training.rows import LabelledText
from detectors.text.normalize import clean

FOLDS = 3
EPOCHS = 3
DECAY = 1e-6
FAMILIES = "families"
"""The group of the rows written for this project."""
MAX_CHARS = 16_000
"""Characters of a row that are read when it is scored."""
CLOSE, PRICE = 160, 0.8
"""Window of a long text in which a planted line is not lost, and what the best of n loses for each natural logarithm of
n: so much that of clean pages of a thousand to ten thousand characters one in a hundred is flagged by it."""
_BATCH = 256
Wide = npt.NDArray[np.float64]


class Readings(NamedTuple):
    """Of each row: log-odds of the whole text and of its worst window, and what the rules say."""

    whole: Wide
    worst: Wide
    sure: Wide
    """Highest confidence of a rule's use, 0 .. 1."""
    more: Wide
    """Further rules in use, three at most."""
    hidden: Wide
    """1 where only an undone disguise showed one."""
    language: npt.NDArray[np.intp]
    suffix: Wide
    """1 where a row of tokens ends the request."""


def group(source: str) -> str:
    """Sources that copy from one another or hold too little to stand alone are one group."""
    if source.startswith("families/"):
        return FAMILIES
    if source.startswith("AdityaK"):
        return "securing-llms"
    if source in ("NVIDIA/garak", "whylabs/langkit", "Giskard-AI/prompt-injections"):
        return "garak, langkit, giskard"
    return source.split("(clean")[0]


def deal(rows: Sequence[LabelledText], folds: int = FOLDS) -> npt.NDArray[np.intp]:
    """The fold that holds out each row: `folds` for those written here, so that the others are read with them."""
    place = {FAMILIES: folds}
    for attacks in (True, False):
        sizes = Counter(group(row.source) for row in rows if row.attack == attacks)
        sizes.pop(FAMILIES, None)
        for name, _ in sizes.most_common():
            place.setdefault(name, (len(place) - 1) % folds)
    return np.array([place[group(row.source)] for row in rows])


class Lesson(NamedTuple):
    """Examples as numbers, with the row that each was made of."""

    grams: Grams
    attack: Floats
    weight: Floats
    row: npt.NDArray[np.intp]

    def without(self, rows: npt.NDArray[np.bool_]) -> Lesson:
        """The examples of all rows but these."""
        kept = np.flatnonzero(~rows[self.row])
        return Lesson(self.grams.take(kept), self.attack[kept], self.weight[kept], self.row[kept])


def lesson(examples: Iterable[Example]) -> Lesson:
    held = list(examples)
    return Lesson(
        grams_of([example.text for example in held]),
        np.array([example.attack for example in held], dtype=np.float32),
        np.array([example.weight for example in held], dtype=np.float32),
        np.array([example.row for example in held], dtype=np.intp),
    )


def learn(taught: Lesson, seed: int, decay: float = DECAY) -> LinearScorer:
    """The model, in which a line of dashes or a row of one letter weighs nothing: it would add up without end."""
    model = fit(taught.grams, taught.attack, taught.weight, epochs=EPOCHS, decay=decay, seed=seed)
    model.weights[monotone()] = 0
    model.weights[numeric()] = 0
    return model


_NUMERIC = "0 abcdefx.,:;-/"
"""What numbers and codes in hex are written with, all digits as one and white space as a blank."""
_DIGITS = 8
"""Digits of the longest number that is one word."""
_PAIR = 2
"""Digits of a gram that is a number's."""


@functools.cache
def numeric() -> npt.NDArray[np.int32]:
    """The ids of what numbers are made of: a table of them holds each a thousand times, and they say nothing."""
    signs = ("".join(each) for size in (2, 3, 4) for each in itertools.product(_NUMERIC, repeat=size))
    written = grams_of([sign for sign in signs if sign.count("0") >= _PAIR]).ids
    numbers = ["0" * size for size in range(1, _DIGITS + 1)]
    words = grams_of([" ".join(each) for size in (1, 2, 3) for each in itertools.product(numbers, repeat=size)]).ids
    return np.unique(np.concatenate([written[written < OFFSETS[len(CHAR_BITS)]], words]))


@functools.cache
def monotone() -> npt.NDArray[np.int32]:
    """The ids of 3 and 4 times the same printable ASCII character or sign of any script, and of an ASCII sign twice."""
    found: set[int] = set()
    signs = [chr(code) for code in range(0xA1, 0x10000) if unicodedata.category(chr(code))[0] in "PS"]
    for sign in [*map(chr, range(0x21, 0x7F)), *signs]:
        ids, counts = np.unique(grams_of([sign * 12]).ids, return_counts=True)
        pairs = sign.isascii() and not sign.isalnum()
        found.update(ids[(counts > 1) & ((ids >= OFFSETS[1]) | pairs)].tolist())
    return np.array(sorted(found), dtype=np.int32)


def quantised(model: LinearScorer, window: int, stride: int) -> tuple[npt.NDArray[np.int8], Head]:
    """Weights as int8; the largest tenth of a thousandth is clipped."""
    used = np.abs(model.weights[model.weights != 0])
    scale = float(np.quantile(used, 0.9999)) / 127 if len(used) else 1.0
    held = np.clip(np.rint(model.weights / scale), -127, 127).astype(np.int8)
    close = CLOSE if window > CLOSE else 0
    return held, Head(scale, model.bias, window, stride, close=close, price=PRICE if close else 0.0)


def scorer_of(weights: npt.NDArray[np.int8], head: Head) -> Scorer:
    """A scorer with one head in the place of all."""
    return Scorer(np.broadcast_to(weights, (len(HEADS), WIDTH)), dict.fromkeys(HEADS, head))


def margins(scorer: Scorer, texts: Sequence[str], head: int = 0) -> tuple[Wide, Wide]:
    """(whole, worst window) of each text, as it reads clean."""
    whole, worst = np.zeros(len(texts)), np.zeros(len(texts))
    for at in range(0, len(texts), _BATCH):
        joined = join([clean(text[:MAX_CHARS]).text for text in texts[at : at + _BATCH]])
        found = scorer.margins(hashed(joined), head)
        whole[at : at + _BATCH], worst[at : at + _BATCH] = found.whole, found.worst
    return whole, worst


class WindowMargins(NamedTuple):
    """Margins of rows before what many windows cost: of the whole, the worst window and the worst close one (-inf for a
    text without windows), and the logarithms of how many windows there are of either kind."""

    whole: Wide
    worst: Wide
    near: Wide
    windows: Wide
    closer: Wide

    def priced(self, many: float, price: float) -> tuple[Wide, Wide]:
        """(whole, worst window) as the scorer gives them where windows cost so much."""
        near = self.near - price * self.closer
        return np.maximum(self.whole, near), np.maximum(self.worst - many * self.windows, near)


def window_margins(scorer: Scorer, texts: Sequence[str]) -> WindowMargins:
    """Of each text, as it reads clean; the scorer has one head, which says how long windows are."""
    form = replace(scorer.heads[0], many=0.0, close=0)
    wide, close = scorer_of(scorer.weights[0], form), scorer_of(scorer.weights[0], scorer.heads[0].closer)
    close.heads = tuple(replace(head, many=0.0, close=0) for head in close.heads)
    found = WindowMargins(*(np.zeros(len(texts)) for _ in WindowMargins._fields))
    for at in range(0, len(texts), _BATCH):
        grams = hashed(join([clean(text[:MAX_CHARS]).text for text in texts[at : at + _BATCH]]))
        rows = slice(at, at + len(grams.joined.starts))
        lengths = grams.joined.ends - grams.joined.starts
        margin = wide.margins(grams, 0)
        found.whole[rows], found.worst[rows] = margin.whole, margin.worst
        found.near[rows] = np.where(lengths > form.window, close.margins(grams, 0).worst, -np.inf)
        found.windows[rows] = np.log(windows_of(lengths, form))
        found.closer[rows] = np.log(windows_of(lengths, close.heads[0]))
    return found


def held_out_windows(
    rows: Sequence[LabelledText], fold: npt.NDArray[np.intp], taught: Lesson, form: tuple[int, int], seed: int
) -> WindowMargins:
    """Of every row, by the model that did not see its fold."""
    found = WindowMargins(*(np.zeros(len(rows)) for _ in WindowMargins._fields))
    for number in sorted(set(fold.tolist())):
        scorer = scorer_of(*quantised(learn(taught.without(fold == number), seed), *form))
        out = np.flatnonzero(fold == number)
        for mine, each in zip(found, window_margins(scorer, [rows[index].text for index in out.tolist()]), strict=True):
            mine[out] = each
    return found


def held_out(
    rows: Sequence[LabelledText],
    fold: npt.NDArray[np.intp],
    taught: Lesson,
    window: int,
    stride: int,
    seed: int,
    only: Sequence[int] | None = None,
) -> tuple[Wide, Wide]:
    """(whole, worst window) of each row by the model that did not see its fold; of the rows `only` where given."""
    mine = np.arange(len(rows)) if only is None else np.asarray(only)
    whole, worst = np.zeros(len(rows)), np.zeros(len(rows))
    for number in sorted(set(fold[mine].tolist())):
        model = learn(taught.without(fold == number), seed)
        out = mine[fold[mine] == number]
        scorer = scorer_of(*quantised(model, window, stride))
        whole[out], worst[out] = margins(scorer, [rows[index].text for index in out])
    return whole[mine], worst[mine]


def readings(rows: Sequence[LabelledText], whole: Wide, worst: Wide) -> Readings:
    """The margins with what rules and language say of the same rows."""
    detector = PhraseDetector()
    said = np.zeros((len(rows), 4))
    language = np.zeros(len(rows), dtype=np.intp)
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        texts = [row.text[:MAX_CHARS] for row in part]
        joined = join([clean(text).text for text in texts])
        language[at : at + _BATCH] = languages(joined, codes_of(joined.text))
        role = part[0].role if part[0].role in ("user", "document") else "user"
        found = detector.screen([(Part("document" if role == "document" else "user", text),) for text in texts])
        for index, findings in enumerate(found, at):
            said[index] = evidence_of(findings)
    return Readings(whole, worst, said[:, 0], said[:, 1], said[:, 2], language, said[:, 3])


def evidence_of(findings: Sequence[Finding]) -> tuple[float, float, float, float]:
    """Of a row's uses of rules: the surest, how many more, one only under a disguise, a row of tokens."""
    found = [finding for finding in findings if finding.severity > LOW]
    uses = [finding for finding in found if finding.rule != SUFFIX]
    row = float(len(uses) < len(found))
    if not uses:
        return 0.0, 0.0, 0.0, row
    hidden = any(finding.view in ("loose", "decoded") for finding in uses)
    return max(finding.confidence for finding in uses) / 100, min(3.0, len(uses) - 1), float(hidden), row


def target(rows: Sequence[LabelledText]) -> Floats:
    return np.array([row.attack for row in rows], dtype=np.float32)
