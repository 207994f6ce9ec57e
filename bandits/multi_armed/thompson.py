"""Thompson sampling: play the best arm of a mean drawn from each arm's posterior, Beta or normal.

Thompson (Biometrika 25, 1933); the coin for rewards between 0 and 1 is Agrawal and Goyal's (COLT 2012). A Beta number
is a ratio of gamma numbers by Marsaglia and Tsang's rejection (ACM TOMS 26, 2000), here with a fixed number of tries
from counter-based numbers, so that no draw depends on another and no device waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.multi_armed.arm_means import ArmMeans
from orbs import Feedback, reject

__all__ = ["TRIES", "GaussianThompsonSampling", "ThompsonSampling", "gamma_draw"]

TRIES = 6


def gamma_draw(shape: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
    """Gamma numbers of scale 1 and shapes at least 1, (R, N), by Marsaglia and Tsang's method.

    A try is accepted with probability at least 0.951 (at shape 1; 0.981 at 2, towards 1). Where all six fail, with
    probability at most 1.3e-8 (5e-11 at shape 2), the answer is shape - 1/3, about the median.

    Args:
        shape: (R, N).
        normal, uniform: (R, TRIES, N) independent numbers.
    """
    d = shape - 1.0 / 3.0
    slope = (9.0 * d).rsqrt()
    factor, log = torch.ones_like(d), uniform.log()
    for i in reversed(range(uniform.shape[1])):  # the first accepted try counts
        z = normal[:, i]
        v = (1.0 + slope * z).clamp_min(1e-100).pow(3)  # 1e-300 where the method asks for v > 0: never accepted
        accepted = log[:, i] < 0.5 * z * z + d * (1.0 - v + v.log())
        factor = torch.where(accepted, v, factor)
    return d * factor


class ThompsonSampling(ArmMeans):
    """argmax of draws from Beta(1 + s, 1 + n - s); a reward between 0 and 1 first becomes 0 or 1 by a coin.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`; the range must be declared.
    """

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self._need_range("thompson-beta")
        self._normal = Draws(self.philox, "thompson-beta/normal", TRIES * 2 * arms, normal=True)
        self._uniform = Draws(self.philox, "thompson-beta/uniform", TRIES * 2 * arms)
        self._coin = Draws(self.philox, "thompson-beta/coin")

    def draws(self) -> Tensor:
        """(R, K) of the posterior in the round to come."""
        won = torch.cat([self.sums.mT, (self.plays - self.sums).mT]).mT  # runs stay last in memory
        tries = (self.runs, TRIES, 2 * self.arms)
        gamma = gamma_draw(1.0 + won, self._normal(self.rounds).view(tries), self._uniform(self.rounds).view(tries))
        return gamma[:, : self.arms] / (gamma[:, : self.arms] + gamma[:, self.arms :])

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self.draws().max(-1).indices

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        self._count(action, (self._coin(self.rounds)[:, 0] < self.unit(reward)).double())


class GaussianThompsonSampling(ArmMeans):
    """argmax of draws from the normal posterior: precision 1 / v0 + n / noise^2, mean (m0 / v0 + s / noise^2) over it.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`; with a finite range rewards are moved into [0, 1].
        noise: standard deviation of rewards (1/2 is the constant of [0, 1]).
        prior_mean, prior_variance: m0 and v0, of rewards as moved.
    """

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, noise: float = 1.0, prior_mean: float = 0.0,
        prior_variance: float = 1.0, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        for name, value in (("noise", noise), ("prior_variance", prior_variance)):
            if not value > 0:
                reject(name, "a number above 0", value, "e.g. 1")
        self.noise, self.prior_mean, self.prior_variance = noise, prior_mean, prior_variance
        self._normal = Draws(self.philox, "thompson-gaussian/normal", arms, normal=True)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """(R, K) means and (R, K) precisions."""
        precision = 1.0 / self.prior_variance + self.plays / self.noise**2
        return (self.prior_mean / self.prior_variance + self.sums / self.noise**2) / precision, precision

    def _choose(self, observation: Tensor | None) -> Tensor:
        mean, precision = self.posterior()
        return (mean + self._normal(self.rounds) * precision.rsqrt()).max(-1).indices
