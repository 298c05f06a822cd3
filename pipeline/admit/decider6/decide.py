"""The answers of decider 6."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from detectors.accounts.response import DUTIES, QUIET_MS, STEPS, Step
from detectors.accounts.status import Judgement, step_at
from pipeline.admit.decider6 import policy
from pipeline.admit.decider6.charge import Charge6
from pipeline.admit.decider6.ledger import Ledger6, Reservation6, client_name
from pipeline.admit.decider6.quota import Ceiling6, Denial6, ceiling, settle, weigh
from pipeline.events import plans
from pipeline.events.control import Control, Key, Limit, Plan, Principal, Tenant
from pipeline.events.identity import identify
from pipeline.events.ids import request_id
from pipeline.events.messages import Completion
from pipeline.events.records import Decision, Facts, Outcome
from pipeline.topics import partition_of

FULL = 100
"""An account's whole share of its limit, in the unit of ``DUTIES``."""
UNCHARGED = frozenset({"failed", "expired"})


class Caller6(NamedTuple):
    """A key belongs to a principal, and these documents and limits apply to every request under it."""

    tenant: Tenant
    principal: Principal
    plan: Plan
    key: Key
    home: int
    """Partition of the organisation."""
    ceilings: tuple[Ceiling6, ...]
    """Every limit over the caller, from the partition's capacity down to the principal."""
    slowed: dict[Step, Ceiling6]
    """The further limit over an account that is answered at a step."""


@dataclass(frozen=True, slots=True)
class Denied6:
    reason: str
    limit: str = ""
    retry_after_ms: int = 0
    charges: tuple[Charge6, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"


@dataclass(frozen=True, slots=True)
class Admitted6:
    charges: tuple[Charge6, ...] = ()
    judgement: Judgement | None = None
    step: Step = "observe"
    first: str = ""
    shadowed: str = ""


def decide(ledger: Ledger6, control: Control, partition: int, facts: Facts) -> Decision:
    """The answer to the request that ``facts`` describe. Changes nothing; ``Ledger6.apply`` does."""
    caller = caller_of(control, facts.key)
    answer = _judge(ledger, control, caller, facts)
    tenant = caller.tenant.id if caller else ""
    denied = answer if isinstance(answer, Denied6) else None
    judgement = answer.judgement
    shared = judgement.signatures if judgement else ()
    return Decision(
        request=request_id(control.generation, partition, facts.offset),
        facts=facts,
        verdict="deny" if denied else "admit",
        control=control.version,
        decider=6,
        organisation=caller.tenant.organisation if caller else "",
        tenant=tenant,
        principal=caller.principal.id if caller else "",
        sequence=ledger.sequences.get(tenant, 0) + 1 if caller else 0,
        reasons=(denied.reason,) if denied else (),
        limit=denied.limit if denied else "",
        retry_after_ms=denied.retry_after_ms if denied else 0,
        charges=cast("Any", answer.charges),
        findings=judgement.findings if judgement else (),
        shadowed="" if denied else answer.shadowed,  # type: ignore[union-attr]
        first=_first(ledger, caller, facts, answer),
        step=answer.step,
        score=judgement.score if judgement and shared else 0,
        signatures=shared,
    )


def caller_of(control: Control, key: str) -> Caller6 | None:
    """Find the holder of ``key``; None where control knows no such chain."""
    known: Caller6 | None = control.derived.get(f"decider6/{key}")
    if known is None:
        identity = identify(control, key)
        if identity is None:
            return None
        tenant, principal, plan, document = identity
        home = partition_of(tenant.organisation.encode(), control.require_deployment().partitions)
        ceilings = tuple(ceiling(*scoped) for scoped in _limits(control, tenant, principal, plan))
        slowed = {step: _slowed(principal, plan, step) for step in STEPS if 0 < DUTIES[step].rate < FULL}
        known = control.derived[f"decider6/{key}"] = Caller6(tenant, principal, plan, document, home, ceilings, slowed)
    return known


def outcome(ledger: Ledger6, offset: int, time: int, report: Completion) -> Outcome | None:
    """The outcome that ``report`` at ``offset`` of ``completions`` gives, or None where nothing waits for it."""
    held = ledger.open.get(report.request)
    if held is None:
        return None
    now = max(time, ledger.time)
    used = report.input_tokens + report.output_tokens
    return Outcome(
        request=held.request,
        time=now,
        result=report.result,
        organisation=held.organisation,
        tenant=held.tenant,
        principal=held.principal,
        sequence=ledger.sequences.get(held.tenant, 0) + 1,
        completion=offset,
        worker=report.worker,
        model=report.model,
        finish=report.finish,
        input_tokens=report.input_tokens,
        output_tokens=report.output_tokens,
        latency_ms=now - held.time,
        first_token_ms=report.first_token_ms,
        charges=cast("Any", settle(held.charges, used, ledger.cells, held.time, report.result not in UNCHARGED)),
        findings=report.findings,
        text_digest=report.text_digest,
        text=report.text,
        client_request=held.client_request,
        lane=held.lane,
        version=report.version,
        watermark=report.watermark,
        fingerprints=report.fingerprints,
        adapter=report.adapter,
    )


def expired(ledger: Ledger6, held: Reservation6, time: int) -> Outcome:
    """The outcome of a reservation whose deadline and grace are over: zero charge."""
    now = max(time, ledger.time)
    return Outcome(
        request=held.request,
        time=now,
        result="expired",
        organisation=held.organisation,
        tenant=held.tenant,
        principal=held.principal,
        sequence=ledger.sequences.get(held.tenant, 0) + 1,
        latency_ms=now - held.time,
        charges=cast("Any", settle(held.charges, 0, ledger.cells, held.time, charged=False)),
        client_request=held.client_request,
        lane=held.lane,
    )


def _limits(control: Control, tenant: Tenant, principal: Principal, plan: Plan) -> Iterator[tuple[str, Limit]]:
    deployment = control.require_deployment()
    yield "*", Limit(id="capacity", meter="open", unit="tokens", amount=deployment.capacity_tokens)
    organisation = control.organisations.get(tenant.organisation)
    shared = control.plans.get(organisation.plan) if organisation and organisation.plan else None
    for limit in shared.organisation if shared else ():
        yield f"o:{tenant.organisation}", limit
    for limit in plan.tenant:
        yield f"t:{tenant.id}", limit
    for limit in plan.principal:
        yield f"p:{principal.id}", limit


def _slowed(principal: Principal, plan: Plan, step: Step) -> Ceiling6:
    amount = max(1, plan.account_rate * DUTIES[step].rate // FULL)
    return ceiling(f"p:{principal.id}", Limit(id=step, meter="rate", amount=amount, burst=-(-amount // 4)))


def _judge(ledger: Ledger6, control: Control, caller: Caller6 | None, facts: Facts) -> Admitted6 | Denied6:
    """The checks in their order; the first that refuses is the answer."""
    if caller is None:
        return Denied6(facts.fault or "unknown_key")
    refusal = facts.fault or _standing(caller, facts) or _repeated(ledger, caller, facts)
    if refusal:
        return Denied6(refusal)
    if facts.kind == "cancel":
        target = ledger.clients.get(client_name(caller.principal.id, facts.target), "")
        return Admitted6(first=target) if target else Denied6("no_such_request")
    refusal = _unfit(control, caller, facts)
    if refusal:
        return Denied6(refusal)
    return _meter(ledger, caller, facts)


def _standing(caller: Caller6, facts: Facts) -> str:
    key = caller.key
    if key.status == "revoked":
        return "revoked_key"
    if key.expires and key.expires <= facts.time:
        return "expired_key"
    return "suspended" if caller.tenant.status == "suspended" else ""


def _repeated(ledger: Ledger6, caller: Caller6, facts: Facts) -> str:
    session = ledger.sessions.get(f"{facts.key}/{facts.session}")
    if session is not None and not session.fresh(facts.counter):
        return "replayed"
    if facts.idempotency and f"{caller.principal.id}/{facts.idempotency}" in ledger.idempotent:
        return "duplicate"
    return ""


def _unfit(control: Control, caller: Caller6, facts: Facts) -> str:
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
        refusal = policy.unreadable(caller.plan, facts)
        if refusal:
            return refusal
    return "deadline_passed" if facts.deadline <= facts.time else ""


def _meter(ledger: Ledger6, caller: Caller6, facts: Facts) -> Admitted6 | Denied6:
    """Ceilings first, then findings: a refused attack still counts as a request, so it cannot be repeated for free."""
    plan, principal = caller.plan, caller.principal
    before = policy.answered(plan, principal, step_at(ledger.accounts.status(principal.id), facts.time))
    slowed = caller.slowed.get(before)
    ceilings = (*caller.ceilings, slowed) if slowed else caller.ceilings
    weighed = weigh(ledger.cells, ceilings, facts.input_bound + facts.max_tokens, facts.time)
    if isinstance(weighed, Denial6):
        reason = "busy" if weighed.limit.startswith("*|") else weighed.reason
        if slowed and weighed.limit == slowed.label:
            reason = "throttled"
        return Denied6(reason, weighed.limit, weighed.retry_after_ms, step=before)
    judgement = ledger.accounts.judgement(principal.id, facts)
    stands = judgement.after.response.step if judgement else before
    step = policy.answered(plan, principal, stands)
    refusal = policy.refusal(plan, facts.findings)
    counted = tuple(c for c in weighed if c.unit == "requests" and c.meter != "open")
    if refusal and not plan.shadow:
        return Denied6(refusal, charges=counted, judgement=judgement, step=step)
    if not DUTIES[step].admit:
        wait = _quiet_in(judgement, facts.time) if principal.extraction == "judged" else 0
        return Denied6("extraction", "", wait, counted, judgement, step)
    if not refusal and principal.extraction == "judged" and step != stands and not DUTIES[stands].admit:
        refusal = "extraction"
    return Admitted6(weighed, judgement, step, shadowed=refusal)


def _quiet_in(judgement: Judgement | None, now: int) -> int:
    """ms until an account that is silent from now on comes down by a step."""
    return judgement.after.response.last_signal_ms + QUIET_MS - now if judgement else 0


def _first(ledger: Ledger6, caller: Caller6 | None, facts: Facts, answer: Admitted6 | Denied6) -> str:
    if isinstance(answer, Admitted6):
        return answer.first
    if answer.reason == "duplicate" and caller is not None:
        return ledger.idempotent[f"{caller.principal.id}/{facts.idempotency}"][0]
    return ""
