"""Explore-first and epsilon-greedy over linear policies (Slivkins, arXiv 1904.07272, chapter 8).

Policies and oracle: `bandits.contextual.policies`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.contextual.context import ContextLearner
from bandits.contextual.policies import LinearPolicies
from bandits.contextual.regression import REBUILD
from orbs import reject

__all__ = ["ContextualEpsilonGreedy", "ContextualExploreFirst", "PolicyLearner", "epsilon_schedule", "exploration"]


def exploration(horizon: int, arms: int, log_policies: float) -> int:
    """N = T^(2/3) (K ln(T |Pi|))^(1/3) rounds, to the nearest whole number, from 1 to T."""
    wanted = math.cbrt(horizon * horizon * arms * (math.log(horizon) + log_policies))
    return max(1, min(round(wanted), horizon))


def epsilon_schedule(round: int, arms: int) -> float:
    """min(1, (K ln(t + 1)/t)^(1/3)) in round t = 1, 2, .., as for the bandit without contexts."""
    return min(1.0, math.cbrt(arms * math.log(round + 1) / round))


class PolicyLearner(ContextLearner):
    """Explores by uniformly random arms, and plays the oracle's policy else.

    Args:
        arms, dimension, runs, seed, device, low, high: as for `ContextLearner`.
        oracle, ridge: as for `LinearPolicies`.
    """

    name = ""

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *, oracle: str = "weighted",
        ridge: float = 1.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        self.policies = LinearPolicies(oracle, self.zeros(1), arms, dimension, ridge)
        self._random = Draws(self.philox, f"{self.name}/arm")

    def uniform(self) -> Tensor:
        """(R,) int64, each arm with probability 1/K (up to 2^-32)."""
        return (self._random(self.rounds)[:, 0] * self.arms).long()

    def learn_random(self, x: Tensor, arm: Tensor, reward: Tensor, rebuild: bool) -> None:
        """From a uniformly random round."""
        self.policies.learn(x, arm, reward, torch.full_like(reward, 1.0 / self.arms))
        if rebuild:
            self.policies.rebuild()

    def _tensors(self) -> dict[str, Tensor]:
        return self.policies.tensors()


class ContextualExploreFirst(PolicyLearner):
    """N uniformly random rounds, then the policy fitted to them, for ever.

    Args:
        arms, dimension, runs, seed, device, low, high, oracle, ridge: as for `PolicyLearner`.
        explore: N, at least 1; `exploration` gives the book's.
    """

    name = "contextual-explore-first"

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *, explore: int, **common: Any
    ) -> None:
        super().__init__(arms, dimension, runs, seed, **common)
        if explore < 1:
            reject("explore", "at least 1 round", explore, "give the number of random rounds")
        self.explore = explore

    def _pick(self, x: Tensor) -> Tensor:
        return self.uniform() if self.rounds < self.explore else self.policies.best(x)

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        if self.rounds < self.explore:
            self.learn_random(x, arm, reward, (self.rounds + 1) % REBUILD == 0)


class ContextualEpsilonGreedy(PolicyLearner):
    """With probability epsilon a uniformly random arm, else the policy fitted to all rounds before.

    Args:
        arms, dimension, runs, seed, device, low, high, oracle, ridge: as for `PolicyLearner`.
        epsilon: above 0, at most 1; None: `epsilon_schedule`.
    """

    name = "contextual-epsilon-greedy"

    def __init__(
        self, arms: int, dimension: int, runs: int | Sequence[int] = 1, seed: int = 0, *,
        epsilon: float | None = 0.1, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, dimension, runs, seed, **common)
        if epsilon is not None and not 0 < epsilon <= 1:
            reject("epsilon", "above 0 and at most 1", epsilon, "e.g. epsilon=0.1")
        self.fixed = epsilon
        self._coin = Draws(self.philox, f"{self.name}/coin")

    @property
    def epsilon(self) -> float:
        """Of the coming round."""
        return epsilon_schedule(self.rounds + 1, self.arms) if self.fixed is None else self.fixed

    def _pick(self, x: Tensor) -> Tensor:
        return torch.where(self._coin(self.rounds)[:, 0] < self.epsilon, self.uniform(), self.policies.best(x))

    def _learn(self, x: Tensor, arm: Tensor, reward: Tensor) -> None:
        greedy = (arm == self.policies.best(x)).double()
        chance = self.epsilon / self.arms + (1.0 - self.epsilon) * greedy
        self.policies.learn(x, arm, reward, chance)
        if (self.rounds + 1) % REBUILD == 0:
            self.policies.rebuild()
