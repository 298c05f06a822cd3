"""The bars of the account detector: `python -m detectors.accounts.evaluate FOLDER`.

FOLDER holds `train.jsonl` and `validation.jsonl`. Train is judged by trees of other folds (an account and its campaign
are in one), validation by the shipped model. Each part is replayed on one clock as `sluice detect accounts` does.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from detectors.accounts.campaign import Campaigns
from detectors.accounts.judge import Judge, JudgeModel, shipped
from detectors.accounts.labelled import BENIGN, LabelledSession, sessions
from detectors.accounts.replay import AccountVerdict, replay
from detectors.accounts.train import held_out, is_drawn, read_all, read_applications

Judged = list[tuple[LabelledSession, AccountVerdict]]
CAMPAIGN, MIXED = "coordinated_campaign", "mixed_account"
CAMPAIGN_REQUESTS = 300


class Bar(NamedTuple):
    """A bar: of accounts of these kinds at least `share` must be found within `requests` requests."""

    name: str
    kinds: tuple[str, ...]
    requests: int
    share: float


BARS = (
    Bar("parameter abuse", ("logit_bias_sweep", "logit_bias_binary_search", "top_logprob_sweep"), 15, 1.0),
    Bar("repeat-word", ("divergence_repeat", "divergence_repeat_zh"), 15, 1.0),
    Bar("boundary", ("boundary_perturbation",), 50, 0.98),
    Bar("random", ("random_query",), 50, 0.98),
    Bar("resampling", ("soft_label_resampling",), 50, 0.98),
    Bar("generator", ("dataset_generator",), 50, 0.98),
    Bar("continuation", ("prefix_continuation",), 50, 0.98),
    Bar("instruction harvest", ("instruction_harvest",), 60, 0.95),
    Bar("instruction harvest", ("instruction_harvest",), 120, 0.99),
    Bar("trace harvest", ("reasoning_trace_harvest",), 60, 0.95),
    Bar("trace harvest", ("reasoning_trace_harvest",), 120, 0.99),
    Bar("mixed", (MIXED,), 100, 0.60),
)
FALSE_ALARMS, FALSE_ALARMS_OF_A_KIND = 0.005, 0.02


def found_within(judged: Judged, kinds: Iterable[str], requests: int) -> tuple[int, int]:
    """Accounts of these kinds, and those alarmed at that many requests or fewer."""
    verdicts = [verdict for session, verdict in judged if session.subtype in kinds]
    return len(verdicts), sum(v.alarmed_at is not None and v.alarmed_at <= requests for v in verdicts)


def campaigns_found(judged: Judged) -> tuple[int, int, int]:
    """Campaigns; those named by CAMPAIGN_REQUESTS of their requests; those with any account alarmed by then."""
    campaigns: dict[str, Judged] = defaultdict(list)
    for session, verdict in judged:
        if session.campaign:
            campaigns[session.campaign].append((session, verdict))
    linked = alarmed = 0
    for members in campaigns.values():
        times = sorted(time for session, _ in members for time, _ in session.account.requests)
        until = times[min(CAMPAIGN_REQUESTS, len(times)) - 1] / 1000
        early = [
            verdict for _, verdict in members if verdict.alarmed_time is not None and verdict.alarmed_time <= until
        ]
        alarmed += bool(early)
        linked += any(verdict.campaign for verdict in early)
    return len(campaigns), linked, alarmed


def false_alarms(judged: Judged) -> dict[str, tuple[int, int]]:
    """Accounts of each benign kind, and those of them that were alarmed."""
    counts: dict[str, tuple[int, int]] = {}
    for session, verdict in judged:
        if session.label == BENIGN:
            total, wrong = counts.get(session.subtype, (0, 0))
            counts[session.subtype] = total + 1, wrong + verdict.alarmed
    return counts


def table(judged: Judged) -> list[str]:
    """One line for each bar, with the share that was reached."""
    lines = []
    for bar in BARS:
        total, found = found_within(judged, bar.kinds, bar.requests)
        lines.append(_line(f"{bar.name} within {bar.requests}", found, total, bar.share))
    total, linked, alarmed = campaigns_found(judged)
    lines.append(_line(f"campaigns named within {CAMPAIGN_REQUESTS}", linked, total, 0.90))
    lines.append(_line(f"campaigns alarmed within {CAMPAIGN_REQUESTS}", alarmed, total, 0.90))
    counts = false_alarms(judged)
    benign, wrong = sum(total for total, _ in counts.values()), sum(wrong for _, wrong in counts.values())
    lines.append(_line("false alarms", wrong, benign, -FALSE_ALARMS))
    lines += [
        _line(f"  {kind}", wrong, total, -FALSE_ALARMS_OF_A_KIND) for kind, (total, wrong) in sorted(counts.items())
    ]
    return lines


def table_of_kinds(judged: Judged) -> list[str]:
    """One line for each kind, with the share that was alarmed."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    for session, verdict in judged:
        kinds[session.subtype].append(verdict.alarmed)
    return [f"{kind:44} {sum(each):5} of {len(each):5}" for kind, each in sorted(kinds.items()) if any(each)]


def _line(name: str, found: int, total: int, bar: float) -> str:
    """One line of the table; a negative bar is a ceiling."""
    share = found / total if total else 0.0
    kept = share >= bar if bar >= 0 else share <= -bar
    sign = ">=" if bar >= 0 else "<="
    missed = "" if kept or not total else "MISSED"
    return f"{name:32} {found:5} of {total:5}  {share:6.3f}  {sign} {abs(bar):5.3f}  {missed}"


def judge_all(sessions: Sequence[LabelledSession], judge: Judge) -> Judged:
    """Sessions with the verdicts of one replay of them all."""
    return list(zip(sessions, replay([session.account for session in sessions], judge, Campaigns()), strict=True))


def main(arguments: Sequence[str]) -> int:
    """Print the table of each part; 2 where the folder has none."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(
            "usage: python -m detectors.accounts.evaluate FOLDER (with train.jsonl, validation.jsonl)", file=sys.stderr
        )
        return 2
    folder = Path(arguments[0])
    if (file := folder / "train.jsonl").is_file():
        folds, model = held_out(read_all(file) + read_applications(folder.parent / "train.jsonl"))
        judged: Judged = []
        drawn: Judged = []
        for mine, trees in folds:
            judge = Judge(JudgeModel(trees, model.alarm, model.drift, model.limit))
            judged += judge_all([session for session in mine if not is_drawn(session)], judge)
            drawn += judge_all([session for session in mine if is_drawn(session)], judge)
        print("train, each account judged by trees of other folds", *table(judged), sep="\n")
        print("\ndrawn accounts, each judged by trees of other folds", *table_of_kinds(drawn), sep="\n")
    if (file := folder / "validation.jsonl").is_file():
        print("\nvalidation, judged by the shipped model", *table(judge_all(sessions(file), shipped())), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
