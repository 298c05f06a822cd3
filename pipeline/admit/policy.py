"""A plan turns findings into a refusal or a step. Pure: severities and confidences in; texts are not seen here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from detectors.accounts.response import DUTIES, STEPS, Step
from detectors.base import CRITICAL, MEDIUM, Finding
from detectors.prompts.phrases import SMUGGLED
from pipeline.events.control import Plan, Principal, Tenant
from pipeline.events.records import Facts
from pipeline.events.wire import MAX_LOGPROB_TOKENS

SCORED = "injection.score"
"""Rule whose confidence is a calibrated probability in percent, so that a tenant may set a threshold of its own."""
UNREAD = "detector."
"""Beginning of the rules that say of a text that it was not read to its end."""
PERSONAL = "pii."
"""Beginning of the rules that find personal data."""
ORDERS = "injection."
"""Beginning of the rules that say of a text that it gives orders against the operator's."""
WITHHELD = frozenset({"unscreened", "injection", "extraction"})
"""Reasons that are found after the limits held: such a request counts, for them and for its account."""


def refusal(plan: Plan, findings: Sequence[Finding], documents: Sequence[int] = ()) -> str:
    """Give the reason for which ``plan`` refuses a prompt with ``findings``, empty for none; ``documents`` are the
    turns that are documents."""
    if not findings:
        return ""
    if plan.unscreened == "refuse" and any(f.rule.startswith(UNREAD) for f in findings):
        return "unscreened"
    return "injection" if any(_refuses(plan, f, documents) for f in findings) else ""


def told(plan: Plan, findings: Sequence[Finding], documents: Sequence[int] = ()) -> str:
    """Say what the caller of a refused prompt may know: the family of rules, where it was found and how grave it is."""
    blocking = [f for f in findings if _refuses(plan, f, documents)]
    if not blocking:
        return ""
    worst = max(blocking, key=lambda f: (f.severity, f.rule != SCORED, f.confidence, -f.turn, -f.start, f.rule))
    return f"{'.'.join(worst.rule.split('.')[:2])} in messages[{worst.turn}], severity {worst.severity}"


def counts(verdict: str, reasons: Sequence[str]) -> bool:
    """Tell whether a request that was answered so counts for its account: quotas refuse before anything is read."""
    return verdict == "admit" or not WITHHELD.isdisjoint(reasons)


def answered(plan: Plan, tenant: Tenant, principal: Principal, step: Step) -> Step:
    """Give the step at which an account that is judged to be at ``step`` is answered under ``plan``: none is but told
    of before somebody has looked at what the tenant's own traffic would have raised."""
    if principal.extraction != "judged":
        return "observe" if principal.extraction == "cleared" else "block"
    if plan.shadow or not tenant.calibrated:
        return "observe"
    return STEPS[min(STEPS.index(step), STEPS.index(plan.extraction))]


def logprobs_refusal(plan: Plan, facts: Facts) -> str:
    """Give the reason to refuse log-probabilities or logit bias; empty where the plan allows what is asked for."""
    if facts.biases and not plan.logit_bias:
        return "logit_bias_not_allowed"
    # with logit bias they give the model's last layer away (Carlini et al. 2024), and they must fit one record
    beyond = facts.top_logprobs >= 0 and (facts.biases or facts.max_tokens > MAX_LOGPROB_TOKENS)
    return "logprobs_not_allowed" if beyond or facts.top_logprobs > plan.top_logprobs else ""


def degrades(step: Step) -> bool:
    """Tell whether an answer at ``step`` bears the watermark and no log-probabilities."""
    return DUTIES[step].watermark


def masked_spans(
    plan: Plan, findings: Sequence[Finding], documents: Sequence[int] = ()
) -> tuple[tuple[int, int, int], ...]:
    """Give (turn, start, end) of each passage that the model is not to read, in order and apart from each other."""
    if not findings:
        return ()
    merged: list[tuple[int, int, int]] = []
    for turn, start, end in sorted(
        (f.turn, f.start, f.end) for f in findings if f.start < f.end and _masked(plan, f, documents)
    ):
        if merged and merged[-1][0] == turn and merged[-1][2] >= start:
            merged[-1] = turn, merged[-1][1], max(end, merged[-1][2])
        else:
            merged.append((turn, start, end))
    return tuple(merged)


def quoted_spans(plan: Plan, findings: Iterable[Finding], documents: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Give (turn, start, end) of each order in a document that is to be marked as data, in order."""
    if plan.documents != "neutralise" or plan.shadow or not documents:
        return ()
    marked = [f for f in findings if _planted(f, documents) and not _masked(plan, f, documents)]
    return tuple(sorted({(f.turn, f.start, f.end) for f in marked if f.severity >= MEDIUM and f.start < f.end}))


def _refuses(plan: Plan, finding: Finding, documents: Sequence[int]) -> bool:
    return _blocks(plan, finding) and (plan.documents == "refuse" or not _planted(finding, documents))


def _planted(finding: Finding, documents: Sequence[int]) -> bool:
    """Tell whether this was found in a document, as an order to the model."""
    return finding.turn in documents and finding.rule.startswith(ORDERS)


def _masked(plan: Plan, finding: Finding, documents: Sequence[int]) -> bool:
    """Tell whether the model is not to read the passage at all."""
    if finding.rule.startswith(PERSONAL) and finding.rule.removeprefix(PERSONAL).upper() in plan.personal_off:
        return False
    if plan.blank and finding.rule.startswith(plan.blank):
        return True
    if plan.documents == "refuse" or plan.shadow or not _planted(finding, documents):
        return False
    # a template's token ends the quotation that would hold it, and characters that show nothing cannot be quoted
    unquotable = finding.severity == CRITICAL or finding.rule == SMUGGLED
    return finding.severity >= MEDIUM and (plan.documents == "blank" or unquotable)


def masks_personal(plan: Plan) -> bool:
    """Tell whether personal data in prompts is taken out: all of it, also what findings did not have room for."""
    return PERSONAL in plan.blank


def _blocks(plan: Plan, finding: Finding) -> bool:
    """Tell whether the plan refuses a prompt for this finding."""
    if finding.rule.startswith(UNREAD):
        return False
    if plan.block_confidence and finding.rule == SCORED:
        return finding.confidence >= plan.block_confidence
    if plan.block_confidence and finding.rule.startswith(ORDERS) and finding.severity < CRITICAL:
        # the score holds what the rules said
        return False
    return finding.severity >= plan.block_severity
