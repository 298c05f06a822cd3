"""ADMIT gives the one answer to each request, and the one outcome of each admitted request.

Reads ``requests``, ``completions``, ``control``; writes ``decisions``; owns the ledger of one partition. Everything
here is pure: a decision is a function of the ledger (a fold of ``decisions``), the control documents and the facts
that it carries itself, so it can be derived again offline, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec

from detectors.accounts.response import DUTIES, QUIET_MS, STEPS, Step
from detectors.accounts.status import Judgement, step_at
from pipeline.admit import policy
from pipeline.admit.idempotency import digest_of
from pipeline.admit.ledger import Ledger, client_name
from pipeline.admit.quota import Ceiling, Denial, ceiling, settle, weigh
from pipeline.admit.snapshot import LedgerPosition, Reservation
from pipeline.events import plans
from pipeline.events.control import Control, Key, Limit, Plan, Principal, Tenant
from pipeline.events.identity import Identity, identify
from pipeline.events.ids import request_id
from pipeline.events.limits import limits_over
from pipeline.events.messages import Completion
from pipeline.events.records import DECIDER, Charge, Decision, Facts, Outcome
from pipeline.topics import partition_of

FULL = 100
"""An account's whole share of its limit, in the unit of ``DUTIES``."""
UNCHARGED = frozenset({"failed", "expired"})


class Caller(NamedTuple):
    """A key belongs to a principal, and these documents and limits apply to every request under it."""

    tenant: Tenant
    principal: Principal
    plan: Plan
    key: Key
    home: int
    """Partition of the organisation."""
    ceilings: tuple[Ceiling, ...]
    """Every limit over the caller, from the partition's capacity down to the principal."""
    slowed: dict[Step, Ceiling]
    """The further limit over an account that is answered at a step."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A request is refused; ``charges`` are what it costs all the same."""

    reason: str
    limit: str = ""
    retry_after_ms: int = 0
    charges: tuple[Charge, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request is admitted; ``first`` names the request that a cancel stops."""

    charges: tuple[Charge, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"
    first: str = ""
    shadowed: str = ""


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
        score=judgement.score if judgement and signatures else 0,
        signatures=signatures,
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


def caller_of(control: Control, key: str) -> Caller | None:
    """Find the holder of ``key``; None where control knows no such chain. Says nothing of a signature."""
    caller: Caller | None = control.derived.get(key)
    if caller is None:
        identity = identify(control, key)
        if identity is None:
            return None
        home = partition_of(identity.tenant.organisation.encode(), control.require_deployment().partitions)
        ceilings = tuple(_ceilings(control, identity))
        slowed = {step: _slowed(identity, step) for step in STEPS if 0 < DUTIES[step].rate < FULL}
        caller = control.derived[key] = Caller(*identity, home, ceilings, slowed)
    return caller


def outcome(ledger: Ledger, offset: int, time: int, report: Completion) -> Outcome | None:
    """Settle the request that ``report`` at ``offset`` of ``completions`` ends; None where nothing waits for it."""
    reservation = ledger.open.get(report.request)
    if reservation is None:
        return None
    now = max(time, ledger.time)
    used = report.input_tokens + report.output_tokens
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
        charges=settle(reservation.charges, used, ledger.cells, reservation.time, report.result not in UNCHARGED),
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
        charges=settle(reservation.charges, 0, ledger.cells, reservation.time, charged=False),
        client_request=reservation.client_request,
        lane=reservation.lane,
    )


def _ceilings(control: Control, identity: Identity) -> Iterator[Ceiling]:
    """Give the partition's capacity and every limit over a caller as ceilings."""
    capacity = control.require_deployment().capacity_tokens
    yield ceiling("*", Limit(id="capacity", meter="open", unit="tokens", amount=capacity))
    for scoped in limits_over(control, identity.tenant, identity.principal.id):
        yield ceiling(scoped.scope, scoped.limit)


def _slowed(identity: Identity, step: Step) -> Ceiling:
    amount = max(1, identity.plan.account_rate * DUTIES[step].rate // FULL)
    return ceiling(f"p:{identity.principal.id}", Limit(id=step, meter="rate", amount=amount, burst=-(-amount // 4)))


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
    return _meter(ledger, caller, facts)


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


def _meter(ledger: Ledger, caller: Caller, facts: Facts) -> Admitted | Denied:
    """Weigh the request, then its findings: a refused attack counts as a request, so it cannot be repeated for free."""
    plan, principal = caller.plan, caller.principal
    step_before = policy.answered(plan, principal, step_at(ledger.accounts.status(principal.id), facts.time))
    slowed = caller.slowed.get(step_before)
    ceilings = (*caller.ceilings, slowed) if slowed else caller.ceilings
    weighed = weigh(ledger.cells, ceilings, facts.input_bound + facts.max_tokens, facts.time)
    if isinstance(weighed, Denial):
        reason = "busy" if weighed.limit.startswith("*|") else weighed.reason
        if slowed and weighed.limit == slowed.label:
            reason = "throttled"
        return Denied(reason, weighed.limit, weighed.retry_after_ms, step=step_before)
    judgement = ledger.accounts.judgement(principal.id, facts)
    judged_step = judgement.after.response.step if judgement else step_before
    step = policy.answered(plan, principal, judged_step)
    refusal = policy.refusal(plan, facts.findings, facts.documents)
    counted = tuple(c for c in weighed if c.unit == "requests" and c.meter != "open")
    if refusal and not plan.shadow:
        return Denied(refusal, charges=counted, judgement=judgement, step=step)
    if not DUTIES[step].admit:
        wait_ms = _quiet_in(judgement, facts.time) if principal.extraction == "judged" else 0
        return Denied("extraction", "", wait_ms, counted, judgement, step)
    if not refusal and principal.extraction == "judged" and step != judged_step and not DUTIES[judged_step].admit:
        refusal = "extraction"
    return Admitted(weighed, judgement, step, shadowed=refusal)


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
