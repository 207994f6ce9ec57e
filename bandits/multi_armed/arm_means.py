"""A learner of the arms' mean rewards: plays and means of each arm, which index rules are functions of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner
from orbs import Feedback

__all__ = ["ArmMeans"]


class ArmMeans(ArmLearner):
    """Keeps n (R, K), plays, and s (R, K), sums of rewards; with a declared range, of rewards moved into [0, 1]."""

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self.plays, self.sums = self.zeros(arms), self.zeros(arms)

    @property
    def means(self) -> Tensor:
        """(R, K), 0 where the arm was not played."""
        return self.sums / self.plays.clamp_min(1.0)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        arm = action.unsqueeze(1)
        self.plays.scatter_add_(1, arm, torch.ones_like(reward).unsqueeze(1))
        self.sums.scatter_add_(1, arm, (self.unit(reward) if self.bounded else reward).unsqueeze(1))

    def _tensors(self) -> dict[str, Tensor]:
        return {"plays": self.plays, "sums": self.sums}
