"""Decider 6 wrote charges of six fields."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pipeline.events.records import Charge, Meter, Unit


class Charge6(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A quota cell changes; ``amount`` is negative where something is given back."""

    cell: str
    meter: Meter
    unit: Unit
    amount: int
    quantity: int
    """rate: units per period; window, budget and open: the ceiling."""
    period_ms: int


def as_written(charges: Iterable[Charge]) -> tuple[Charge6, ...]:
    """Give charges the form in which decider 6 wrote them."""
    return tuple(Charge6(c.cell, c.meter, c.unit, c.amount, c.quantity, c.period_ms) for c in charges)
