"""Epoch-greedy (Langford, Zhang, NIPS 2007): an exploration round, then as many greedy ones as the past has earned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bandits.contextual.explore import PolicyLearner
from bandits.contextual.regression import REBUILD
from orbs import reject

__all__ = ["EpochGreedy", "exploitation"]


def exploitation(epoch: int, arms: int, log_policies: float, delta: float) -> int:
    """s_l = max(1, floor(sqrt(l/(K ln(|Pi|/delta))))) rounds in epoch l = 1, 2, .."""
    return max(1, math.floor(math.sqrt(epoch / (arms * (log_policies + math.log(1.0 / delta))))))


class EpochGreedy(PolicyLearner):
    """Epoch l: a uniformly random round, which alone the policy is fitted to, then s_l rounds of the policy.

    Args:
        arms, dimension, runs, seed, device, low, high, oracle, ridge: as for `PolicyLearner`.
        log_policies: ln |Pi|, at least 0.
        delta: in (0, 1).

    Attributes:
        epoch: l of the coming round, from 1.
        place: rounds of its epoch before it; 0 explores.
    """

    name = "epoch-greedy"

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *, log_policies: float,
        delta: float = 0.05, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        if not log_policies >= 0:
            reject("log_policies", "at least 0", log_policies, "give ln of the number of policies")
        if not 0 < delta < 1:
            reject("delta", "above 0 and below 1", delta, "e.g. delta=0.05")
        self.log_policies, self.delta = log_policies, delta
        self._loaded()

    def length(self) -> int:
        """Greedy rounds of the present epoch."""
        return exploitation(self.epoch, self.arms, self.log_policies, self.delta)

    def _loaded(self) -> None:
        """The place in the schedule follows from the rounds."""
        self.epoch, start = 1, 0
        while start + 1 + self.length() <= self.rounds:
            start += 1 + self.length()
            self.epoch += 1
        self.place = self.rounds - start

    def _pick(self, x: Tensor) -> Tensor:
        return self.uniform() if self.place == 0 else self.policies.best(x)

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        if self.place == 0:
            self.learn_random(x, arm, reward, self.epoch % REBUILD == 0)
        self.place += 1
        if self.place > self.length():
            self.epoch, self.place = self.epoch + 1, 0
