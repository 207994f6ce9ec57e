"""What learners share that draw their arm from weights, as an adversary's rewards ask for.

The probabilities of the coming round are known when the last one has been taken in; to choose is to sample from them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner, Draws, sample
from orbs import Feedback, reject

__all__ = ["WeightedArms", "between", "exponential_weights", "known_horizon"]

SMALLEST = 1e-100  # a probability below it can only be that of an arm that somebody else chose


def exponential_weights(scores: Tensor, rate: float) -> Tensor:
    """(R, K) proportional to exp(rate scores), each row with sum 1.

    Each row's largest score is moved to 0 in place, which changes no weight and keeps sums small for ever.
    """
    scores.sub_(scores.amax(-1, keepdim=True))
    weights = (scores * rate).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def known_horizon(horizon: int | None, least: int = 1) -> int:
    """The horizon, after a check that it is one."""
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < least:
        reject("horizon", f"a whole number of at least {least}", repr(horizon), "give the number of rounds")
    return horizon


def between(field: str, value: float, low: float, high: float, ends: str = "[]") -> float:
    """The value, after a check that it lies in the interval; `ends` "(]" leaves the lower bound out, and so on."""
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if not (above and below):
        reject(field, f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}", repr(value), "mend it")
    return float(value)


class WeightedArms(ArmLearner):
    """Draws its arm from `probabilities`; a learner fills in `_learn`, `_weigh` and `_tensors`.

    Args:
        arms, runs, seed, device: as for `ArmLearner`.
        low, high: the range of rewards, which no learner of this kind can do without.

    Attributes:
        probabilities: (R, K) of the coming round.
        name: of its random numbers.

    Raises:
        ValueError: a range that is infinite or empty.
    """

    name: ClassVar[str]
    probabilities: Tensor

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, device: torch.device | str = "cpu",
        low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, device, low, high)
        if not self.bounded:
            reject("reward range", "finite, low below high", f"[{low}, {high}]", "declare the range of rewards")
        self._draws = Draws(self.philox, f"{self.name}/arms")

    def _choose(self, observation: Tensor | None) -> Tensor:
        return sample(self.probabilities, self._draws(self.rounds)[:, 0])

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        arm = action.unsqueeze(1)
        chance = self.probabilities.gather(1, arm).clamp_min_(SMALLEST)
        self._learn(arm, reward.unsqueeze(1), chance)
        self._weigh(self.rounds + 2)

    def _loaded(self) -> None:
        self._weigh(self.rounds + 1)

    def _loss(self, reward: Tensor) -> Tensor:
        """1 - the reward moved into [0, 1]."""
        return (self.high - reward) * (1.0 / (self.high - self.low))

    @abstractmethod
    def _learn(self, arm: Tensor, reward: Tensor, chance: Tensor) -> None:
        """Take round `rounds + 1` in: arms, their rewards as given and their probabilities, (R, 1) each."""

    @abstractmethod
    def _weigh(self, t: int) -> None:
        """Set `probabilities` to those of round t, counted from 1."""
