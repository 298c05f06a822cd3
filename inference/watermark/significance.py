"""How likely a score is without the key: the exact tail of a weighted sum of fair coins."""

from __future__ import annotations

import math

import numpy as np

EXACT_TRIALS = 2048
"""Above this many scored tokens the Chernoff bound is given instead; it is never too small."""


def tail_probability(score: int, trials: int, weights: tuple[int, ...]) -> float:
    """P(sum >= score), each of ``trials`` adding every weight with probability one half.

    Exact to rounding down to 1e-300: the distribution is tilted exponentially until its centre is the score (Esscher
    1932), inverted there by a discrete Fourier transform, and tilted back.
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
    mass = _tilted_mass(tilt, trials, weights, highest)[score:]
    steps = np.arange(len(mass))
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
    for _ in range(200):
        middle = (low + high) / 2
        found = sum(weight / (1.0 + math.exp(-min(middle * weight, 700.0))) for weight in weights)
        low, high = (middle, high) if found < mean else (low, middle)
    return (low + high) / 2


def _tilted_mass(tilt: float, trials: int, weights: tuple[int, ...], highest: int) -> np.ndarray:
    """Probabilities of 0..highest under the tilt; beyond the ends the transform wraps, so it has room for all."""
    size = 1 << highest.bit_length()
    frequency = 2.0 * np.pi * np.arange(size // 2 + 1) / size
    log_transform = np.zeros(size // 2 + 1, dtype=np.complex128)
    for weight in sorted(set(weights)):
        chance = 1.0 / (1.0 + math.exp(-min(tilt * weight, 700.0)))
        one = 1.0 - chance + chance * np.exp(-1j * frequency * weight)
        with np.errstate(divide="ignore"):
            log_transform += trials * weights.count(weight) * np.log(one)
    return np.maximum(np.fft.irfft(np.exp(log_transform), size)[: highest + 1], 0.0)
