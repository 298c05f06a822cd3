"""A partition keeps the status of each account: packed as snapshots store it, the busy ones unpacked beside it."""

from __future__ import annotations

from collections.abc import Callable

from detectors.accounts.features import Trace, traced
from detectors.accounts.status import (
    EMPTY_STATUS,
    AccountStatus,
    Judgement,
    forgotten,
    judged_by_decider6,
    last_heard,
    pack,
    unpack,
)
from pipeline.admit.journal import UndoJournal
from pipeline.events.records import Facts

MAX_ACCOUNTS = 16_384
"""Accounts of one partition that a snapshot keeps, those that were heard of last; about 1 KB each."""
MAX_UNPACKED = 1_024
"""Accounts that are kept unpacked besides, about 5 KB each; those who ask again and again are read from here."""


JudgeRule = Callable[[AccountStatus, Trace, int], Judgement]


class AccountTable:
    """The accounts of one partition, by principal."""

    def __init__(self, packed: dict[str, bytes], journal: UndoJournal, judged: JudgeRule = judged_by_decider6) -> None:
        self.packed = packed
        self._judged_by = judged
        self._journal = journal
        self._unpacked: dict[str, tuple[bytes, AccountStatus]] = {}
        """An entry holds as long as its bytes are the ones in ``packed``."""
        self._last_facts: Facts | None = None
        self._last: dict[str, tuple[AccountStatus, Judgement]] = {}
        """The judgements of the last request: ``apply`` asks for those that ``decide`` has just asked for."""

    def status(self, principal: str) -> AccountStatus:
        """Give the status of an account; one that was never heard of has the empty one."""
        packed = self.packed.get(principal)
        if packed is None:
            return EMPTY_STATUS
        entry = self._unpacked.get(principal)
        if entry is not None and entry[0] is packed:
            return entry[1]
        status = unpack(packed)
        self._remember(principal, packed, status)
        return status

    def judgement(self, principal: str, facts: Facts) -> Judgement | None:
        """Judge an account by one more request and leave it as it is; None where the request's text was not read."""
        status = self.status(principal)
        if self._last_facts is not facts:
            self._last_facts = facts
            self._last = {}
        last = self._last.get(principal)
        if last is not None and last[0] is status:
            return last[1]
        trace = traced(facts.features)
        if trace is None:
            return None
        judgement = self._judged_by(status, trace, facts.time)
        self._last[principal] = status, judgement
        return judgement

    def judge(self, principal: str, facts: Facts) -> None:
        """Keep the account as ``judgement`` leaves it."""
        judgement = self.judgement(principal, facts)
        if judgement is not None:
            packed = pack(judgement.after)
            self._journal.put(self.packed, principal, packed)
            self._remember(principal, packed, judgement.after)

    def prune(self, heard: Callable[[bytes], int] = last_heard) -> None:
        """Drop the accounts beyond MAX_ACCOUNTS, those first that were ``heard`` of longest ago."""
        for principal in forgotten(self.packed, MAX_ACCOUNTS, heard):
            self._drop(principal)

    def _drop(self, name: str) -> None:
        self._journal.drop(self.packed, name)

    def _remember(self, principal: str, packed: bytes, status: AccountStatus) -> None:
        if len(self._unpacked) >= MAX_UNPACKED and principal not in self._unpacked:
            self._unpacked.clear()
        self._unpacked[principal] = packed, status
