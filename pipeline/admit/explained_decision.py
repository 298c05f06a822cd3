"""A decision is explained from the ledger that stood before it: each limit, what it held, and what was asked of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.admit.callers import asked, caller_of, ceilings_over, slowed_at
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota import Amounts, Ceiling, Denial, remaining, weigh
from pipeline.audit.replay import Replay
from pipeline.events.codec import encode
from pipeline.events.reasons import LIMIT_REASONS, REASONS
from pipeline.events.records import Decision, Facts

_TRIES = 100
"""Each wait ends at another limit's; a request that is refused this often is under more limits than plans have."""
Wait = Literal["none", "until", "until_one_ends", "never"]


class WeighedLimit(msgspec.Struct, frozen=True):
    """A limit held so much when the request came."""

    limit: str
    """Scope and id, as in the decision."""
    meter: str
    unit: str
    amount: int
    held: int
    """Units that were used or reserved."""
    asked: int
    refuses: bool


class ExplainedDecision(msgspec.Struct, frozen=True):
    """A decision came about so."""

    request: str
    time: int
    verdict: str
    reason: str
    """Empty for an admission."""
    message: str
    """The message to the caller."""
    limit: str
    """The limit that refused; empty for none."""
    tenant: str
    principal: str
    key: str
    control: int
    decider: int
    derived: Literal["same", "differs", "unknown"]
    """Whether the rules give the stored decision again; ``unknown`` where this build does not know them."""
    derived_as: str
    """Verdict and reason that the rules give where they differ."""
    limits: tuple[WeighedLimit, ...]
    wait: Wait
    """Whether its limits had let it in later, had nothing else been asked: ``none`` is needed, ``until`` a time,
    ``until_one_ends`` of what was open, or ``never``, as it asks for more than a limit ever gives at once."""
    admitted_at: int
    """Unix ms for ``until``, else 0."""


def explain(record: Decision, body: bytes, replay: Replay) -> ExplainedDecision:
    """Explain ``record``; ``replay`` stands right before it."""
    derived = replay.derive(record)
    ceilings = _ceilings(record, replay) if derived is not None else ()
    amounts = asked(replay.control, record.facts)
    wait, admitted_at = _wait(record.facts, replay.ledger, ceilings, amounts)
    same = derived is not None and encode(derived) == body
    reason = record.reasons[0] if record.reasons else ""
    return ExplainedDecision(
        request=record.request,
        time=record.facts.time,
        verdict=record.verdict,
        reason=reason,
        message=REASONS[reason].message if reason in REASONS else "",
        limit=record.limit,
        tenant=record.tenant,
        principal=record.principal,
        key=record.facts.key,
        control=record.control,
        decider=record.decider,
        derived="unknown" if derived is None else "same" if same else "differs",
        derived_as="" if derived is None or same else ", ".join((derived.verdict, *derived.reasons)),
        limits=_weighed(record.facts, replay.ledger, ceilings, amounts),
        wait=wait,
        admitted_at=admitted_at,
    )


def _ceilings(record: Decision, replay: Replay) -> tuple[Ceiling, ...]:
    """Give the ceilings that the request was weighed against; none where it was refused before."""
    facts = record.facts
    caller = caller_of(replay.control, facts.key)
    if caller is None or facts.fault or facts.kind != "inference" or not isinstance(replay.ledger, Ledger):
        return ()
    slowed = None
    if record.reasons == ("throttled",):
        slowed = slowed_at(caller, replay.ledger.accounts.answering(record.principal, facts), record.step)
    ceilings = ceilings_over(replay.control, caller, facts.model)
    return (*ceilings, slowed) if slowed else ceilings


def _weighed(facts: Facts, ledger: Any, ceilings: tuple[Ceiling, ...], amounts: Amounts) -> tuple[WeighedLimit, ...]:
    if not ceilings:
        return ()
    states = remaining(ledger.cells, ceilings, facts.time)
    found = []
    for ceiling, state in zip(ceilings, states, strict=True):
        amount = amounts[ceiling.nth]
        held = ceiling.burst - state.remaining
        refuses = amount is None or amount > state.remaining
        limit = (ceiling.label, ceiling.meter, ceiling.unit, ceiling.amount)
        found.append(WeighedLimit(*limit, held, amount or 0, refuses))
    return tuple(found)


def _wait(facts: Facts, ledger: Any, ceilings: tuple[Ceiling, ...], amounts: Amounts) -> tuple[Wait, int]:
    time = facts.time
    for _ in range(_TRIES if ceilings else 0):
        weighed = weigh(ledger.cells, ceilings, amounts, time)
        if not isinstance(weighed, Denial):
            break
        if not weighed.retry_after_ms:
            return "never", 0
        if weighed.reason == LIMIT_REASONS["open"]:
            return "until_one_ends", 0
        time += weighed.retry_after_ms
    return ("until", time) if time > facts.time else ("none", 0)
