"""Baselines that learn nothing: a uniform arm each round, and always the best arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner, Draws
from bandits.base import FOREVER
from orbs import Feedback, reject

__all__ = ["Oracle", "RandomArm"]


class RandomArm(ArmLearner):
    """A uniform arm each round. Arguments of `ArmLearner`."""

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self._draws = Draws(self.philox, "random/arm")

    def _choose(self, observation: Tensor | None) -> Tensor:
        return (self._draws(self.rounds)[:, 0] * self.arms).long()

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        return

    def _tensors(self) -> dict[str, Tensor]:
        return {}


class Oracle(ArmLearner):
    """The same arm each round.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`.
        arm: the number of it, the best arm's for an oracle.
    """

    holds = True

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, arm: int, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        if not 0 <= arm < arms:
            reject("arm", f"0 to {arms - 1}", arm, "give one of the arms")
        self._arm = torch.full((self.runs,), arm, device=self.device)

    def hold(self) -> int:
        return FOREVER

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self._arm.clone()

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        return

    def _tensors(self) -> dict[str, Tensor]:
        return {}
