"""The heads of the scorer, one for each role: trained, and their thresholds placed by rows that were held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from detectors.prompts.language import LANGUAGES
from detectors.prompts.scorer import Head, ScorerModel, Zone, windows_of
from detectors.prompts.training.borrowed import NOTHING, Borrowed
from detectors.prompts.training.decide import (
    DOCUMENT_AIM,
    MANY,
    SHARES,
    Stack,
    ordinary,
    recall_table,
    stack,
    tail,
    zones,
)
from detectors.prompts.training.examples import DOCUMENT_WINDOW, USER_WINDOW, document_examples, user_examples
from detectors.prompts.training.folds import (
    FAMILIES,
    MAX_CHARS,
    PRICE,
    Readings,
    Wide,
    WindowMargins,
    deal,
    group,
    held_out,
    held_out_windows,
    learn,
    lesson,
    quantised,
    readings,
)
from detectors.prompts.training.prose import PROSE, prose
from detectors.prompts.training.rows import LabelledText, weights
from detectors.prompts.training.unseen import UNSEEN, kind_of, unseen_deeds
from detectors.text.normalize import clean

SEED = 1
VERSION = "9"
DOCUMENT_FOLDS = 8
"""Few sources hold documents; with fewer folds those that are most alike would be held out together."""
_HALF = 0.5
"""Share of the worst window while what windows cost is chosen."""
_LONG, _FEWEST_LONG = 2_500, 50
"""Characters of a long text, and how many such rows say something of a language."""
_FORMS = {"user": (USER_WINDOW, 100), "document": (DOCUMENT_WINDOW, 32), "system": (USER_WINDOW, 100)}
"""Window and stride in characters."""


class Trained(NamedTuple):
    """One head: its weights, and what its held-out rows decided."""

    weights: npt.NDArray[np.int8]
    head: Head
    share: float
    stack: Stack
    zones: dict[str, Zone]


def train_user(rows: Sequence[LabelledText]) -> Trained:
    weight = weights(rows)
    taught = lesson(user_examples(rows, range(len(rows)), weight, SEED))
    margins = held_out_windows(rows, deal(rows), taught, _FORMS["user"], SEED)
    found = readings(rows, *margins.priced(0.0, PRICE))
    many, found = _best_price(rows, found, margins, weight)
    share, added = _best_share(rows, found, weight)
    odds = added.odds(found, share)
    _show("user", rows, odds, cut := zones(rows, odds, found.language))
    quantised_weights, head = quantised(learn(taught, SEED), *_FORMS["user"])
    return Trained(quantised_weights, replace(head, many=many), share, added, cut)


def train_document(rows: Sequence[LabelledText], added: Stack, borrowed: Borrowed = NOTHING) -> Trained:
    """Documents; rules add as much as they do for users, in units of this head's margin.

    Thresholds rest on pages of kinds and on twins of deeds that the model which reads them did not see.
    """
    weight = weights(rows)
    taught = lesson(document_examples(rows, range(len(rows)), weight, SEED))
    form = _FORMS["document"]
    mine = [index for index, row in enumerate(rows) if row.role == "document" and row.subset != PROSE]
    whole, worst = held_out(rows, deal(rows, DOCUMENT_FOLDS), taught, *form, SEED, only=mine)
    kinds = np.array([kind_of(row) for row in rows])
    pages = [place for place, index in enumerate(mine) if kinds[index] >= 0 and not rows[index].attack]
    whole[pages], worst[pages] = held_out(rows, kinds, taught, *form, SEED, only=[mine[place] for place in pages])
    unseen, *more = unseen_deeds(rows, borrowed, form, SEED)
    documents = [*(rows[index] for index in mine), *unseen]
    found = readings(documents, np.append(whole, more[0]), np.append(worst, more[1]))
    # twins that a model reads which knows none of the families say what no model in use would
    placing = [index for index, row in enumerate(documents) if not row.source.startswith(f"{FAMILIES}/")]
    many, found = _best_many(documents, found, added, placing)
    own = stack(documents, found, [weight[index] for index in mine] + weights(unseen), 1.0)
    own = added._replace(bias=own.bias)
    odds = own.odds(found, 1.0)
    cut = _placed(documents, odds, found, placing)
    _show("document", documents, odds, cut)
    quantised_weights, head = quantised(learn(taught, SEED), *form)
    return Trained(quantised_weights, replace(head, many=many), 1.0, own, cut)


def _placed(rows: Sequence[LabelledText], odds: Wide, found: Readings, placing: Sequence[int]) -> dict[str, Zone]:
    return zones([rows[index] for index in placing], odds[placing], found.language[placing], DOCUMENT_AIM)


def train_system(rows: Sequence[LabelledText], user: Trained) -> Trained:
    """The user's examples with system prompts as further benign ones, so that telling a model its role is no attack."""
    # a tenth of the rest is enough here, where little is at stake: system prompts are the operator's own words
    rows = [row for index, row in enumerate(rows) if row.role == "system" or index % 10 == 0]
    weight = [value * (4.0 if row.role == "system" else 1.0) for row, value in zip(rows, weights(rows), strict=True)]
    taught = lesson(user_examples(rows, range(len(rows)), weight, SEED))
    mine = [index for index, row in enumerate(rows) if row.role == "system"]
    system = [rows[index] for index in mine]
    halves = np.array([index % 2 if row.role == "system" else 2 for index, row in enumerate(rows)])
    found = readings(system, *held_out(rows, halves, taught, *_FORMS["system"], SEED, only=mine))
    cut = zones(system, user.stack.odds(found, user.share), found.language)
    return Trained(*quantised(learn(taught, SEED), *_FORMS["system"]), user.share, user.stack, cut)


def _best_many(
    rows: Sequence[LabelledText], found: Readings, added: Stack, placing: Sequence[int]
) -> tuple[float, Readings]:
    """The loss of the worst of many windows, by the mean recall at the threshold, and the readings without it."""
    lengths = np.array([len(clean(row.text[:MAX_CHARS]).text) for row in rows], dtype=np.intp)
    windows = np.log(windows_of(lengths, Head(1, 0, *_FORMS["document"])))
    tried = [(many, found._replace(worst=found.worst - many * windows)) for many in MANY]

    def flagged(read: Readings) -> float:
        odds = added.odds(read, 1.0)
        cut = _placed(rows, odds, read, placing)
        return _mean_recall(rows, odds, {language: zone.flag for language, zone in cut.items()})

    return max(tried, key=lambda each: (flagged(each[1]), -each[0]))


def _best_price(
    rows: Sequence[LabelledText], found: Readings, margins: WindowMargins, weight: Sequence[float]
) -> tuple[float, Readings]:
    """The loss of the worst of many windows, and the readings with it: by the mean recall at the threshold above which
    1 % of ordinary rows lie, and of the long ones among them too."""
    added = stack(rows, found, weight, _HALF)
    tried, recall = {}, {}
    for many in MANY:
        whole, worst = margins.priced(many, PRICE)
        tried[many] = found._replace(whole=whole, worst=worst)
        odds = added.odds(tried[many], _HALF)
        recall[many] = _mean_recall(rows, odds, _long_cuts(rows, odds))
    print("recall by what a window costs:", {many: round(each, 4) for many, each in recall.items()})
    best = max(recall, key=lambda many: (recall[many], -many))
    return best, tried[best]


def _long_cuts(rows: Sequence[LabelledText], odds: Wide) -> dict[str, float]:
    """By language, the value above which 1 % of ordinary rows lie at most, and 1 % of those that are long."""
    long = np.array([len(row.text) >= _LONG for row in rows])
    cuts = {}
    for language in LANGUAGES:
        plain = ordinary(rows, language)
        held = [mine for mine in (plain, plain & long) if mine.sum() >= _FEWEST_LONG]
        if held:
            cuts[language] = max(tail(odds[mine], np.ones(int(mine.sum())), 0.01) for mine in held)
    return cuts


def _best_share(rows: Sequence[LabelledText], found: Readings, weight: Sequence[float]) -> tuple[float, Stack]:
    """The share of the worst window with the best mean recall over sources at 1 % of ordinary traffic."""
    best = (-1.0, 0.0, Stack(0, 1, 0, 0, 0))
    for share in SHARES:
        added = stack(rows, found, weight, share)
        odds = added.odds(found, share)
        best = max(best, (_mean_recall(rows, odds), share, added))
    return best[1], best[2]


def _mean_recall(rows: Sequence[LabelledText], odds: Wide, cuts: Mapping[str, float] | None = None) -> float:
    """Over sources and languages; above these cuts, or 1 % of ordinary rows where none are given.

    What was written here counts as one source, as the others are what stands for traffic to come.
    """
    caught: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for language in LANGUAGES:
        plain = ordinary(rows, language)
        if not plain.any() or (cuts is not None and language not in cuts):
            continue
        cut = cuts[language] if cuts is not None else tail(odds[plain], np.ones(int(plain.sum())), 0.01)
        for row, value in zip(rows, odds, strict=True):
            if row.attack and row.language == language:
                name = UNSEEN if row.source.startswith(UNSEEN) else group(row.source)
                caught[language, name].append(bool(value > cut))
    return float(np.mean([np.mean(each) for each in caught.values() if len(each) >= 20]))


def _show(name: str, rows: Sequence[LabelledText], odds: Wide, cut: dict[str, Zone]) -> None:
    print(f"\nleave one source out: {name}")
    names = [row.source if row.source.startswith((FAMILIES, UNSEEN)) else group(row.source) for row in rows]
    flags = {language: zone.flag for language, zone in cut.items()}
    print("\n".join(f"{language}: {zone}" for language, zone in cut.items()))
    print("\n".join(recall_table(rows, odds, flags, names)), flush=True)


def assembled(heads: dict[str, Trained]) -> ScorerModel:
    """Every head in log-odds of its stack; a language without rows of its own has the strictest threshold known."""
    user = heads["user"].stack
    forms, cuts = {}, {}
    for name, trained in heads.items():
        slope, head = trained.stack.slope, trained.head
        bias = head.bias * slope + trained.stack.bias
        forms[name] = replace(
            head, scale=head.scale * slope, bias=bias, many=head.many * slope, price=head.price * slope
        )
        strict = max(trained.zones.values(), key=lambda zone: zone.flag)
        cuts[name] = {language: trained.zones.get(language, strict) for language in LANGUAGES}
    shares = {name: trained.share for name, trained in heads.items()}
    return ScorerModel(VERSION, forms, shares, user.use, user.more, user.hidden, user.suffix, cuts)


def train(rows: Sequence[LabelledText], borrowed: Borrowed = NOTHING) -> dict[str, Trained]:
    """Every head, with its tables printed on the way."""
    user = train_user([row for row in rows if row.role == "user"])
    document = train_document(
        [*(row for row in rows if row.role == "document" or row.label == "injection"), *prose(rows)],
        user.stack,
        borrowed,
    )
    return {
        "user": user,
        "document": document,
        "system": train_system([row for row in rows if row.role != "document"], user),
    }
