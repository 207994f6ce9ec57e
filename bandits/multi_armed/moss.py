"""MOSS (Audibert and Bubeck, COLT 2009): an index whose bonus ends once an arm has had its share of the rounds.

With a horizon the worst-case regret is of the order sqrt(K T), without a logarithm. Without one, t stands for T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.multi_armed.arm_means import IndexLearner, log_horizon

__all__ = ["MOSS", "moss_index"]


def moss_index(mean: Tensor, plays: Tensor, rounds: float, scale: float = 1.0) -> Tensor:
    """(R, K) mean + scale sqrt(max(ln(rounds / (K plays)), 0) / plays); infinite where an arm was not played."""
    share = rounds / (mean.shape[-1] * plays)
    return torch.where(plays > 0, mean + scale * (share.clamp_min(1.0).log() / plays).sqrt(), math.inf)


class MOSS(IndexLearner):
    """Each arm once in index order, then argmax m + scale sqrt(max(ln(T / (K n)), 0) / n).

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`; with a finite range rewards are moved into
            [0, 1].
        scale: 1 is for [0, 1]; twice the standard deviation for Gaussian rewards (1/2 is the constant of [0, 1]).
        horizon: T; the round t stands for it (anytime) where it is not given.
    """

    label: ClassVar[str] = "moss"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, scale: float = 1.0,
        horizon: int | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        log_horizon(horizon)
        self.scale, self.horizon = scale, horizon

    def _index(self) -> Tensor:
        return moss_index(self.means, self.plays, self.horizon or self.rounds + 1, self.scale)
