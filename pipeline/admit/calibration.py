"""The account detector run over a tenant's own past: what enforcement would have done, by the shape of applications.

Pure: decisions of the sealed log go in, in order. They hold traces and no text, so a shape is told by what an account's
requests have in common.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from detectors.accounts.features import Trace
from detectors.accounts.response import STEPS, Step, is_above, settle
from detectors.accounts.rules import INDEX, KINDS
from detectors.accounts.state import latest_facts
from pipeline.admit import policy
from pipeline.admit.end_users import UserAccounts
from pipeline.admit.journal import UndoJournal
from pipeline.events.records import Facts

_LIKE = (
    ("one conversation that grows", ("grows",), 30),
    ("a few texts again and again", ("same", "numbered"), 50),
    ("texts of one template", ("head_known", "tail_known"), 60),
)
"""What an account's requests have in common, by the facts of which each stands in so many of a hundred of them."""
_FREE = "free texts"


class PastRequest(NamedTuple):
    """A decision of the log, as far as the account's judgement hangs on it."""

    principal: str
    end_user: str
    time: int
    features: tuple[int, ...]
    verdict: str
    reason: str


class CalibratedShape(NamedTuple):
    """Accounts of one shape with the same alarm, or with none (an empty ``kind``)."""

    shape: str
    kind: str
    accounts: int
    requests: int
    acted_on: int
    """Requests that would have been answered at a step above ``observe``."""
    farthest: Step


class _PastAccount:
    def __init__(self) -> None:
        self.facts: Counter[str] = Counter()
        self.requests = 0
        self.acted_on = 0
        self.kind = ""
        self.farthest: Step = STEPS[0]

    @property
    def shape(self) -> str:
        for words, names, percent in _LIKE:
            if 100 * max(self.facts[name] for name in names) >= percent * self.requests:
                return words
        return _FREE


def calibrate(past: Iterable[PastRequest], most: Step) -> list[CalibratedShape]:
    """Judge a tenant's requests anew, with steps up to ``most``; shapes that would have been acted on come first."""
    accounts = UserAccounts({}, UndoJournal())
    seen: dict[tuple[str, str], _PastAccount] = {}
    for nth, request in enumerate(past):
        if len(request.features) != len(Trace._fields) or not policy.counts(
            request.verdict, (request.reason,) if request.reason else ()
        ):
            continue
        facts = Facts(nth, request.time, "inference", features=request.features, end_user=request.end_user)
        _count(accounts, seen.setdefault((request.principal, request.end_user), _PastAccount()), request, facts, most)
    groups: dict[tuple[str, str], list[_PastAccount]] = {}
    for account in seen.values():
        groups.setdefault((account.shape, account.kind), []).append(account)
    found = [_shape(shape, kind, each) for (shape, kind), each in groups.items()]
    return sorted(found, key=lambda one: (-one.acted_on, -one.accounts, one.shape))


def _count(accounts: UserAccounts, account: _PastAccount, request: PastRequest, facts: Facts, most: Step) -> None:
    judgement = accounts.judgement_of(request.principal, facts)
    if judgement is None:
        return
    account.requests += 1
    step = STEPS[min(STEPS.index(settle(judgement.after.response, request.time).step), STEPS.index(most))]
    account.acted_on += step != STEPS[0]
    if is_above(step, account.farthest):
        account.farthest = step
    if judgement.after.kind and not account.kind:
        account.kind = KINDS[judgement.after.kind]
    accounts.judge_all(request.principal, facts)
    raised = latest_facts(accounts.status(accounts.answering(request.principal, facts)).traffic)
    account.facts.update(name for _, names, _ in _LIKE for name in names if raised >> INDEX[name] & 1)


def _shape(shape: str, kind: str, accounts: list[_PastAccount]) -> CalibratedShape:
    return CalibratedShape(
        shape,
        kind,
        len(accounts),
        sum(account.requests for account in accounts),
        sum(account.acted_on for account in accounts),
        max((account.farthest for account in accounts), key=STEPS.index),
    )
