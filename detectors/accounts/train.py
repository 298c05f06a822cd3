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

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.accounts.boost import Forest, Recipe, Trees, fit
from detectors.accounts.facts import NAMES
from detectors.accounts.judge import FIRST, JudgeModel
from detectors.accounts.labelled import BENIGN, LEARNT_FROM, LabelledSession, readings, sessions
from detectors.accounts.state import COUNTED

FOLDS = 4
RECIPE = Recipe()
LEARNT_AT = frozenset((*range(LEARNT_FROM, 65, 5), 80, 100, 120, 150, 200))
"""Requests of an account after which the trees learn from it; longer sessions repeat themselves."""
MOST = 200
"""Requests of an account that are read."""
LEAST_ATTACKS = 3
"""An attack that began with fewer requests than that does not show yet and teaches nothing."""
FALSE_ALARMS = 0.003
"""Share of benign sessions whose highest unseen score may lie above the alarm."""
DRIFT = 3
"""The CUSUM rises by what a score is above one DRIFT-th of the alarm; its limit is what no benign session reached."""
CUED = ("elicits", "makes", "verbatim", "endless", "layout")
"""Facts that hang on vocabulary, by the beginnings of their names."""
MANNERS = ("tiny", "logprobs", "top_logprobs", "choices", "cold", "hot", "regular", "quick")
"""Facts of parameters and pace that an honest account shows as well. Half of the rows that the trees learn from are
without these and without vocabulary, so that a wording nobody thought of is found by its structure, and no account by
its manners alone."""
BLIND_WEIGHT = 0.5
CARD = Path(__file__).with_name("model.json")
Matrix = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.float64]]
Part = tuple[LabelledSession, tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]


def veiled_columns() -> list[int]:
    """The columns of a row that hang on vocabulary or on manners."""
    places = [at for at, name in enumerate(NAMES) if name.startswith(CUED) or name in MANNERS]
    counted = [2 * len(NAMES) + at for at, place in enumerate(COUNTED) if place in places]
    return [*places, *(len(NAMES) + at for at in places), *counted]


def fold(session: LabelledSession) -> int:
    """A campaign is never parted."""
    return zlib.crc32((session.campaign or session.account.session).encode()) % FOLDS


def matrix(parts: Sequence[Part]) -> Matrix:
    """Rows, labels and weights; every session weighs the same, rare kinds of attack more, large campaigns less."""
    kinds = Counter(session.subtype for session, _ in parts)
    rows, labels, weights = [], [], []
    for session, (counts, found) in parts:
        attack = session.label != BENIGN
        kept = np.isin(counts, list(LEARNT_AT))
        if attack:
            kept &= session.attacks[counts - 1] >= LEAST_ATTACKS
        if not kept.any():
            continue
        weight = 1.0 if not attack else 0.5 if session.campaign else min(4.0, 0.5 + (60 / kinds[session.subtype]))
        rows.append(found[kept])
        labels += [attack] * int(kept.sum())
        weights += [weight / kept.sum()] * int(kept.sum())
    seen = np.concatenate(rows)
    blind = seen.copy()
    blind[:, veiled_columns()] = 0
    scale = np.array(weights) * len(weights) / sum(weights)
    return np.concatenate((seen, blind)), np.array(labels * 2), np.concatenate((scale, scale * BLIND_WEIGHT))


def trained(parts: Sequence[Part], recipe: Recipe = RECIPE) -> Trees:
    return fit(*matrix(parts), recipe)


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


def held_out(parts: Sequence[Part]) -> tuple[list[tuple[list[LabelledSession], Trees]], JudgeModel]:
    """Of every fold its sessions and the trees that never saw them; the model of all."""
    folds, unseen = [], []
    for number in range(FOLDS):
        trees = trained([part for part in parts if fold(part[0]) != number])
        forest = Forest(trees)
        mine = [part for part in parts if fold(part[0]) == number]
        folds.append(([session for session, _ in mine], trees))
        benign = [reading for session, reading in mine if session.label == BENIGN]
        unseen += [forest.scores(rows[counts >= FIRST]) for counts, rows in benign if (counts >= FIRST).any()]
    return folds, calibrated(trained(parts), unseen)


def read_all(file: Path) -> list[Part]:
    """The sessions of a file and what the trees read of them."""
    return [(session, readings(session, MOST)) for session in sessions(file)]


def main(arguments: Sequence[str]) -> int:
    """Train, calibrate, write; 2 where the folder holds no train.jsonl."""
    if len(arguments) != 1 or not (file := Path(arguments[0]) / "train.jsonl").is_file():
        print("usage: python -m detectors.accounts.train FOLDER (with train.jsonl)", file=sys.stderr)
        return 2
    _, model = held_out(read_all(file))
    CARD.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=0) + b"\n")
    print(f"alarm {model.alarm}, drift {model.drift}, limit {model.limit}; the bars: detectors.accounts.evaluate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
