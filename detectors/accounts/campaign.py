"""Many accounts, one harvest: accounts that share a rare wording are weighed together, by hash alone.

An account reports the openings, closings and the sense of the requests it keeps sending, once it looks at least a
little suspicious by itself. A wording that enough such accounts share, whatever their tenants, is a campaign when their
scores together say so: service accounts of one tenant that share a harmless instruction score low and never add up.
Memory is bounded: the signature that was reported longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

MAX_SIGNATURES = 65_536
MAX_MEMBERS = 64
"""Accounts of one signature that are kept, the latest."""
WINDOW_MS = 8 * 24 * 3_600_000
"""A member that was silent for so long no longer counts."""
FLOOR = 0
"""Scores (thousandths of log-odds) from here on count; an account below is not a member."""
MEMBERS = 3
WEIGHT = 5_000
"""What the members' scores above FLOOR must sum up to, each counted up to MAX_WEIGHT."""
MAX_WEIGHT = 3_000


class Member(NamedTuple):
    """One account under a signature: its last score and when (ms)."""

    score: int
    time: int


class Campaign(NamedTuple):
    """The signature that accounts share, and the accounts."""

    signature: int
    members: tuple[int, ...]


class Campaigns:
    """Signature -> accounts. Not pure: `report` keeps what it is told. The same reports give the same answers."""

    def __init__(self, capacity: int = MAX_SIGNATURES) -> None:
        self._capacity = capacity
        self._members: OrderedDict[int, OrderedDict[int, Member]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def report(self, account: int, signatures: Iterable[int], score: int, time: int) -> Campaign | None:
        """What the report makes known, None where that is no campaign. Account and signatures are hashes."""
        if score < FLOOR:
            return None
        found: Campaign | None = None
        for signature in signatures:
            members = self._of(signature)
            members.pop(account, None)
            members[account] = Member(score, time)
            while len(members) > MAX_MEMBERS:
                members.popitem(last=False)
            if found is None and _weighs(members, time):
                found = Campaign(
                    signature, tuple(n for n, member in members.items() if time - member.time <= WINDOW_MS)
                )
        return found

    def _of(self, signature: int) -> OrderedDict[int, Member]:
        members = self._members.pop(signature, None)
        if members is None:
            members = OrderedDict()
            while len(self._members) >= self._capacity:
                self._members.popitem(last=False)
        self._members[signature] = members
        return members


def _weighs(members: OrderedDict[int, Member], time: int) -> bool:
    if len(members) < MEMBERS:
        return False
    weights = [min(score - FLOOR, MAX_WEIGHT) for score, at in members.values() if time - at <= WINDOW_MS]
    return len(weights) >= MEMBERS and sum(weights) >= WEIGHT
