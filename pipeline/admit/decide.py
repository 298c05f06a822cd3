"""ADMIT gives the one answer to each request, and the one outcome of each admitted request.

Reads ``requests``, ``completions``, ``control``; writes ``decisions``; owns the ledger of one partition. Everything
here is pure: a decision is a function of the ledger (a fold of ``decisions``), the control documents and the facts
that it carries itself, so it can be derived again offline, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from detectors.accounts.response import DUTIES, QUIET_MS, Step
from detectors.accounts.rules import KINDS, NONE
from detectors.accounts.status import Judgement, step_at
from pipeline.admit import policy
from pipeline.admit.callers import Caller, asked, caller_of, ceilings_over, price_of, slowed_at
from pipeline.admit.completions import misreported
from pipeline.admit.idempotency import digest_of
from pipeline.admit.ledger import Ledger, client_name
from pipeline.admit.quota import Denial, amounts_of, settle, weigh
from pipeline.admit.snapshot import LedgerPosition, Reservation
from pipeline.events import plans
from pipeline.events.control import Control
from pipeline.events.ids import request_id
from pipeline.events.messages import Completion
from pipeline.events.records import DECIDER, Charge, Decision, Facts, Outcome

UNCHARGED = frozenset({"failed", "expired"})


@dataclass(frozen=True, slots=True)
class Denied:
    """A request is refused; ``charges`` are what it costs all the same."""

    reason: str
    limit: str = ""
    retry_after_ms: int = 0
    charges: tuple[Charge, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"
    kind: int = NONE
    """The kind of copying for which the account is answered at a step."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request is admitted; ``first`` names the request that a cancel stops."""

    charges: tuple[Charge, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"
    kind: int = NONE
    first: str = ""
    shadowed: str = ""
    price: tuple[int, int] | None = None
    estimated: bool = False


def decide(ledger: Ledger, control: Control, partition: int, facts: Facts) -> Decision:
    """Answer the request that ``facts`` describe. Changes nothing; ``Ledger.apply`` does."""
    caller = caller_of(control, facts.key)
    answer = _judge(ledger, control, caller, facts)
    tenant = caller.tenant.id if caller else ""
    denied = answer if isinstance(answer, Denied) else None
    judgement = answer.judgement
    signatures = judgement.signatures if judgement else ()
    return Decision(
        request=request_id(control.generation, partition, facts.offset),
        facts=facts,
        verdict="deny" if denied else "admit",
        control=control.version,
        decider=DECIDER,
        organisation=caller.tenant.organisation if caller else "",
        tenant=tenant,
        principal=caller.principal.id if caller else "",
        sequence=ledger.sequences.get(tenant, 0) + 1 if caller else 0,
        reasons=(denied.reason,) if denied else (),
        limit=denied.limit if denied else "",
        retry_after_ms=denied.retry_after_ms if denied else 0,
        charges=answer.charges,
        findings=judgement.findings if judgement else (),
        shadowed="" if denied else answer.shadowed,  # type: ignore[union-attr]
        first=_first(ledger, caller, facts, answer, partial(request_id, control.generation, partition)),
        step=answer.step,
        copying=KINDS[answer.kind] if answer.kind else "",
        score=judgement.score if judgement and signatures else 0,
        signatures=signatures,
        price=None if denied else answer.price,  # type: ignore[union-attr]
        estimated=not denied and answer.estimated,  # type: ignore[union-attr]
    )


def following(facts: Facts, position: LedgerPosition) -> Facts:
    """Tie the facts to what was decided before: time never runs backwards, and no offset is passed over untold."""
    first = max(facts.start, position.next_request)
    if facts.time >= position.time and first == facts.start == position.next_request:
        return facts
    return msgspec.structs.replace(
        facts,
        time=max(facts.time, position.time),
        skipped=first - position.next_request,
        first=first if first < facts.offset else -1,
    )


def outcome(ledger: Ledger, offset: int, time: int, report: Completion) -> Outcome | None:
    """Settle the request that ``report`` at ``offset`` of ``completions`` ends; None where it ends nothing."""
    reservation = ledger.open.get(report.request)
    if reservation is None or misreported(reservation, report):
        return None
    now = max(time, ledger.time)
    charged = report.result not in UNCHARGED
    used = amounts_of(report.input_tokens, report.output_tokens, reservation.price)
    reserved = max((c.amount for c in reservation.charges if c.unit == "tokens"), default=used.tokens)
    return Outcome(
        request=reservation.request,
        time=now,
        result=report.result,
        organisation=reservation.organisation,
        tenant=reservation.tenant,
        principal=reservation.principal,
        sequence=ledger.sequences.get(reservation.tenant, 0) + 1,
        completion=offset,
        worker=report.worker,
        model=report.model,
        finish=report.finish,
        input_tokens=report.input_tokens,
        output_tokens=report.output_tokens,
        latency_ms=now - reservation.time,
        first_token_ms=report.first_token_ms,
        charges=settle(reservation.charges, used, reservation.time, charged, reservation.estimated),
        findings=report.findings,
        text_digest=report.text_digest,
        text=report.text,
        client_request=reservation.client_request,
        lane=reservation.lane,
        version=report.version,
        watermark=report.watermark,
        fingerprints=report.fingerprints,
        adapter=report.adapter,
        tools=report.tools,
        pool=report.pool,
        cost=(used.cost or 0) if charged else 0,
        overshoot=max(0, used.tokens - reserved) if charged and reservation.estimated else 0,
    )


def expired(ledger: Ledger, reservation: Reservation, time: int) -> Outcome:
    """Settle a reservation whose deadline and grace are over, at zero charge."""
    now = max(time, ledger.time)
    return Outcome(
        request=reservation.request,
        time=now,
        result="expired",
        organisation=reservation.organisation,
        tenant=reservation.tenant,
        principal=reservation.principal,
        sequence=ledger.sequences.get(reservation.tenant, 0) + 1,
        latency_ms=now - reservation.time,
        charges=settle(reservation.charges, amounts_of(0, 0, None), reservation.time, charged=False, estimated=False),
        client_request=reservation.client_request,
        lane=reservation.lane,
    )


def _judge(ledger: Ledger, control: Control, caller: Caller | None, facts: Facts) -> Admitted | Denied:
    """Make the checks in their order; the first that refuses is the answer."""
    if caller is None:
        return Denied(facts.fault or "unknown_key")
    refusal = facts.fault or _refused_key(caller, facts) or _repeated(ledger, caller, facts)
    if refusal:
        return Denied(refusal)
    if facts.kind == "cancel":
        target = ledger.clients.get(client_name(caller.principal.id, facts.target), ("",))[-1]
        return Admitted(first=target) if target else Denied("no_such_request")
    refusal = _unfit(control, caller, facts)
    if refusal:
        return Denied(refusal)
    return _meter(ledger, control, caller, facts)


def _refused_key(caller: Caller, facts: Facts) -> str:
    """Give the reason for which the key or its tenant is refused; empty for none."""
    key = caller.key
    if key.status == "revoked":
        return "revoked_key"
    if key.expires and key.expires <= facts.time:
        return "expired_key"
    return "suspended" if caller.tenant.status == "suspended" else ""


def _repeated(ledger: Ledger, caller: Caller, facts: Facts) -> str:
    """Give the reason for which a repeat is refused; empty for none."""
    window = ledger.sessions.get(facts.key, {}).get(facts.session)
    if window is not None and not window.fresh(facts.counter):
        return "replayed"
    if not ledger.takes_session(facts.key, facts.session, facts.time):
        return "too_many_sessions"
    if facts.idempotency and _holder(ledger, caller, facts) is not None:
        return "duplicate"
    return ""


def _holder(ledger: Ledger, caller: Caller, facts: Facts) -> int | None:
    return ledger.idempotency.holder(digest_of(caller.principal.id, facts.idempotency), facts.time)


def _unfit(control: Control, caller: Caller, facts: Facts) -> str:
    """Give the reason for which plan or model refuse what is asked for; empty for none."""
    model = control.models.get(facts.model)
    if model is None or not plans.knows(caller.tenant.id, model):
        return "unknown_model"
    if not plans.allows(caller.plan, caller.tenant.id, model):
        return "model_not_allowed"
    if facts.max_tokens > min(caller.plan.max_tokens, model.context):
        return "max_tokens_exceeded"
    if facts.input_bound > caller.plan.max_input_bytes:
        return "input_too_long"
    if facts.top_logprobs >= 0 or facts.biases:
        refusal = policy.logprobs_refusal(caller.plan, facts)
        if refusal:
            return refusal
    return "deadline_passed" if facts.deadline <= facts.time else ""


def _meter(ledger: Ledger, control: Control, caller: Caller, facts: Facts) -> Admitted | Denied:
    """Weigh the request, then its findings: a refused attack counts as a request, so it cannot be repeated for free."""
    plan, principal = caller.plan, caller.principal
    account = ledger.accounts.answering(principal.id, facts)
    before = ledger.accounts.status(account)
    step_before = policy.answered(plan, caller.tenant, principal, step_at(before, facts.time))
    slowed = slowed_at(caller, account, step_before)
    ceilings = ceilings_over(control, caller, facts.model)
    weighed = weigh(ledger.cells, (*ceilings, slowed) if slowed else ceilings, asked(control, facts), facts.time)
    if isinstance(weighed, Denial):
        reason = "busy" if weighed.limit.startswith("*|") else weighed.reason
        if slowed and weighed.limit == slowed.label:
            reason = "throttled"
        kind = before.kind if reason == "throttled" else NONE
        return Denied(reason, weighed.limit, weighed.retry_after_ms, step=step_before, kind=kind)
    judgement = ledger.accounts.judgement_of(principal.id, facts)
    judged_step = judgement.after.response.step if judgement else step_before
    step = policy.answered(plan, caller.tenant, principal, judged_step)
    kind = judgement.after.kind if judgement and step != "observe" and principal.extraction == "judged" else NONE
    refusal = policy.refusal(plan, facts.findings, facts.documents)
    counted = tuple(c for c in weighed if c.unit == "requests" and c.meter != "open")
    if refusal and not plan.shadow:
        return Denied(refusal, charges=counted, judgement=judgement, step=step, kind=kind)
    if not DUTIES[step].admit:
        wait_ms = _quiet_in(judgement, facts.time) if principal.extraction == "judged" else 0
        return Denied("extraction", "", wait_ms, counted, judgement, step, kind)
    if not refusal and principal.extraction == "judged" and step != judged_step and not DUTIES[judged_step].admit:
        refusal = "extraction"
    estimated = control.models[facts.model].margin is not None
    price = price_of(control, facts.model)
    return Admitted(weighed, judgement, step, kind, shadowed=refusal, price=price, estimated=estimated)


def _quiet_in(judgement: Judgement | None, now: int) -> int:
    """Give the ms until an account that is silent from now on comes down by a step."""
    return judgement.after.response.last_signal_ms + QUIET_MS - now if judgement else 0


def _first(
    ledger: Ledger, caller: Caller | None, facts: Facts, answer: Admitted | Denied, request_at: Callable[[int], str]
) -> str:
    """Name the request that a duplicate repeats or a cancel stops."""
    if isinstance(answer, Admitted):
        return answer.first
    if answer.reason == "duplicate" and caller is not None:
        holder = _holder(ledger, caller, facts)
        return "" if holder is None else request_at(holder)
    return ""
