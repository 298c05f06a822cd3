"""The speed of an engine, for estimates: smoothed times of steps and lengths of stays. Pure."""

from __future__ import annotations

import math

SMOOTHING = 0.1
WARM = 8
"""Steps measured before an estimate is given."""


class StepTimes:
    """Exponentially weighted means of a step's seconds and of a request's steps from admission to end."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self._stay = 0.0
        self._steps = 0

    def step(self, seconds: float) -> None:
        """Count a step."""
        self._steps += 1
        self.step_s += (seconds - self.step_s) * max(SMOOTHING, 1 / self._steps)

    def stay(self, steps: int) -> None:
        """Count a request that ended ``steps`` steps after its first token was computed."""
        self._stay += (steps - self._stay) * (SMOOTHING if self._stay else 1.0)

    def wait_s(self, ahead: int, slots: int, free: int) -> float | None:
        """Seconds until a request with ``ahead`` others before it gets one of ``slots``; None while unknown."""
        if self._steps < WARM:
            return None
        ends = max(0, ahead + 1 - free)
        return math.ceil(ends * self._stay / slots) * self.step_s
