"""The prompt detector on one core, beside what people install instead: TF-IDF and logistic regression of scikit-learn.

Both learn from the same rows with the same weights. `make bench FIGURE=prompts DATA=FOLDER` also compares them on
sources that neither saw; without DATA the other pipeline learns from the families written here, for its speed alone.
scikit-learn is no dependency of the project: where it is not installed its rows are left out, and a line says so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from detectors.base import Part
from detectors.prompts.assess import PROMPTS
from detectors.prompts.training.__main__ import training_rows
from detectors.prompts.training.decide import ordinary, tail
from detectors.prompts.training.examples import USER_WINDOW, user_examples
from detectors.prompts.training.folds import Wide, deal, group, held_out, lesson
from detectors.prompts.training.heads import SEED
from detectors.prompts.training.rows import LabelledText, drawing, weights
from detectors.prompts.training.synthesis import synthesise
from pipeline.demo import scenarios
from tests.bench.rows import Measurement as Measured
from tests.bench.rows import percentile

BATCH, CHARS, LONG, HUGE = 256, 300, 2_000, 32_000
ROUNDS, WARM = 7, 1_000
MOST = 300
"""Rows of one source, label and language in the comparison, so that it ends within minutes."""
_LANGUAGES = ("en", "zh")


def measure() -> list[Measured]:
    """Texts per second of CPU time, milliseconds for one text, and recall on unseen sources at 1 % of ordinary rows."""
    batch = _texts(CHARS, 2 * BATCH)
    rows = _speed(batch)
    folder = os.environ.get("DATA")
    learned = _sample(training_rows(Path(folder) / "train.jsonl")) if folder else _users(synthesise(SEED))
    if importlib.util.find_spec("sklearn") is None:
        print(
            "prompts: scikit-learn is not installed, so nothing is compared: pip install scikit-learn", file=sys.stderr
        )
        return rows
    other = _pipeline(learned)
    rate = len(batch) / _best(lambda: [other(part) for part in (batch[:BATCH], batch[BATCH:])])
    ours = rows[0].value
    beside = f"batches of {BATCH} texts of {CHARS} characters, the same run"
    rows += [
        Measured("prompts", "TF-IDF + logistic regression", beside, rate, "texts/s/core"),
        Measured("prompts", "ours against it", beside, ours / rate, "x", 1),
    ]
    return rows + (_unseen(learned) if folder else [])


def _texts(length: int, count: int) -> list[str]:
    """Ordinary questions in two languages, joined to this length."""
    draw = drawing("bench")
    pools = (scenarios.QUESTIONS, scenarios.CHINESE)
    out = []
    for number in range(count):
        pool = pools[number % 5 == 4]
        order = [pool[int(place)] for place in draw.permutation(len(pool))]
        text = " ".join(
            f"What is a {word}?" if pool is scenarios.QUESTIONS else word for word in islice(cycle(order), length)
        )
        out.append(text[:length])
    return out


def _speed(batch: Sequence[str]) -> list[Measured]:
    parts = [(Part("user", text),) for text in batch]
    best = _best(lambda: [PROMPTS.screen(parts[at : at + BATCH]) for at in range(0, len(parts), BATCH)])
    load, rate = f"batches of {BATCH}, {CHARS} characters", len(parts) / best
    rows = [Measured("prompts", "rules and scorer", load, rate, "texts/s/core", 20_000)]
    alone = [(Part("user", text),) for length in (CHARS, LONG) for text in _texts(length, WARM // 2)]
    for text in alone:
        PROMPTS.screen([text])
    spent = [_best(lambda text=text: PROMPTS.screen([text]), 3) * 1e3 for text in alone]  # type: ignore[misc]
    load = f"one text of {CHARS} or {LONG:,} characters, {WARM:,} to warm up, best of 3 each"
    rows += [
        Measured(
            "prompts", f"one text, p{share:.0%}".replace("%", ""), load, percentile(spent, share), "ms", goal, "<="
        )
        for share, goal in ((0.5, 0.30), (0.99, 1.0))
    ]
    (huge,) = _texts(HUGE, 1)
    spent_ms = _best(lambda: PROMPTS.screen([(Part("user", huge),)])) * 1e3
    return [*rows, Measured("prompts", "one text", f"{HUGE:,} characters", spent_ms, "ms", 6, "<=")]


def _best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU seconds of the fastest round."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def _users(rows: Sequence[LabelledText]) -> list[LabelledText]:
    return [row for row in rows if row.role == "user" and row.lang in _LANGUAGES]


def _sample(rows: Sequence[LabelledText]) -> list[LabelledText]:
    """User rows, at most MOST of one source, label and language."""
    users = _users(rows)
    sizes = Counter((group(row.source), row.label, row.lang) for row in users)
    draw = drawing("sample")
    return [row for row in users if draw.random() < MOST / sizes[group(row.source), row.label, row.lang]]


def _pipeline(rows: Sequence[LabelledText]) -> Callable[[Sequence[str]], Wide]:
    """What a practitioner would write: character and word TF-IDF with a balanced linear model; gives log-odds."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # not installed everywhere
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=200_000),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=200_000),
    )
    model: Any = make_pipeline(features, LogisticRegression(C=10, max_iter=200, class_weight="balanced"))
    model.fit([row.text for row in rows], [row.attack for row in rows], logisticregression__sample_weight=weights(rows))
    return lambda texts: np.asarray(model.decision_function(list(texts)), dtype=np.float64)


def _unseen(rows: Sequence[LabelledText]) -> list[Measured]:
    """Mean recall over sources, each read by models that saw no row of it; the scorer without rules, for fairness."""
    fold = deal(rows)
    taught = lesson(user_examples(rows, range(len(rows)), weights(rows), SEED))
    ours, _ = held_out(rows, fold, taught, USER_WINDOW, 100, SEED)
    theirs = np.zeros(len(rows))
    for number in sorted(set(fold.tolist())):
        out = np.flatnonzero(fold == number)
        model = _pipeline([rows[at] for at in np.flatnonzero(fold != number).tolist()])
        theirs[out] = model([rows[at].text for at in out.tolist()])
    load = f"{len(rows):,} user rows, whole texts, 1 % of ordinary rows flagged, mean over unseen sources"
    return [
        Measured("prompts", f"recall {language}, {name}", load, _recall(rows, odds, language), "")
        for language in _LANGUAGES
        for name, odds in (("scorer without rules", ours), ("TF-IDF + logistic regression", theirs))
    ]


def _recall(rows: Sequence[LabelledText], odds: Wide, language: str) -> float:
    plain = ordinary(rows, language)
    cut = tail(odds[plain], np.ones(int(plain.sum())), 0.01)
    mine = [at for at, row in enumerate(rows) if row.attack and row.lang == language]
    names = {group(rows[at].source) for at in mine}
    held = [[bool(odds[at] > cut) for at in mine if group(rows[at].source) == name] for name in sorted(names)]
    return float(np.mean([np.mean(each) for each in held if len(each) >= 20]))
