"""Wrong keys are counted by the address that sends them: who goes on is told to wait, and it is a finding.

Only wrong keys are slowed. A genuine key is served from any address, since many callers may share that of a proxy.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from typing import NamedTuple

from detectors.base import MEDIUM, Finding
from pipeline.events.messages import Access, FindingEvent
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.refusals import Refusal

BURST = 20
"""Wrong keys that an address may send at once; after them one every ``PER_S`` seconds."""
PER_S = 3.0
REPORTED_FROM = 60
"""So many of one address between two reports are a finding."""
MAX_ADDRESSES = 10_000
"""Addresses that are remembered; the one longest without a wrong key is forgotten first."""
MAX_NAMED = 8
"""Principals whose keys were named that are remembered of an address."""
MAX_REPORTED = 100
"""Addresses that are reported at once, those with the most wrong keys."""
CODE = "too_many_wrong_keys"
FINDING = Finding("access.wrong_keys", MEDIUM, 90, 0, 0, "address", 0)


class Named(NamedTuple):
    """A wrong key named one that exists, and so whose it is; empty where it named none."""

    organisation: str = ""
    tenant: str = ""
    principal: str = ""


class WrongKeyReport(NamedTuple):
    """An address sent so many wrong keys since the last report."""

    address: str
    times: int
    named: Named


class _Address:
    """The wrong keys of one address; ``level`` leaks by one in ``PER_S`` seconds."""

    __slots__ = ("count", "level", "named", "time")

    def __init__(self) -> None:
        self.level = 0.0
        self.time = 0.0
        self.count = 0
        self.named: Counter[Named] = Counter()

    def at(self, now: float) -> float:
        self.level = max(0.0, self.level - (now - self.time) / PER_S)
        self.time = now
        return self.level


class WrongKeys:
    """The wrong keys of each address. Times are seconds of a clock that only goes forward."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """Give the seconds until a wrong key of this address is looked up again; 0 for at once."""
        known = self._addresses.get(address)
        return max(0.0, (known.at(now) - BURST + 1) * PER_S) if known else 0.0

    def add(self, address: str, now: float, named: Named) -> None:
        """Count one."""
        known = self._addresses.setdefault(address, _Address())
        self._addresses.move_to_end(address)
        # while it waits, further ones do not make it wait for longer
        known.level = min(known.at(now) + 1, BURST + 1)
        known.count += 1
        if named in known.named or len(known.named) < MAX_NAMED:
            known.named[named] += 1
        self._metrics.count("sluice_gateway_wrong_keys_total")
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        self._metrics.level("sluice_gateway_wrong_key_addresses", len(self._addresses))

    def reports(self) -> list[WrongKeyReport]:
        """Give what is a finding since the last call, the most first, and count anew."""
        found = [
            WrongKeyReport(address, known.count, known.named.most_common(1)[0][0])
            for address, known in self._addresses.items()
            if known.count >= REPORTED_FROM
        ]
        for known in self._addresses.values():
            known.count = 0
            known.named.clear()
        return sorted(found, key=lambda report: -report.times)[:MAX_REPORTED]


def throttled(wait_s: float) -> Refusal:
    """The refusal of a wrong key from an address that sent too many."""
    seconds = str(max(1, math.ceil(wait_s)))
    text = "Too many wrong keys came from this address. Check the key, wait for the time given, then send it again."
    return Refusal(CODE, text, status=429, kind="rate_limit_error", headers={"Retry-After": seconds})


def finding_of(report: WrongKeyReport, now: int) -> FindingEvent:
    """Give the record of ``findings``; the address is the principal where the keys named none."""
    named = report.named
    return FindingEvent(
        f"{report.address}@{now}",
        now,
        named.organisation,
        named.tenant,
        named.principal or report.address,
        "gateway",
        "deny",
        (CODE,),
        (FINDING,),
    )


def access_of(report: WrongKeyReport, now: int) -> Access:
    """Give the record of ``access``."""
    return Access(now, report.address, "wrong_keys", report.named.tenant, report.named.principal, report.times)
