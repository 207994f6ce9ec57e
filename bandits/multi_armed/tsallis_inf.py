"""Tsallis-INF: follow the regularised leader with Tsallis entropy of 1/2, near the best in both worlds.

Zimmert and Seldin, JMLR 22(28), 2021, arXiv 1807.07623. Regret of order sqrt(K T) whatever the losses, and of order
sum of ln T / gap where the gaps stay, without knowing which of the two it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from bandits.multi_armed.weighted_arms import WeightedArms
from bandits.online_learning.simplex_solvers import barrier_weights
from orbs import reject

__all__ = ["TsallisINF", "reduced_variance_base"]


def reduced_variance_base(probabilities: Tensor, rate: float) -> Tensor:
    """(R, K) what each arm's loss is held to be before it is seen: 1/2 where its probability is at least rate^2."""
    return (probabilities >= rate * rate).double().mul_(0.5)


class TsallisINF(WeightedArms):
    """p = 4 (eta_t (L - z))^-2 with sum 1, of estimated losses L.

    Args:
        arms, runs, seed, device, low, high: as for `WeightedArms`.
        variant: "rv" (reduced variance: eta_t = 4 / sqrt t, L grows by B, for the arm played by B + (loss - B) / p), or
            "iw" (importance weighted: eta_t = 2 / sqrt t, by loss / p).

    Attributes:
        losses: (R, K) L up to one constant a run: the smallest is 0.
    """

    name: ClassVar[str] = "tsallis-inf"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, variant: str = "rv", **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        if variant not in ("rv", "iw"):
            reject("variant", "'rv' or 'iw'", repr(variant), "choose one")
        self.variant, self.scale = variant, 4.0 if variant == "rv" else 2.0
        self.losses = self.zeros(arms)
        self._weigh(1)

    def rate_at(self, t: int) -> float:
        """eta of round t, counted from 1."""
        return self.scale / math.sqrt(t)

    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        loss = self._loss(reward)
        # No probability reaches rate^2 = 16 / t before t = 16.
        if self.variant == "rv" and self.rounds + 1 >= 16:
            base = reduced_variance_base(self.probabilities, self.rate_at(self.rounds + 1))
            self.losses += base
            loss = loss - base.gather(1, arm)
        self.losses.scatter_add_(1, arm, loss / chance)

    def _weigh(self, t: int) -> None:
        self.losses.sub_(self.losses.amin(-1, keepdim=True))
        self.probabilities, _ = barrier_weights(self.losses * self.rate_at(t), 2.0)

    def _tensors(self) -> dict[str, Tensor]:
        return {"losses": self.losses}
