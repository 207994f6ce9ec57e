"""What the worlds with arms share: an arm a round, its reward alone is seen, regret against the best mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.regions import Arms
from envs.regret_world import RegretWorld

__all__ = ["BanditWorld"]


class BanditWorld(RegretWorld):
    """`num_envs` runs of a bandit: an action is an arm (R,) int64, the observation the last reward (R, 1), 0 at first.

    The feedback holds the reward alone. Regret: "regret/pseudo", the sum of (best mean - mean of the arm), and
    "regret/realised", the sum of (best mean - reward).

    A subclass sets what it needs and then calls this constructor, with `_draw` and `_reward` (`_prepare`, `context`).

    Args:
        arms: K.
        horizon, runs, seed, device, width: as for `RegretWorld`.
        facts: what a learner may know beforehand, besides domain, arms and horizon: reward_low and reward_high where
            rewards have a range, noise (their standard deviation, or sub-Gaussian constant) where it is known.
        seen: shape of one run's observation, if it is a context and not the last reward.
    """

    def __init__(
        self,
        arms: int,
        horizon: int,
        runs: int | Sequence[int],
        seed: int,
        device: torch.device | str,
        width: int,
        facts: Mapping[str, Any],
        seen: tuple[int, ...] = (1,),
    ) -> None:
        self.arms = arms
        observed = (-np.inf, np.inf, seen)
        super().__init__(Arms(arms), horizon, runs, seed, device, width, {"arms": arms, **facts}, observed)

    @abstractmethod
    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of a round: the reward (R,), its mean (R,) and the best arm's mean, (R,) or one for all."""

    def _sums(self) -> dict[str, Tensor]:
        return {"pseudo": self.zeros(), "best": self.zeros()}

    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        arm = x.clamp(0, self.arms - 1)  # an arm outside is reported later on a device that does not wait
        reward, mean, best = self._reward(arm, row)
        self.sums["best"] += best
        self.sums["pseudo"] += best - mean
        return -reward, reward.unsqueeze(-1), None

    def regret(self) -> dict[str, Tensor]:
        return {"regret/pseudo": self.sums["pseudo"].clone(), "regret/realised": self.sums["best"] + self.loss}
