"""Frequencies of rotary positions (Su et al. 2021) and their stretchings for long contexts. No torch.

linear: Chen et al. 2023 (position interpolation); llama3: the Llama 3.1 report; yarn: Peng et al. 2023.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from inference.model.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig) -> NDArray[np.float64]:
    """Radians per position for each pair of dimensions, ``[rope_size / 2]``."""
    size, scaling = config.rope_size, config.scaling
    plain: NDArray[np.float64] = config.theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    if scaling.kind == "linear":
        return np.divide(plain, scaling.factor)
    original = scaling.original_max_position_embeddings or config.max_position_embeddings
    if scaling.kind == "llama3":
        return _llama3(plain, scaling, original)
    if scaling.kind == "yarn":
        return _yarn(plain, scaling, original, config.theta)
    return plain


def amplitude(config: ModelConfig) -> float:
    """Factor of sines and cosines: yarn's attention factor, 1 for the others."""
    scaling = config.scaling
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling.factor, scaling.mscale) / _mscale(scaling.factor, scaling.mscale_all_dim)
    return _mscale(scaling.factor, 1.0)


def latent_scale(config: ModelConfig) -> float:
    """Factor of the scores of latent attention (DeepSeek-V2, section 3.1.4)."""
    scale: float = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    scaling = config.scaling
    if scaling.kind != "default" and scaling.mscale_all_dim:
        scale *= _mscale(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale


def rope_tables(config: ModelConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines, each ``[max_position_embeddings, rope_size]``, halves repeated."""
    angles = np.outer(np.arange(config.max_position_embeddings, dtype=np.float64), frequencies(config))
    angles = np.concatenate((angles, angles), axis=1)
    factor = amplitude(config)
    return (np.cos(angles) * factor).astype(np.float32), (np.sin(angles) * factor).astype(np.float32)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def _llama3(plain: NDArray[np.float64], scaling: RopeScaling, original: int) -> NDArray[np.float64]:
    """Stretch low frequencies, keep high ones, and mix those between; ``[rope_size / 2]`` to the same shape."""
    periods = original * plain / (2 * math.pi)
    mix = (periods - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    mix = np.clip(mix, 0.0, 1.0)
    return (1 - mix) * plain / scaling.factor + mix * plain


def _yarn(plain: NDArray[np.float64], scaling: RopeScaling, original: int, theta: float) -> NDArray[np.float64]:
    """Stretch low frequencies, keep high ones, and mix along a ramp; ``[rope_size / 2]`` to the same shape."""
    size = 2 * len(plain)

    def dimension(periods: float) -> float:
        """Index of the pair with so many periods over the original context."""
        return size * math.log(original / (periods * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    mixed: NDArray[np.float64] = plain / scaling.factor * ramp + plain * (1 - ramp)
    return mixed
