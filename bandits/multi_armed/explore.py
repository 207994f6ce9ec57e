"""Exploration that does not follow an index: explore-first, epsilon-greedy, successive elimination, Boltzmann, greedy.

The first three as in Slivkins, "Introduction to Multi-Armed Bandits" (arXiv 1904.07272), chapter 1; elimination is
Even-Dar, Mannor, Mansour's (COLT 2002) with the book's radius.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.arm_learner import Draws, sample
from bandits.multi_armed.arm_means import ArmMeans, IndexLearner, log_horizon
from orbs import Feedback, reject

__all__ = ["Boltzmann", "EpsilonGreedy", "ExploreFirst", "Greedy", "SuccessiveElimination", "exploration_plays"]


def exploration_plays(horizon: int, arms: int) -> int:
    """Plays of each arm: (T / K)^(2/3) (ln T)^(1/3), rounded, at least 1."""
    return max(1, round(math.pow(horizon / arms, 2 / 3) * math.pow(math.log(horizon), 1 / 3)))


class ExploreFirst(IndexLearner):
    """Each arm `plays` times in turn, then for ever the arm of the largest mean of that time.

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`.
        explore: plays of each arm, at least 1.
    """

    label: ClassVar[str] = "explore-first"

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, explore: int, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        if explore < 1:
            reject("explore", "at least 1 play of each arm", explore, "explore longer")
        self.explore = explore
        self._order = [torch.full((self.runs,), arm, device=self.device) for arm in range(arms)]

    def _index(self) -> Tensor:
        return self.means

    def _choose(self, observation: Tensor | None) -> Tensor:
        if self.rounds < self.explore * self.arms:
            return self._order[self.rounds % self.arms].clone()
        return self.best(self._index(), self.explore * self.arms)  # ties are drawn once: it commits

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        if self.rounds < self.explore * self.arms:
            super()._take(action, reward, feedback)


class EpsilonGreedy(IndexLearner):
    """A uniform arm with probability eps, else the arm of the largest mean (0 for one without plays).

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`.
        epsilon: a constant in [0, 1]; None is min(1, (K ln(t + 1) / t)^(1/3)).
    """

    label: ClassVar[str] = "epsilon-greedy"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, epsilon: float | None = None, **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        if epsilon is not None and not 0 <= epsilon <= 1:
            reject("epsilon", "a number in [0, 1]", epsilon, "e.g. 0.1")
        self.epsilon = epsilon
        self._draws = Draws(self.philox, "epsilon-greedy/explore", 2)

    def _index(self) -> Tensor:
        return self.means

    def _choose(self, observation: Tensor | None) -> Tensor:
        t = self.rounds + 1
        chance = min(1.0, (self.arms * math.log(t + 1) / t) ** (1 / 3)) if self.epsilon is None else self.epsilon
        u = self._draws(self.rounds)
        return torch.where(u[:, 0] < chance, (u[:, 1] * self.arms).long(), super()._choose(observation))


class SuccessiveElimination(ArmMeans):
    """Plays every arm still in the race once a phase, in index order; at its end drops the arms that are surely worse.

    An arm is dropped if its mean + radius is below another's mean - radius, radius = scale sqrt(2 ln T / n).

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`; with a finite range rewards are moved into [0, 1].
        horizon: T.
        scale: as for `UCB1`.
    """

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, horizon: int, scale: float = 1.0,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        self.factor = scale * math.sqrt(2.0 * (log_horizon(horizon) or 0.0))
        self.active = self.zeros(arms) == 0

    def _choose(self, observation: Tensor | None) -> Tensor:
        return torch.where(self.active, self.plays, torch.inf).min(-1).indices

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        super()._take(action, reward, feedback)
        fewest = torch.where(self.active, self.plays, torch.inf).amin(-1, keepdim=True)
        ended = fewest == torch.where(self.active, self.plays, -torch.inf).amax(-1, keepdim=True)
        means, radius = self.means, self.factor * self.plays.clamp_min(1.0).rsqrt()
        best = torch.where(self.active, means - radius, -torch.inf).amax(-1, keepdim=True)
        self.active &= ~(ended & (means + radius < best))

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "active": self.active}


class Boltzmann(ArmMeans):
    """An arm drawn with probabilities proportional to exp(mean / temperature), 0 the mean of one without plays.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`; with a finite range rewards are moved into [0, 1].
        temperature: above 0, constant.
    """

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, temperature: float = 0.1, **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        if not temperature > 0:
            reject("temperature", "a number above 0", temperature, "e.g. 0.1")
        self.temperature = temperature
        self._draws = Draws(self.philox, "boltzmann/arm")

    def _choose(self, observation: Tensor | None) -> Tensor:
        means = self.means
        weights = ((means - means.amax(-1, keepdim=True)) / self.temperature).exp()
        return sample(weights / weights.sum(-1, keepdim=True), self._draws(self.rounds)[:, 0])


class Greedy(IndexLearner):
    """Each arm once in index order, then the arm of the largest mean. Arguments of `IndexLearner`."""

    label: ClassVar[str] = "greedy"

    def _index(self) -> Tensor:
        return torch.where(self.plays > 0, self.means, torch.inf)
