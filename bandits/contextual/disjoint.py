"""Disjoint LinUCB (Li, Chu, Langford, Schapire, WWW 2010, arXiv 1003.0146): optimism with one linear model per arm.

Inverses are updated by rank-one steps of the played arm and made anew every 100 rounds; the paper inverts each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bandits.contextual.context import ContextLearner
from bandits.contextual.regression import REBUILD, ArmRidge
from orbs import reject

__all__ = ["DisjointLinUCB", "lin_ucb_index"]


def lin_ucb_index(mean: Tensor, squared_width: Tensor, alpha: float) -> Tensor:
    """(R, K) mean + alpha sqrt(squared width); rounding below 0 counts as 0."""
    return mean + alpha * squared_width.clamp_min(0.0).sqrt()


class DisjointLinUCB(ContextLearner):
    """argmax <w_a, x> + alpha sqrt(x^T V_a^-1 x) with V_a = ridge I + sum of x x^T over arm a's rounds.

    Args:
        arms, dimension, runs, seed, device, low, high: as for `ContextLearner`.
        alpha: factor of the width, at least 0; the paper's proof has 1 + sqrt(ln(2/delta)/2) for rewards in [0, 1].
        ridge: above 0; 1 in the paper.
    """

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *, alpha: float = 1.0,
        ridge: float = 1.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        if not alpha >= 0:
            reject("alpha", "at least 0", alpha, "e.g. alpha=1.0")
        if not ridge > 0:
            reject("ridge", "above 0", ridge, "e.g. ridge=1.0")
        self.alpha = alpha
        self.model = ArmRidge(self.zeros(1), arms, dimension, ridge)

    def _pick(self, x: Tensor) -> Tensor:
        index = lin_ucb_index(self.model.predict(x), self.model.squared_widths(x), self.alpha)
        return index.max(-1).indices

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        self.model.add(arm, x, reward)
        if (self.rounds + 1) % REBUILD == 0:
            self.model.rebuild()

    def _tensors(self) -> dict[str, Tensor]:
        return self.model.tensors()
