"""Accounts on two levels: a principal, and below it the users on whose behalf it says that it asks.

A user who asks often is judged by its own requests, so that one of many behind a key is answered otherwise and not all
of them. The first few requests of each user count for the principal too: whoever names a user a request, or a new one
every few, is judged as one account. Who asks most in this way is bounded by MAX_USERS a principal.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

from detectors.accounts.judge import FIRST
from detectors.accounts.response import is_above, settle
from detectors.accounts.status import AccountStatus, Judgement, judged, last_heard, step_at
from pipeline.admit.accounts import AccountTable
from pipeline.admit.journal import UndoJournal
from pipeline.events.records import Facts

MAX_USERS = 256
"""Users of one principal with an account of their own, until they are silent for FORGET_MS."""
FORGET_MS = 24 * 3_600_000
SEPARATOR = "/"
"""Between a principal's name, which holds none, and the digest of its user's."""


class UserAccounts(AccountTable):
    """The accounts of one partition, by principal, or by principal and user."""

    def __init__(self, packed: dict[str, bytes], journal: UndoJournal) -> None:
        super().__init__(packed, journal, judged)
        self._users: dict[str, int] = dict(Counter(name.partition(SEPARATOR)[0] for name in packed if _is_user(name)))
        """Users of each principal that are in ``packed``."""

    def answering(self, principal: str, facts: Facts) -> str:
        """Name the account by whose step the request is answered: its user's, where that is higher."""
        user = self._user(principal, facts)
        if user is None:
            return principal
        steps = [step_at(self.status(name), facts.time) for name in (principal, user)]
        return user if is_above(steps[1], steps[0]) else principal

    def judgement_of(self, principal: str, facts: Facts) -> Judgement | None:
        """Judge every account that the request counts for, and leave them as they are; None where it was not read.

        The status is that of the account by whose step the request is answered.
        """
        counted = self._counted(principal, facts)
        found = [judgement for name in counted if (judgement := self.judgement(name, facts)) is not None]
        if len(found) <= 1 and counted[0] == principal:
            return found[0] if found else None
        if not found:
            return None
        above = found[0].after
        if counted[0] != principal:
            status = self.status(principal)
            above = AccountStatus(status.traffic, settle(status.response, facts.time), status.kind)
        of_user = found[-1]
        after = of_user.after if is_above(of_user.after.response.step, above.response.step) else above
        shared = next((each for each in reversed(found) if each.signatures), of_user)
        findings = tuple(finding for each in found for finding in each.findings)
        return Judgement(after, findings, shared.score, shared.signatures)

    def judge_all(self, principal: str, facts: Facts) -> None:
        """Keep every account that the request counts for as ``judgement_of`` judges it."""
        for name in self._counted(principal, facts):
            is_new_user = _is_user(name) and name not in self.packed
            self.judge(name, facts)
            if is_new_user and name in self.packed:
                self._journal.put(self._users, principal, self._users.get(principal, 0) + 1)

    def forget_users(self, now: int, heard: Callable[[bytes], int] = last_heard) -> None:
        """Drop the users that were silent for long."""
        users = [(name, packed) for name, packed in self.packed.items() if _is_user(name)]
        for name, packed in users:
            if heard(packed) <= now - FORGET_MS:
                self._drop(name)

    def _drop(self, name: str) -> None:
        super()._drop(name)
        if _is_user(name):
            principal = name.partition(SEPARATOR)[0]
            self._journal.put(self._users, principal, self._users[principal] - 1)

    def _counted(self, principal: str, facts: Facts) -> tuple[str, ...]:
        """Name the accounts that the request counts for: what shows its user to copy is held against the user alone."""
        user = self._user(principal, facts)
        if user is None:
            return (principal,)
        judgement = self.judgement(user, facts)
        if _established(self.status(user)) or (judgement and judgement.after.response.step != "observe"):
            return (user,)
        return principal, user

    def _user(self, principal: str, facts: Facts) -> str | None:
        """Name the user's account; None where the request names no user, or too many have one."""
        if not facts.end_user or not principal:
            return None
        digest = hashlib.blake2b(facts.end_user.encode("utf-8", "replace"), digest_size=8).hexdigest()
        name = f"{principal}{SEPARATOR}{digest}"
        return name if name in self.packed or self._users.get(principal, 0) < MAX_USERS else None


def _is_user(name: str) -> bool:
    return SEPARATOR in name


def _established(status: AccountStatus) -> bool:
    """Tell whether a user has asked often enough to be judged alone; one that rose a step has."""
    return status.traffic.count >= FIRST or bool(status.response.escalated_ms)
