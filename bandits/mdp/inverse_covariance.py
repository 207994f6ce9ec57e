"""Estimates of (gamma I + Sigma)^{-1}, the inverse covariance of the features that a policy meets at a step.

Three ways: `exact` from the occupancies; `direct`, with the mean over simulated trajectories in place of Sigma (Dai et
al., arXiv 2301.12942); `mgr`, matrix geometric resampling (Neu and Olkhovskaya, arXiv 2002.00287): a chain of N fresh
trajectories gives c I + c sum_n Z_n, Z_n = prod_{j <= n} (I - c (gamma I + phi_j phi_j^T)), and M chains are averaged.
Its mean is (gamma I + Sigma)^{-1} [I - (I - c (gamma I + Sigma))^{N+1}] and each chain's norm is at most 1/gamma. The
counts of the theory (M >= 24 ln(dHK)/(eps gamma)^2) are beyond use.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.mdp.linear_features import LinearFeatures
from bandits.mdp.occupancy import Simulator
from orbs import Philox, reject

__all__ = ["InverseCovariance", "floored", "geometric_resampling", "regularised_inverse", "resampling_length"]


def regularised_inverse(covariance: Tensor, gamma: float | Tensor) -> Tensor:
    """(..., d, d): (gamma I + covariance)^{-1}, symmetric; gamma a number, or gamma I itself (d, d)."""
    if not isinstance(gamma, Tensor):
        gamma = gamma * torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    # inv would look for failures, which waits for a device.
    inverse: Tensor = torch.linalg.inv_ex(covariance + gamma).inverse
    return inverse.mT  # the solver's answer lies in memory column by column: its transpose is contiguous


def resampling_step(gamma: float, bound: float = 1.0) -> float:
    """c: 1/2, or less where features longer than 1 (or gamma above 1) would make I - c (gamma I + phi phi^T) expand."""
    return min(0.5, 1.0 / (gamma + bound**2))


def resampling_length(gamma: float, bound: float = 1.0) -> int:
    """N = ceil(ln(1/gamma)/(c gamma)), (2/gamma) ln(1/gamma) with c = 1/2; at least 1."""
    return max(1, math.ceil(math.log(1.0 / gamma) / (resampling_step(gamma, bound) * gamma)))


def geometric_resampling(features: Tensor, gamma: float, step: float = 0.5) -> Tensor:
    """(..., d, d): a chain of matrix geometric resampling, not symmetric.

    Args:
        features: (N, ..., d), those met on N independent trajectories.
        gamma: what is added to the covariance, times the identity.
        step: c.
    """
    length = features.shape[-1]
    product: Tensor = torch.eye(length, dtype=features.dtype, device=features.device).expand(
        *features.shape[1:], length
    )
    total: Tensor = product * step
    shrink = 1.0 - step * gamma
    for phi in features:
        row = phi.unsqueeze(-2) @ product
        product = (product * shrink).addcmul_(phi.unsqueeze(-1), row, value=-step)
        total.add_(product, alpha=step)
    return total


def floored(matrix: Tensor) -> Tensor:
    """(..., d, d): a symmetric matrix with its negative eigenvalues set to 0. On CUDA it waits for the device."""
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(matrix))
    return (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT


class InverseCovariance:
    """One of the three ways, for the policy of each episode.

    Args:
        how: "exact", "direct" or "mgr".
        simulator, features: of the problem.
        gamma: above 0.
        philox: of the learner; numbers are functions of (seed, run, round).
        trajectories: of an episode, for "direct".
        chains, length: M and N, for "mgr"; N by `resampling_length` if None.
    """

    def __init__(
        self, how: str, simulator: Simulator, features: LinearFeatures, gamma: float, philox: Philox,
        trajectories: int = 256, chains: int = 16, length: int | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("trajectories", trajectories), ("chains", chains), ("length", length)):
            if value is not None and value < 1:
                reject(name, "at least 1", value, "give a positive number")
        self.how, self.simulator, self.features, self.gamma = how, simulator, features, gamma
        self.chains = chains
        self._ridge = gamma * torch.eye(features.dimension, dtype=torch.float64, device=features.table.device)
        self.length = resampling_length(gamma, features.bound) if length is None else length
        count = {"exact": 0, "direct": trajectories, "mgr": chains * self.length}[how]
        self._draws = Draws(philox, f"dilated-ftrl/{how}", 2 * count * simulator.steps) if count else None

    def __call__(self, policy: Tensor, round: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The estimate (R, H, d, d), symmetric, and what norms are taken in: itself, or without negative eigenvalues.

        Args:
            policy: (R, H, S, A).
            round: of the episode, counted from 0.
            weights: `simulator.weights(policy)`, where they are known already.
        """
        if self._draws is None:
            weights = self.simulator.weights(policy) if weights is None else weights
        elif self.how == "direct":
            weights = self.simulator.frequencies(policy, self._draws(round))
        if self._draws is None or self.how == "direct":
            assert weights is not None
            exact = regularised_inverse(self.features.covariance(weights), self._ridge)
            return exact, exact
        pairs = self.simulator.simulate(policy, self._draws(round))
        met = self.features.visited(pairs.view(-1, self.chains, self.length, pairs.shape[-1])).movedim(2, 0)
        mean = geometric_resampling(met, self.gamma, resampling_step(self.gamma, self.features.bound)).mean(1)
        mean = 0.5 * (mean + mean.mT)
        return mean, floored(mean)
