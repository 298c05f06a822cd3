"""A record of ``decisions`` that is written has consequences: work, responses, findings, dead letters.

Pure, and a function of the record and the request's own bytes alone, so the next owner of a partition can repeat
them. Repeats are harmless: workers drop them by request id, gateways by position, watch by alert id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from detectors.accounts.meanings import meaning
from detectors.accounts.response import DUTIES
from detectors.base import MEDIUM, Finding, risk
from pipeline.admit import policy
from pipeline.admit.completions import Drop
from pipeline.admit.intake import Intake, Raw, keeps
from pipeline.events import plans
from pipeline.events.codec import encode
from pipeline.events.control import Control
from pipeline.events.emission import Emission, lane_partition
from pipeline.events.limits import QuotaState
from pipeline.events.messages import DeadLetter, FindingEvent, Response, Work
from pipeline.events.records import Decision, Outcome
from pipeline.stage import InputRecord
from pipeline.topics import partition_of

REVIEWED = Finding("extraction.review", MEDIUM, 90, 0, 0, "account", 0)
"""Stands for an account under review where findings decide what is kept."""


def needs_body(decision: Decision) -> bool:
    """Tell whether acting on the decision takes the request's own bytes."""
    return decision.verdict == "admit" and decision.facts.kind == "inference"


def after_decision(
    decision: Decision,
    partition: int,
    control: Control,
    intake: Intake | None,
    quota: QuotaState | None = None,
    ticket: bytes = b"",
) -> list[Emission]:
    """Give what is sent because of a decision; ``intake`` is needed where ``needs_body`` says so.

    ``ticket`` is what a worker has to return with its completion.
    """
    partitions = control.require_deployment().partitions
    sent: list[Emission] = []
    if decision.verdict == "admit":
        cancels = decision.facts.kind == "cancel"
        work = _cancel(decision, partition) if cancels else _work(decision, partition, control, intake, quota, ticket)
        key = work.request.encode()
        topic = plans.work_topic(control, decision.tenant)
        sent.append(Emission(topic, partition_of(key, partitions), key, encode(work)))
    elif decision.facts.client_request and decision.tenant:
        sent.append(_refusal(decision, partitions, control, quota))
    event = _finding(decision)
    if event is not None:
        sent.append(Emission("findings", partition, decision.organisation.encode(), encode(event)))
    sent += [_shared(decision, signature, partitions) for signature in decision.signatures]
    if intake is not None and intake.unread:
        sent.append(dead_letter(intake.unread, partition, intake.facts.fault))
    return sent


def after_outcome(outcome: Outcome, partitions: int) -> list[Emission]:
    """Tell the waiting gateway of an outcome that no worker reported."""
    if outcome.result != "expired" or outcome.completion >= 0:
        return []
    response = Response(outcome.request, outcome.client_request, outcome.tenant, "refusal", reason="expired")
    reply_partition = lane_partition(outcome.lane, partitions)
    return [Emission("responses", reply_partition, outcome.request.encode(), encode(response))]


def dropped_completions(dropped: Sequence[tuple[InputRecord, Drop]], partition: int) -> list[Emission]:
    """Leave a trace of completions that end nothing, one for each run of a reason; they stay in ``completions``."""
    runs: list[tuple[list[InputRecord], Drop]] = []
    for item, reason in dropped:
        if runs and runs[-1][1] == reason and runs[-1][0][-1].offset + 1 == item.offset:
            runs[-1][0].append(item)
        else:
            runs.append(([item], reason))
    return [_dead_letter("completions", items[0].offset, items, partition, reason) for items, reason in runs]


def dead_letter(raws: Sequence[Raw], partition: int, reason: str) -> Emission:
    """Leave a trace of consecutive records that could not be understood; they stay in ``requests``."""
    return _dead_letter("requests", raws[0].start, raws, partition, reason)


def _dead_letter(topic: str, first: int, items: Sequence[InputRecord], partition: int, reason: str) -> Emission:
    content, last = b"".join([item.value for item in items]), items[-1]
    letter = DeadLetter(
        topic, partition, last.offset, last.time, reason, len(content), hashlib.sha256(content).digest(),
        first=first if first < last.offset else -1,
    )  # fmt: skip
    return Emission("dead_letters", partition, b"", encode(letter))


def _cancel(decision: Decision, partition: int) -> Work:
    return Work(*_address(decision, decision.first, partition), cancel=True)


def _work(
    decision: Decision,
    partition: int,
    control: Control,
    intake: Intake | None,
    quota: QuotaState | None,
    ticket: bytes,
) -> Work:
    assert intake is not None
    assert intake.body is not None
    facts = decision.facts
    plan = control.plans[control.tenants[decision.tenant].plan]
    model = control.models.get(facts.model)
    return Work(
        *_address(decision, decision.request, partition),
        model=facts.model,
        max_tokens=facts.max_tokens,
        input_bound=facts.input_bound,
        sampling=intake.body.sampling,
        sealed=intake.body.sealed,
        wrap=intake.wrap,
        keep="all" if keeps(plan, _kept_for(decision)) else plan.keep_texts,
        masked_spans=policy.masked_spans(plan, facts.findings, facts.documents),
        mask_personal=policy.masks_personal(plan),
        output=plan.output,
        personal=plan.personal,
        personal_off=plan.personal_off,
        degrade=policy.degrades(decision.step),
        weight=plan.weight,
        risk=risk(facts.findings + decision.findings),
        verbatim=plan.verbatim,
        system_prompt=plan.system_prompt,
        adapter=(model and model.adapter) or "",
        quotes=policy.quoted_spans(plan, facts.findings, facts.documents),
        quota=quota,
        ticket=ticket,
        estimated=decision.estimated,
    )


def _address(decision: Decision, request: str, partition: int) -> tuple[str, int, str, str, str, str, int, int]:
    """Give the first fields of ``Work`` in their order."""
    facts = decision.facts
    account = (decision.organisation, decision.tenant, decision.principal)
    return (request, partition, *account, facts.client_request, facts.lane, facts.deadline)


def _refusal(decision: Decision, partitions: int, control: Control, quota: QuotaState | None) -> Emission:
    facts, found = decision.facts, meaning(decision.copying)
    if decision.reasons[0] == "injection":
        found = policy.told(control.plans[control.tenants[decision.tenant].plan], facts.findings, facts.documents)
    response = Response(
        decision.request,
        decision.facts.client_request,
        decision.tenant,
        "refusal",
        reason=decision.reasons[0],
        limit=decision.limit,
        retry_after_ms=decision.retry_after_ms,
        first=decision.first,
        found=found,
        quota=quota,
    )
    reply_partition = lane_partition(facts.lane, partitions)
    return Emission("responses", reply_partition, decision.request.encode(), encode(response))


def _kept_for(decision: Decision) -> tuple[Finding, ...]:
    """Give the findings for which a text is kept; an account under review has one at every request."""
    review = DUTIES[decision.step].review
    return decision.facts.findings + decision.findings + ((REVIEWED,) if review else ())


def _shared(decision: Decision, signature: int, partitions: int) -> Emission:
    """Report a wording that an account keeps using to the partition where that wording of every account arrives."""
    account = (decision.organisation, decision.tenant, decision.principal)
    bare = FindingEvent(decision.request, decision.facts.time, *account, "admit", decision.verdict)
    event = msgspec.structs.replace(bare, signature=signature, score=decision.score)
    key = signature.to_bytes(8, "big")
    return Emission("findings", partition_of(key, partitions), key, encode(event))


def _finding(decision: Decision) -> FindingEvent | None:
    findings = decision.facts.findings + decision.findings
    if not decision.tenant or (not findings and decision.verdict == "admit"):
        return None
    return FindingEvent(
        decision.request,
        decision.facts.time,
        decision.organisation,
        decision.tenant,
        decision.principal,
        "admit",
        decision.verdict,
        decision.reasons,
        findings,
    )
