"""Trains the trees of the account detector: `python -m detectors.accounts.train FOLDER` writes model.json beside it.

FOLDER holds `train.jsonl` of labelled sessions. Folds part accounts, and campaigns as a whole. The alarm is calibrated
on the highest score of whole benign sessions that the fold's trees never saw. The same folder gives the same model.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.accounts.applications.mixtures import DRAWN, mixtures
from detectors.accounts.applications.pieces import of_pack
from detectors.accounts.applications.sessions import APPLICATION
from detectors.accounts.applications.sessions import sessions as applications
from detectors.accounts.boost import Forest, Recipe, Trees, fit
from detectors.accounts.columns import COUNTS, RECENTLY
from detectors.accounts.facts import COUNTED, NAMES
from detectors.accounts.judge import FIRST, JudgeModel
from detectors.accounts.labelled import (
    BENIGN,
    LEARNT_FROM,
    AccountReadings,
    LabelledSession,
    labelled,
    readings,
    sessions,
)

FOLDS = 4
SEEDS, APPLICATION_WEIGHT = 10, 0.5
"""Accounts of each shape of applications, and what each of them weighs."""
RECIPE = Recipe()
LEARNT_AT = frozenset((*range(LEARNT_FROM, 65, 5), 80, 100, 120, 150, 200))
"""Requests of an account after which the trees learn from it; longer sessions repeat themselves."""
MAX_REQUESTS = 200
"""Requests of an account that are read."""
LEAST_ATTACKS = 3
"""An attack that began with fewer requests than that does not show yet and teaches nothing."""
FALSE_ALARMS = 0.004
"""Share of the pack's benign sessions whose highest unseen score may lie above the alarm; drawn ones are made to be
hard, and say nothing of shares."""
DRIFT = 3
"""A score adds to the CUSUM as far as it is above one DRIFT-th of the alarm; no benign session reached the limit."""
CUED = ("elicits", "makes", "verbatim", "endless", "layout")
"""Facts that hang on vocabulary, by the beginnings of their names."""
MANNERS = (
    "few_tokens", "logprobs", "top_logprobs", "choices", "temperature_zero", "temperature_high", "regular", "quick",
)  # fmt: skip
"""Facts of parameters and pace that an honest account shows as well. Half of the rows that the trees learn from are
without these and without vocabulary, so that an unforeseen wording is found by its structure, and no account by
its manners alone."""
BLIND_WEIGHT = 0.5
CARD = Path(__file__).with_name("model.json")
Sample = tuple[LabelledSession, AccountReadings]


class Matrix(NamedTuple):
    """The examples of the trees: rows [examples, columns], and for each example a label and a weight."""

    rows: npt.NDArray[np.int32]
    labels: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float64]


class TrainedFold(NamedTuple):
    """Sessions, and trees that never saw them."""

    sessions: list[LabelledSession]
    trees: Trees


def veiled_columns() -> list[int]:
    """The columns of a row that hang on vocabulary or on manners."""
    veiled = [index for index, name in enumerate(NAMES) if name.startswith(CUED) or name in MANNERS]
    recently = [RECENTLY.start + index for index in veiled]
    counts = [COUNTS.start + column for column, index in enumerate(COUNTED) if index in veiled]
    return [*veiled, *recently, *counts]


def is_drawn(session: LabelledSession) -> bool:
    """True where the session is none of the pack's."""
    return session.subtype.startswith((APPLICATION, "drawn_"))


def fold(session: LabelledSession) -> int:
    """The fold of a session; a campaign is never parted, nor a shape of applications."""
    is_shape = session.subtype.startswith(APPLICATION) and session.subtype != DRAWN
    together = session.subtype if is_shape else session.campaign
    return zlib.crc32((together or session.account.session).encode()) % FOLDS


def matrix(samples: Sequence[Sample]) -> Matrix:
    """Rows, labels and weights of all examples, each once as it is and once blind."""
    kinds = Counter(session.subtype for session, _ in samples)
    rows: list[npt.NDArray[np.int32]] = []
    labels: list[bool] = []
    weights: list[float] = []
    for session, reading in samples:
        attack = session.label != BENIGN
        kept = np.isin(reading.counts, list(LEARNT_AT))
        if attack:
            kept &= session.attacks[reading.counts - 1] >= LEAST_ATTACKS
        examples = int(kept.sum())
        if not examples:
            continue
        rows.append(reading.rows[kept])
        labels += [attack] * examples
        weights += [_weight(session, kinds) / examples] * examples
    seen = np.concatenate(rows)
    blind = seen.copy()
    blind[:, veiled_columns()] = 0
    scale = np.array(weights) * len(weights) / sum(weights)
    return Matrix(np.concatenate((seen, blind)), np.array(labels * 2), np.concatenate((scale, scale * BLIND_WEIGHT)))


def _weight(session: LabelledSession, kinds: Counter[str]) -> float:
    """Every session weighs the same, rare kinds of attack more, members of campaigns less."""
    if session.subtype.startswith(APPLICATION):
        return APPLICATION_WEIGHT
    if session.label == BENIGN:
        return 1.0
    if session.campaign:
        return 0.5
    return min(4.0, 0.5 + 60 / kinds[session.subtype])


def trained(samples: Sequence[Sample], recipe: Recipe = RECIPE) -> Trees:
    return fit(*matrix(samples), recipe)


def calibrated(trees: Trees, unseen: Sequence[npt.NDArray[np.int64]]) -> JudgeModel:
    """The model with bounds from the scores that whole benign sessions had under trees which never saw them."""
    tops = sorted((int(scores.max()) for scores in unseen), reverse=True)
    alarm = tops[int(FALSE_ALARMS * len(tops))] + 1
    drift = alarm // DRIFT
    sums = [_highest_sum(scores - drift) for scores in unseen if scores.max() < alarm]
    return JudgeModel(trees, alarm, drift, max(sums) + 1)


def _highest_sum(steps: npt.NDArray[np.int64]) -> int:
    """The highest sum of consecutive steps, at least 0 (Page 1954)."""
    sums = np.concatenate((np.zeros(1, dtype=np.int64), steps.cumsum()))
    return int((sums - np.minimum.accumulate(sums)).max())


def held_out(samples: Sequence[Sample]) -> tuple[list[TrainedFold], JudgeModel]:
    """The folds, and the model of all sessions."""
    folds: list[TrainedFold] = []
    unseen: list[npt.NDArray[np.int64]] = []
    for number in range(FOLDS):
        trees = trained([sample for sample in samples if fold(sample[0]) != number])
        mine = [sample for sample in samples if fold(sample[0]) == number]
        folds.append(TrainedFold([session for session, _ in mine], trees))
        forest = Forest(trees)
        for session, reading in mine:
            judged = reading.counts >= FIRST
            if session.label == BENIGN and judged.any() and not is_drawn(session):
                unseen.append(forest.scores(reading.rows[judged]))
    return folds, calibrated(trained(samples), unseen)


def read_all(file: Path) -> list[Sample]:
    """The sessions of a file, each with the rows that the trees read."""
    return [(session, readings(session, MAX_REQUESTS)) for session in sessions(file)]


def read_applications(rows: Path) -> list[Sample]:
    """Accounts of ordinary applications, of the open half and drawn, with pieces of these `rows`; none without."""
    if not rows.is_file():
        return []
    pieces = of_pack(rows)
    drawn = [*(each for each in applications("open", pieces, SEEDS) if each.learnt), *mixtures(pieces)]
    return [(session, readings(session, MAX_REQUESTS)) for session in (labelled(each.line) for each in drawn)]


def main(arguments: Sequence[str]) -> int:
    """Train, calibrate, write; 2 where the folder holds no train.jsonl."""
    if len(arguments) != 1 or not (file := Path(arguments[0]) / "train.jsonl").is_file():
        print("usage: python -m detectors.accounts.train FOLDER (with train.jsonl)", file=sys.stderr)
        return 2
    _, model = held_out(read_all(file) + read_applications(file.parent.parent / "train.jsonl"))
    CARD.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=0) + b"\n")
    print(f"alarm {model.alarm}, drift {model.drift}, limit {model.limit}; the bars: detectors.accounts.evaluate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
