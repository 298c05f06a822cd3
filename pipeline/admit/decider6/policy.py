"""A plan made this of findings under decider 6."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.accounts.response import STEPS, Step
from detectors.base import Finding
from pipeline.events.control import Plan, Principal
from pipeline.events.records import Facts

SCORED = "injection.score"
UNREAD = "detector."
MAX_LOGPROB_TOKENS = 4096
WITHHELD = frozenset({"unscreened", "injection", "extraction"})


def refusal(plan: Plan, findings: Sequence[Finding]) -> str:
    """The reason for which ``plan`` refuses a prompt with ``findings``; empty for none."""
    if plan.unscreened == "refuse" and any(f.rule.startswith(UNREAD) for f in findings):
        return "unscreened"
    return "injection" if any(_blocks(plan, f) for f in findings) else ""


def counts(verdict: str, reasons: Sequence[str]) -> bool:
    """Tell whether a request that was answered so counts for its account: quotas refuse before anything is read."""
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
        facts.top_logprobs >= 0 and (facts.biases or facts.max_tokens > MAX_LOGPROB_TOKENS)
    ):
        return "logprobs_not_allowed"
    return ""


def _blocks(plan: Plan, finding: Finding) -> bool:
    if finding.rule.startswith(UNREAD):
        return False
    if plan.block_confidence and finding.rule == SCORED:
        return finding.confidence >= plan.block_confidence
    return finding.severity >= plan.block_severity
