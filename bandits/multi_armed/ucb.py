"""UCB1 (Auer, Cesa-Bianchi, Fischer, Machine Learning 2002): play the arm of the largest mean + bonus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bandits.arm_learner import log_or_zero
from bandits.multi_armed.arm_means import ArmMeans
from orbs import reject

__all__ = ["UCB1", "ucb1_index"]


def ucb1_index(mean: Tensor, plays: Tensor, log_time: float, scale: float = 1.0) -> Tensor:
    """(R, K) mean + scale sqrt(2 log_time / plays); infinite where an arm was not played."""
    return mean + scale * (2.0 * log_time / plays).sqrt()


class UCB1(ArmMeans):
    """Each arm once in index order, then argmax m + scale sqrt(2 ln t / n); ties to the lowest index.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`; with a finite range rewards are moved into [0, 1].
        scale: 1 is Hoeffding's for [0, 1]; sigma for Gaussian rewards in the released code of Dynamical Linear Bandits.
        horizon: ln T in place of ln t (Slivkins' book) where it is given.
    """

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, scale: float = 1.0,
        horizon: int | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if horizon is not None and horizon < 1:
            reject("horizon", "at least 1 round", horizon, "give the number of rounds, or None for ln t")
        self.scale = scale
        self.log_horizon = None if horizon is None else math.log(horizon)

    def _choose(self, observation: Tensor | None) -> Tensor:
        log = log_or_zero(self.rounds + 1) if self.log_horizon is None else self.log_horizon
        # At t = 1 the logarithm is 0 and 0 / 0 would be no number.
        index = ucb1_index(self.means, self.plays, max(log, 1e-300), self.scale)
        return index.max(-1).indices
