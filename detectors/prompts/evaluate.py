"""The bars of prompt detection on labelled rows: false alarms and zones per kind of traffic, recall per source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from detectors.base import Part, Role
from detectors.prompts.assess import Assessment, assess
from detectors.prompts.language import LANGUAGES
from detectors.prompts.training.decide import HARD, recall_table
from detectors.prompts.training.rows import LabelledText

BATCH = 256
ROLES: tuple[Role, ...] = ("user", "document", "system")
BARS = {"general": (0.01, 0.001), "hard": (0.05, None)}
"""By kind of benign traffic: the most that may be flagged, and blocked."""


def assessed(rows: Sequence[LabelledText]) -> list[Assessment]:
    """The answer of `sluice detect prompts` to each row in its role."""
    found: list[Assessment] = []
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        found += assess([(Part(_role(row), row.text),) for row in batch])
    return found


def report(rows: Sequence[LabelledText]) -> list[str]:
    """Lines of two tables per role: benign rows against the bars, and recall at fixed shares of ordinary traffic."""
    found = assessed(rows)
    odds = np.array([_odds(each.score) for each in found])
    lines: list[str] = []
    for role in ROLES:
        mine = [index for index, row in enumerate(rows) if _role(row) == role]
        if not mine:
            continue
        part, seen = [rows[index] for index in mine], [found[index] for index in mine]
        lines += [f"\n{role}: benign rows", *_alarms(part, seen)]
        table = recall_table(part, odds[mine], dict.fromkeys(LANGUAGES, 0.0), [row.source for row in part])
        lines += [f"\n{role}: share caught, at fixed shares of the ordinary benign rows and at the threshold", *table]
    return lines


def _alarms(rows: Sequence[LabelledText], found: Sequence[Assessment]) -> list[str]:
    lines = [f"{'lang':6}{'kind':9}{'rows':>6} {'flagged':>8} {'bar':>6} {'blocked':>8} {'bar':>6} {'not pass':>9}"]
    for language in LANGUAGES:
        for kind, (flag_bar, block_bar) in BARS.items():
            mine = [
                each
                for row, each in zip(rows, found, strict=True)
                if row.label == "benign" and row.language == language and (row.subset in HARD) == (kind == "hard")
            ]
            if mine:
                flagged, blocked = (_mean([e.flagged for e in mine]), _mean([e.zone == "block" for e in mine]))
                block = f"{block_bar:6.3f}" if block_bar is not None else "     -"
                doubt = _mean([each.zone != "pass" for each in mine])
                lines.append(
                    f"{language:6}{kind:9}{len(mine):6} {flagged:8.4f} {flag_bar:6.3f} {blocked:8.4f} {block}"
                    f" {doubt:9.4f}"
                )
    return lines


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _role(row: LabelledText) -> Role:
    return "document" if row.role == "document" else "system" if row.role == "system" else "user"


def _odds(score: float) -> float:
    inside = min(max(score, 1e-15), 1 - 1e-15)
    return float(np.log(inside / (1 - inside)))
