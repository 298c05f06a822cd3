"""Many accounts, one harvest: accounts that share a rare wording are weighed together, by hash alone.

An account reports the openings, closings and the sense of the requests it keeps sending, once it looks at least a
little suspicious by itself. A wording that enough such accounts of any tenants share is a campaign when their
scores together say so: service accounts of one tenant that share a harmless instruction score low and never add up.
Memory is bounded: the signature that was reported longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from detectors.accounts.signatures import is_sense

A = TypeVar("A", bound=Hashable)
"""The name of an account to the reporter."""
MAX_SIGNATURES = 65_536
MAX_MEMBERS = 64
"""Accounts of one signature that are kept, the latest."""
WINDOW_MS = 8 * 24 * 3_600_000
"""A member that sent nothing for so long no longer counts."""
FLOOR = 900
"""Scores (thousandths of log-odds) from here on count; an account below is not a member."""
SENSE_FLOOR = 1_500
"""The same under the sense of a closing, which unrelated tenants share without knowing of each other: there each
account has to look like a copier by itself."""
MEMBERS = 3
WEIGHT = 5_000
"""A campaign's sum of its members' scores above FLOOR, each counted up to MAX_WEIGHT, is at least this."""
MAX_WEIGHT = 3_000


class Member(NamedTuple):
    """One account under a signature: its last score, when (ms), and the request by which it is found again."""

    score: int
    time: int
    request: str = ""


class Campaign(NamedTuple, Generic[A]):
    """The signature that accounts share, and the accounts."""

    signature: int
    members: dict[A, Member]


class Campaigns(Generic[A]):
    """Signature -> accounts. Not pure: `report` keeps what it is told. The same reports give the same answers."""

    def __init__(self, capacity: int = MAX_SIGNATURES, window_ms: int = WINDOW_MS) -> None:
        self._capacity = capacity
        self._window_ms = window_ms
        self._members: OrderedDict[int, OrderedDict[A, Member]] = OrderedDict()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Campaigns) and self._members == other._members

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._members)

    def report(
        self, account: A, signatures: Iterable[int], score: int, time: int, request: str = ""
    ) -> Campaign[A] | None:
        """The campaign that the report makes known, None where there is none. Signatures are hashes."""
        if score < FLOOR:
            return None
        found: Campaign[A] | None = None
        for signature in signatures:
            if score < SENSE_FLOOR and is_sense(signature):
                continue
            members = self._of(signature)
            known = members.pop(account, None)
            # reports may come twice, and late
            members[account] = known if known is not None and known.time > time else Member(score, time, request)
            while len(members) > MAX_MEMBERS:
                members.popitem(last=False)
            recent = {name: member for name, member in members.items() if time - member.time <= self._window_ms}
            if found is None and _weighs(recent):
                found = Campaign(signature, recent)
        return found

    def _of(self, signature: int) -> OrderedDict[A, Member]:
        members = self._members.pop(signature, None)
        if members is None:
            members = OrderedDict()
            while len(self._members) >= self._capacity:
                self._members.popitem(last=False)
        self._members[signature] = members
        return members


def _weighs(members: Mapping[A, Member]) -> bool:
    return len(members) >= MEMBERS and sum(min(m.score - FLOOR, MAX_WEIGHT) for m in members.values()) >= WEIGHT
