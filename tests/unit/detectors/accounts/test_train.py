"""Training and evaluation: trees separate, the same each time, in integers; campaigns stay whole; bars are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detectors.accounts import evaluate, train
from detectors.accounts.boost import DEPTH, Forest, Recipe, fit
from detectors.accounts.columns import COLUMNS
from detectors.accounts.facts import NAMES
from detectors.accounts.features import Trace
from detectors.accounts.labelled import LabelledSession, readings, sessions
from detectors.accounts.replay import Account, AccountVerdict

RECIPE = Recipe(trees=20, rate=0.3, columns=1.0)


def toy() -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label is the parity of two columns among noise: no single column tells."""
    rows = np.random.default_rng(7).integers(0, 100, (600, 6), dtype=np.int32)
    return rows, (rows[:, 1] > 50) ^ (rows[:, 4] > 30)


def test_trees_learn_what_no_column_tells_alone_and_say_it_in_integers() -> None:
    rows, labels = toy()
    trees = fit(rows, labels, np.ones(len(rows)), RECIPE)
    forest = Forest(trees)
    scores = forest.scores(rows)
    assert ((scores > 0) == labels).mean() > 0.95
    assert [forest.score(row) for row in rows[:50]] == scores[:50].tolist()
    assert all(isinstance(leaf, int) for leaf in trees.leaves)
    assert len(trees.columns) == RECIPE.trees * DEPTH


def test_the_same_rows_give_the_same_trees() -> None:
    rows, labels = toy()
    assert fit(rows, labels, np.ones(len(rows)), RECIPE) == fit(rows.copy(), labels, np.ones(len(rows)), RECIPE)


def test_rows_without_weight_teach_nothing() -> None:
    rows, labels = toy()
    weights = np.where(rows[:, 0] > 50, 1.0, 0.0)
    noisy = np.where(weights > 0, labels, ~labels)
    agree = (Forest(fit(rows, noisy, weights, RECIPE)).scores(rows) > 0) == labels
    assert agree[weights > 0].mean() > 0.95


def test_a_constant_column_is_no_obstacle() -> None:
    rows, labels = toy()
    rows[:, 2] = 5
    assert ((Forest(fit(rows, labels, np.ones(len(rows)), RECIPE)).scores(rows) > 0) == labels).mean() > 0.95


def session(name: str, label: str, subtype: str, campaign: str = "", at: int = 40) -> LabelledSession:
    account = Account(name, 0, [(second * 1000, TRACE) for second in range(at)])
    return LabelledSession(account, label, subtype, campaign, "", np.arange(1, at + 1))


def answer(name: str, at: int | None, campaign: str | None = None) -> AccountVerdict:
    return AccountVerdict(name, at is not None, at, None if at is None else at - 1.0, 0.5, None, campaign)


TRACE = Trace(text_hash=1, form_hash=1, length=9)


def test_campaigns_fall_into_one_fold_and_accounts_into_all() -> None:
    assert len({train.fold(session(f"d{n}", "distillation", "x", "c1")) for n in range(40)}) == 1
    assert {train.fold(session(f"d{n}", "benign", "x")) for n in range(80)} == set(range(train.FOLDS))


def test_half_of_what_is_learnt_from_is_without_vocabulary_and_manners() -> None:
    one = session("d1", "benign", "coder")
    rows, labels, weights = train.matrix([(one, readings(one, 40))])
    half = len(rows) // 2
    veiled = train.veiled_columns()
    assert rows.shape[1] == COLUMNS
    assert not rows[half:, veiled].any()
    rest = [column for column in range(COLUMNS) if column not in veiled]
    assert (rows[:half, rest] == rows[half:, rest]).all()
    assert not labels.any()
    assert weights[half:].sum() == pytest.approx(train.BLIND_WEIGHT * weights[:half].sum())
    named = {NAMES[column] for column in veiled if column < len(NAMES)}
    assert {"elicits_end", "makes_start", "verbatim_open", "endless", "temperature_high", "quick", "choices"} <= named
    assert not named & {"near", "same", "tail_known", "word_salad", "returns", "same_resampled", "bias_new"}


def test_bounds_leave_the_allowed_share_of_benign_sessions() -> None:
    rows, labels = toy()
    trees = fit(rows, labels, np.ones(len(rows)), Recipe(trees=1))
    unseen = [np.array([top - 900, top, top - 500]) for top in range(1000, 3000, 2)]
    model = train.calibrated(trees, unseen)
    above = sum(scores.max() >= model.alarm for scores in unseen)
    assert above == int(train.FALSE_ALARMS * len(unseen))
    assert model.limit > model.alarm - model.drift


def test_bars_count_accounts_campaigns_and_false_alarms() -> None:
    judged = [
        (session("a", "model_extraction", "random_query"), answer("a", 50)),
        (session("b", "model_extraction", "random_query"), answer("b", 51)),
        (session("c", "distillation", "coordinated_campaign", "k"), answer("c", 10, "1f")),
        (session("d", "distillation", "coordinated_campaign", "k"), answer("d", None)),
        (session("e", "distillation", "coordinated_campaign", "l"), answer("e", 10)),
        (session("f", "benign", "coder"), answer("f", 3)),
        (session("g", "benign", "coder"), answer("g", None)),
    ]
    assert evaluate.found_within(judged, ("random_query",), 50) == (2, 1)
    assert evaluate.campaigns_found(judged) == (2, 1, 2)
    assert evaluate.false_alarms(judged) == {"coder": (2, 1)}
    lines = evaluate.table(judged)
    assert [line.split()[-1] for line in lines if line.startswith("random")] == ["MISSED"]
    assert any(line.startswith("false alarms") and "0.500" in line and line.endswith("MISSED") for line in lines)


def test_labels_are_read_and_grey_sessions_left_out(tmp_path: Path) -> None:
    base = {"session_id": "s", "tenant": "t", "user": "u", "start": 0, "params": {}, "subtype": "x"}
    events = [{"t": 2, "text": "b", "attack": 1}, {"t": 1, "text": "a", "attack": 0}]
    rows = [base | {"label": "distillation", "events": events}, base | {"label": "grey_benchmark_run", "events": []}]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = sessions(file)
    assert [one.attacks.tolist() for one in found] == [[0, 1]]
    file.write_text('{"label": "benign"}')
    with pytest.raises(SystemExit, match=r"train\.jsonl:1"):
        sessions(file)


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(tmp_path)]) == 2
    assert evaluate.main([]) == 2
    assert capsys.readouterr().err.count("usage") == 2
