"""Exponential weights on Q functions: policy optimisation with dilated bonuses, and with the whole loss revealed.

`PolOpt`: Luo, Wei and Lee, arXiv 2107.08346, regret of order H^2 (d K)^(2/3) for K episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.mdp.ftrl_base import CumulativeLearner, DilatedFTRL, Rates
from bandits.mdp.occupancy import Simulator
from bandits.online_learning.simplex_solvers import soft_weights
from orbs import Feedback, reject

__all__ = ["FullInformationFTRL", "PolOpt", "entropy_rate", "full_information_rate", "pol_opt_rates"]


def entropy_rate(actions: int, dimension: int, horizon: int, c: float) -> float:
    """c sqrt(ln A/(d K)); ln 2 where there is one action."""
    return c * math.sqrt(math.log(max(2, actions)) / (dimension * max(1, horizon)))


def pol_opt_rates(
    tuning: str, actions: int, dimension: int, steps: int, horizon: int, c: float = 4.0, scale: float = 1 / 16
) -> Rates:
    """Rates of `PolOpt` for K = horizon episodes of H = steps.

    "practical": eta = c sqrt(ln A/(dK)), gamma = scale H sqrt(ln A/(dK)), beta = 0.02 scale H eta.
    "theory": gamma = (dK)^(-2/3), beta = H (dK)^(-1/3), eta = min(gamma/(2H), 3 beta/(8 H^2)); nearly uniform play
    below a million episodes.
    """
    if tuning == "practical":
        eta = entropy_rate(actions, dimension, horizon, c)
        gamma = scale * steps * entropy_rate(actions, dimension, horizon, 1.0)
        return Rates(eta, 0.02 * scale * steps * eta, gamma)
    size = float(dimension * max(1, horizon))
    gamma, beta = size ** (-2 / 3), steps * size ** (-1 / 3)
    return Rates(min(gamma / (2 * steps), 3 * beta / (8 * steps**2)), beta, gamma)


def full_information_rate(tuning: str, actions: int, dimension: int, steps: int, horizon: int, c: float = 4.0) -> float:
    """eta of `FullInformationFTRL`: "practical" c sqrt(ln A/(dK)), "theory" sqrt(8 ln A/K)/H."""
    if tuning == "practical":
        return entropy_rate(actions, dimension, horizon, c)
    return math.sqrt(8.0 * math.log(max(2, actions)) / max(1, horizon)) / steps


class PolOpt(DilatedFTRL):
    """pi proportional to exp(-eta Cum). The theorem wants eta H/gamma <= 1/2, so that eta (Qhat - B) >= -1.

    Arguments as of `DilatedFTRL`.
    """

    def policy_of(self, cumulative: Tensor) -> Tensor:
        return soft_weights(cumulative, self.rates.eta)


class FullInformationFTRL(CumulativeLearner):
    """pi proportional to exp(-eta sum of Q), Q the exact Q function of the policy under the episode's revealed loss.

    Args:
        kernel: (H or 1, S, A, S); start: (S,); steps: H.
        eta: learning rate, at least 0.
        runs, seed, device, low, high: see `CumulativeLearner`.

    Feedback: terms["loss_table"], (R or 1, H, S, A).
    """

    def __init__(
        self, kernel: Tensor, start: Tensor, steps: int, eta: float, runs: int | Sequence[int] = 1, seed: int = 0,
        device: torch.device | str = "cpu", low: float = 0.0, high: float = 1.0,
    ) -> None:  # fmt: skip
        self.simulator = Simulator(kernel, start, steps, device)
        super().__init__(self.simulator.states, self.simulator.actions, steps, runs, seed, device, low, high)
        if not eta >= 0:
            reject("eta", "a number of at least 0", eta, "choose another one")
        self.eta = eta

    def _plan(self) -> Tensor:
        return soft_weights(self.cumulative, self.eta)

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        table = self.loss_table(feedback).expand(self.runs, -1, -1)
        self.cumulative += self.simulator.dynamic(table, policy).view(policy.shape)
