"""Tickets of work that tests hand out themselves."""

from __future__ import annotations

import msgspec

from pipeline.admit.completions import Tickets
from pipeline.events.messages import Completion

TICKETS = Tickets((b"t" * 32,))


def ticketed(report: Completion, tickets: Tickets = TICKETS) -> Completion:
    """The report of a worker that was given the request."""
    return msgspec.structs.replace(report, ticket=tickets.ticket(report.request))
