"""Linear Thompson sampling (Agrawal, Goyal, ICML 2013): play the best arm of a parameter drawn from N(theta, v^2 V^-1).

Deliberate difference: the draw is theta + v B z with any B B^T = V^-1, which is kept by rank-one updates; it is L^{-T}
of V = L L^T right after a fresh factorisation. The law is the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from bandits.arm_learner import Draws
from bandits.linear.linear_learner import LinearLearner
from bandits.linear.root_ridge import RootRidge
from orbs import reject

__all__ = ["LinTS", "theory_scale"]


def theory_scale(noise: float, dimension: int, t: int, delta: float) -> float:
    """v = sigma sqrt(9 d ln(t / delta)) of round t, counted from 1."""
    return noise * math.sqrt(9.0 * dimension * math.log(t / delta))


class LinTS(LinearLearner):
    """argmax <theta_hat + v B z, u>, z standard normal.

    Args:
        features, arguments: as for `LinearLearner`; bound, feature_bound and beta are of no effect.
        scale: "noise", v = sigma, or "theory", v = sigma sqrt(9 d ln(t / delta)).
        rebuild: rounds between two fresh factorisations.
    """

    def __init__(
        self,
        features: Tensor | None = None,
        *,
        scale: Literal["noise", "theory"] = "noise",
        rebuild: int = 100,
        **arguments: Any,
    ) -> None:
        super().__init__(features, **arguments)
        if scale not in ("noise", "theory"):
            reject("scale", "'noise' or 'theory'", repr(scale), "choose one")
        self.scale = scale
        self.ridge = RootRidge(self.dimension, self.lam, self.runs, self.device, rebuild)
        self._normal = Draws(self.philox, "lin-ts/normal", self.dimension, normal=True)

    def parameter(self) -> Tensor:
        """(d, R) the one drawn for this round."""
        v = self.noise
        if self.scale == "theory":
            v = theory_scale(self.noise, self.dimension, self.rounds + 1, self.delta)
        z = self._normal(self.rounds).mT
        return self.ridge.theta + v * (self.ridge.root * z).sum(1)

    def _scores(self, x: Tensor) -> Tensor:
        return (x * self.parameter()).sum(1).mT

    def _learn(self, arm: Tensor, reward: Tensor) -> None:
        self.ridge.add(self._features_of(arm), reward)

    def _tensors(self) -> dict[str, Tensor]:
        return self.ridge.tensors()

    def _loaded(self) -> None:
        self.ridge.loaded(self.rounds)
