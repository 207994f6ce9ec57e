"""Exponential weights on magnitude-reduced estimates: Dai, Luo, Wei and Zimmert, arXiv 2301.12942, algorithm 2.

The estimate has the mean of the usual one but is at least -H/(2 sqrt(gamma)), not -H/gamma, which removes the number
of actions from the regret: order sqrt(d H^6 K).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.mdp.ftrl_base import Rates, by_met
from bandits.mdp.pol_opt import PolOpt, entropy_rate, pol_opt_rates
from orbs import reject

__all__ = ["MagnitudeReducedFTRL", "magnitude_reduced_rates", "reduced_estimate"]


def magnitude_reduced_rates(
    tuning: str, actions: int, dimension: int, steps: int, horizon: int, c: float = 4.0, scale: float = 1 / 16
) -> Rates:
    """Rates of `MagnitudeReducedFTRL` for K = horizon episodes of H = steps.

    "practical": those of `PolOpt`. "theory": eta = sqrt(ln A/(d K H^4)), beta = 11 eta H^2,
    gamma = max(12 eta beta H^2, 36 eta^2 H^2).
    """
    if tuning == "practical":
        return pol_opt_rates(tuning, actions, dimension, steps, horizon, c, scale)
    eta = entropy_rate(actions, dimension, horizon, 1.0) / steps**2
    beta = 11.0 * eta * steps**2
    return Rates(eta, beta, max(12.0 * eta * beta * steps**2, 36.0 * (eta * steps) ** 2))


def reduced_estimate(x: Tensor, to_go: Tensor, mean_negative: Tensor, bound: float) -> Tensor:
    """(R, H, S A): x L - H (x)_- + H m, where (x)_- = min(x, 0).

    Args:
        x: (R, H, S A), phi(s, a)^T Sdag phi(s_h, a_h).
        to_go: (R, H), L_h in [0, bound].
        mean_negative: (R, H, S A), m: the mean of (x)_- over the pairs that the policy meets.
        bound: H. x L - H (x)_- >= 0 always.
    """
    return torch.addcmul(bound * (mean_negative - x.clamp_max(0.0)), x, to_go.unsqueeze(-1))


class MagnitudeReducedFTRL(PolOpt):
    """pi proportional to exp(-eta Cum) on `reduced_estimate`s.

    Args:
        samples: fresh trajectories of each episode that m is the mean of; None: m exactly, from the occupancies.
        others: as of `DilatedFTRL`.
    """

    def __init__(
        self, kernel: Tensor, start: Tensor, features: Tensor, steps: int, rates: Rates, bonus: str = "exact",
        covariance: str = "exact", trajectories: int = 256, chains: int = 16, length: int | None = None,
        samples: int | None = None, runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu",
        low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(
            kernel, start, features, steps, rates, bonus, covariance, trajectories, chains, length, runs, seed,
            device, low, high,
        )  # fmt: skip
        if samples is not None and samples < 1:
            reject("samples", "at least 1", samples, "give a positive number, or none for the exact correction")
        count = 2 * steps * samples if samples is not None else 0
        self._draws = Draws(self.philox, "magnitude-reduced/samples", count) if count else None

    def estimate(self, inverse: Tensor, met: Tensor, to_go: Tensor, policy: Tensor, weights: Tensor) -> Tensor:
        if self._draws is not None:
            weights = self.simulator.frequencies(policy, self._draws(self.rounds))
        negative = self.features.gram(inverse).clamp_max_(0.0)
        size = weights.shape[-1]  # symmetric, so that rows may stand for columns: faster
        mean = torch.bmm(weights.view(-1, 1, size), negative.view(-1, size, size)).view(weights.shape)
        x = self.features.linear(by_met(inverse, met))
        return reduced_estimate(x, to_go, mean, float(self.steps))
