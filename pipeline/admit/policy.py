"""What a plan makes of findings. Pure: severities and confidences in, one word out; texts are not seen here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from detectors.accounts.response import DUTIES, STEPS, Step
from detectors.base import Finding
from pipeline.events.control import Plan, Principal
from pipeline.events.records import Facts
from pipeline.events.wire import MAX_TOLD

SCORED = "injection.score"
"""Rule whose confidence is a calibrated probability in percent, so that a tenant may set a threshold of its own."""
UNREAD = "detector."
"""Rules that say of a text that it was not read to its end."""
PERSONAL = "pii."


WITHHELD = frozenset({"unscreened", "injection", "extraction"})
"""Reasons that are found after the limits held: such a request counts, for them and for its account."""


def refusal(plan: Plan, findings: Sequence[Finding]) -> str:
    """The reason for which ``plan`` refuses a prompt with ``findings``; empty for none."""
    if plan.unscreened == "refuse" and any(f.rule.startswith(UNREAD) for f in findings):
        return "unscreened"
    return "injection" if any(_blocks(plan, f) for f in findings) else ""


def counts(verdict: str, reasons: Sequence[str]) -> bool:
    """Whether a request that was answered so counts for its account: quotas refuse before anything is read."""
    return verdict == "admit" or not WITHHELD.isdisjoint(reasons)


def answered(plan: Plan, principal: Principal, step: Step) -> Step:
    """The step at which an account that stands at ``step`` is answered under ``plan``."""
    if principal.extraction != "judged":
        return "observe" if principal.extraction == "cleared" else "block"
    if plan.shadow:
        return "observe"
    return STEPS[min(STEPS.index(step), STEPS.index(plan.extraction))]


def unreadable(plan: Plan, facts: Facts) -> str:
    """Why ``plan`` lets a request read less out of the model than ``facts`` ask for; empty where it lets them."""
    if facts.biases and not plan.logit_bias:
        return "logit_bias_not_allowed"
    # both together read the model's last layer out (Carlini et al. 2024), and a readout must fit one record
    if facts.top_logprobs > plan.top_logprobs or (
        facts.top_logprobs >= 0 and (facts.biases or facts.max_tokens > MAX_TOLD)
    ):
        return "logprobs_not_allowed"
    return ""


def degrades(step: Step) -> bool:
    """Whether an answer at ``step`` bears the watermark and no log-probabilities."""
    return DUTIES[step].watermark


def masked_spans(plan: Plan, findings: Iterable[Finding]) -> tuple[tuple[int, int, int], ...]:
    """(turn, start, end) of what the model is not to read, in order and apart from each other."""
    if not plan.blank:
        return ()
    merged: list[tuple[int, int, int]] = []
    for turn, start, end in sorted(
        (f.turn, f.start, f.end) for f in findings if f.rule.startswith(plan.blank) and f.start < f.end
    ):
        if merged and merged[-1][0] == turn and merged[-1][2] >= start:
            merged[-1] = turn, merged[-1][1], max(end, merged[-1][2])
        else:
            merged.append((turn, start, end))
    return tuple(merged)


def blanks_personal(plan: Plan) -> bool:
    """Whether personal data in prompts is taken out: all of it, also what findings did not have room for."""
    return PERSONAL in plan.blank


def _blocks(plan: Plan, finding: Finding) -> bool:
    if finding.rule.startswith(UNREAD):
        return False
    if plan.block_confidence and finding.rule == SCORED:
        return finding.confidence >= plan.block_confidence
    return finding.severity >= plan.block_severity
