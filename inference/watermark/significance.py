"""The probability of a score without the key: the exact tail of a weighted sum of fair coins."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EXACT_TRIALS = 100_000
"""Above this many scored tokens the Chernoff bound is given instead; it is never too small."""


def tail_probability(score: int, trials: int, weights: tuple[int, ...]) -> float:
    """P(S >= score) of a sum S in which each of ``trials`` adds every weight with probability one half.

    Exact to rounding down to 1e-300: the distribution is tilted exponentially until its centre is the score (Esscher
    1932), inverted there by a discrete Fourier transform, and tilted back. With the tilt theta and the cumulant K,
    P(S = s) is ``exp(K(theta) - theta * s)`` times the tilted probability of s.
    """
    highest = trials * sum(weights)
    if score <= 0:
        return 1.0
    if score > highest:
        return 0.0
    if 2 * score <= highest:
        # by symmetry, and the complement is where the tilting works
        return 1.0 - tail_probability(highest - score + 1, trials, weights)
    tilt = _tilt(score / trials, weights)
    cumulant = trials * sum(_log_mean(tilt * weight) for weight in weights)
    bound = cumulant - tilt * score
    if trials > EXACT_TRIALS or score == highest:
        return math.exp(bound) if score < highest else math.exp(-trials * len(weights) * math.log(2))
    mass = _tilted_mass(tilt, trials, weights)
    steps = np.arange(min(len(mass) // 2, highest - score + 1))
    mass = mass[(score + steps) % len(mass)]
    return float(min(1.0, math.exp(bound) * (mass * np.exp(-tilt * steps)).sum()))


def family(probability: float, tries: int) -> float:
    """The chance that the best of ``tries`` independent keys scores as well (Šidák 1967)."""
    if probability >= 1.0:
        return 1.0
    return -math.expm1(tries * math.log1p(-probability))


def _log_mean(x: float) -> float:
    """log((1 + e^x) / 2), also for large x."""
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0) - math.log(2)


def _tilt(mean: float, weights: tuple[int, ...]) -> float:
    """The tilt under which one trial's mean is ``mean``, by bisection."""
    low, high = 0.0, 700.0
    for _ in range(64):
        middle = (low + high) / 2
        tilted = sum(weight / (1.0 + math.exp(-min(middle * weight, 700.0))) for weight in weights)
        low, high = (middle, high) if tilted < mean else (low, middle)
    return (low + high) / 2


def _tilted_mass(tilt: float, trials: int, weights: tuple[int, ...]) -> NDArray[np.float64]:
    """Probabilities of the sum modulo the length of the result, under the tilt whose centre is the score.

    Half the length is at least 20 standard deviations, so what wraps around is below e^-200 (Hoeffding 1963).
    """
    spread = math.sqrt(trials * sum(weight * weight for weight in weights)) / 2
    size = 1 << max(4, math.ceil(40 * spread)).bit_length()
    frequency = 2.0 * np.pi * np.arange(size // 2 + 1) / size
    log_transform = np.zeros(size // 2 + 1, dtype=np.complex128)
    for weight in sorted(set(weights)):
        chance = 1.0 / (1.0 + math.exp(-min(tilt * weight, 700.0)))
        coin = 1.0 - chance + chance * np.exp(-1j * frequency * weight)
        # a fair coin's transform is exactly zero at one frequency
        log_transform += trials * weights.count(weight) * np.log(np.where(coin == 0, 1e-300, coin))
    return np.maximum(np.fft.irfft(np.exp(log_transform), size), 0.0)
