"""The parts of a transformer layer in torch: projections that take adapters, norms, feed-forward networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.model.config import ModelConfig
from inference.model.paged_attention import Rows


class Linear(nn.Linear):
    """A projection; ``step`` adds each row's low-rank adapter (LoRA, Hu et al. 2021), if it has one.

    An adapter is computed for all rows and kept where it applies: the shape of the product, and so a row's bits, does
    not depend on how many neighbours use it (its cost is that of the rank, a hundredth of the projection's).
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.adapters: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        """(tenant, name) to (``[rank, inputs]``, ``[outputs, rank]``), the second already scaled."""

    def step(self, x: Tensor, rows: Rows) -> Tensor:
        """``[rows, inputs]`` to ``[rows, outputs]``."""
        projected = self(x)
        for name, applies in rows.adapters:
            if name in self.adapters:
                down, up = self.adapters[name]
                adapted = projected + (x @ down.T) @ up.T
                projected = torch.where(applies, adapted, projected)
        return torch.as_tensor(projected)


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., size]``."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def apply_rope(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions (Su et al. 2021) to ``[..., size]`` with ``[..., size]`` cosines and sines.

    Dimension i and i + size / 2 are a pair (a, b), which becomes (a cos - b sin, b cos + a sin).
    """
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Mlp(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, width: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., width]`` to the same shape."""
        return torch.as_tensor(self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x)))

    def step(self, x: Tensor, rows: Rows) -> Tensor:
        """Map ``[rows, width]`` to the same shape, with adapters."""
        inner = functional.silu(self.gate_proj.step(x, rows)) * self.up_proj.step(x, rows)
        return self.down_proj.step(inner, rows)


class Router(nn.Module):
    """Chooses experts as DeepSeek-V2 and V3 do (Liu et al. 2024)."""

    e_score_correction_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        experts = config.n_routed_experts or 0
        self.weight = nn.Parameter(torch.empty(experts, config.hidden_size))
        if config.model_type == "deepseek_v3":
            self.register_buffer("e_score_correction_bias", torch.zeros(experts))

    def forward(self, x: Tensor) -> Tensor:
        """Shares of the experts ``[rows, experts]`` for ``[rows, width]``, zero for those that are not chosen."""
        config = self.config
        affinity = functional.linear(x.float(), self.weight.float())
        if config.model_type == "deepseek_v3":
            scores = affinity.sigmoid()
            ranking = self._within_groups(scores + self.e_score_correction_bias, 2, -torch.inf)
        else:
            scores = affinity.softmax(-1)
            limited = config.topk_method == "group_limited_greedy"
            ranking = self._within_groups(scores, 1, 0.0) if limited else scores
        chosen = ranking.topk(config.num_experts_per_tok or 1, dim=-1).indices
        shares = scores.gather(1, chosen)
        if config.norm_topk_prob and config.model_type == "deepseek_v3":
            shares = shares / (shares.sum(-1, keepdim=True) + 1e-20)
        return torch.zeros_like(scores).scatter(1, chosen, shares * config.routed_scaling_factor).to(x.dtype)

    def _within_groups(self, scores: Tensor, best: int, out: float) -> Tensor:
        """Set ``[rows, experts]`` scores outside the ``topk_group`` best groups to ``out``.

        A group counts as the sum of its ``best`` experts.
        """
        groups = self.config.n_group or 1
        split = scores.view(len(scores), groups, -1)
        group_scores = split.topk(best, dim=-1).values.sum(-1)
        kept = group_scores.topk(self.config.topk_group or groups, dim=-1).indices
        mask = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, kept, value=True)
        return split.masked_fill(~mask[..., None], out).view_as(scores)


class MixtureOfExperts(nn.Module):
    """Routed experts beside shared ones.

    Every expert is computed for all rows and weighted, mostly by zero: exact in any company, and fit for small
    models only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.moe_intermediate_size
        self.gate = Router(config)
        self.experts = nn.ModuleList(Mlp(width, inner) for _ in range(config.n_routed_experts or 0))
        self.shared_experts = Mlp(width, inner * config.n_shared_experts) if config.n_shared_experts else None

    def step(self, x: Tensor, rows: Rows) -> Tensor:
        """``[rows, width]`` to the same shape."""
        shares = self.gate(x)
        mixed = torch.zeros_like(x) if self.shared_experts is None else self.shared_experts.step(x, rows)
        for index, expert in enumerate(self.experts):
            assert isinstance(expert, Mlp)
            mixed = mixed + expert.step(x, rows) * shares[:, index, None]
        return mixed
