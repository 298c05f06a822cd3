"""A worker ends only what it was given: a completion counts by its ticket, its tenant and what was reserved.

The ticket is an HMAC of the request's id under a key of admit's. It stands outside the log, as outcomes do not repeat
it; ``misreported`` is a rule of the log, which a verifier applies again.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Literal

from pipeline.admit.snapshot import Reservation
from pipeline.events.keyed import hmac_sha256
from pipeline.events.messages import Completion
from pipeline.events.records import Decision

TICKETED = 7
"""Work bears a ticket where this decider or a later one has admitted it."""
MAX_COUNT = 2**31
"""No run takes as many tokens, or milliseconds."""
Misreport = Literal["tenant", "counts", "over_reserved"]
Drop = Literal["malformed", "ticket"] | Misreport
"""The reason for which a completion is dropped."""


class Tickets:
    """Tickets are made under the first of the keys; those under the others were given out before a key was changed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def renew(self, keys: Sequence[bytes]) -> None:
        """Go over to the keys as they are now."""
        self._keys = tuple(keys)

    def of(self, decision: Decision) -> bytes:
        """Give the ticket of the work that follows from a decision; empty where it bears none."""
        return self.ticket(decision.request) if decision.decider >= TICKETED else b""

    def ticket(self, request: str) -> bytes:
        """Give the ticket of a request."""
        return hmac_sha256(self._keys[0], request.encode())

    def genuine(self, request: str, ticket: bytes) -> bool:
        """Tell whether the ticket is one of the request's."""
        return any(hmac.compare_digest(hmac_sha256(key, request.encode()), ticket) for key in self._keys)


def refused(tickets: Tickets, reservation: Reservation, report: Completion) -> Drop | None:
    """Give the reason for which a completion does not end an open request; None where it does."""
    if reservation.decider >= TICKETED and not tickets.genuine(report.request, report.ticket):
        return "ticket"
    return misreported(reservation, report)


def misreported(reservation: Reservation, report: Completion) -> Misreport | None:
    """Give the reason for which a report cannot be about the reservation; None where it can."""
    if (report.organisation, report.tenant) != (reservation.organisation, reservation.tenant):
        return "tenant"
    counts = (report.input_tokens, report.output_tokens, report.first_token_ms)
    if min(counts) < 0 or max(counts) >= MAX_COUNT:
        return "counts"
    if reservation.estimated:
        return None
    if reservation.decider < TICKETED:
        # it was kept without its two parts
        reserved = max((charge.amount for charge in reservation.charges if charge.unit == "tokens"), default=0)
        return "over_reserved" if report.input_tokens + report.output_tokens > reserved else None
    over = report.input_tokens > reservation.input_bound or report.output_tokens > reservation.max_tokens
    return "over_reserved" if over else None
