"""Dilated bonuses (Luo, Wei and Lee, arXiv 2107.08346): B_h = b_h + (1 + 1/H) E[B_{h+1}(s', a')], B_H = 0.

A policy that does well against Q - B pays at most 3 V(b) for it: a step's bonus weighs 1/H more at each step before.
Three ways to B: `exact` with the kernel; `sample`, unbiased, one draw of (s', a') for each step and pair; `regress`,
for linear MDPs without a simulator, from episodes that were played.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.mdp.linear_features import LinearFeatures
from bandits.mdp.occupancy import Simulator
from orbs import Philox

__all__ = ["DilatedBonus", "bonus_to_go", "dilate_by_draws", "local_bonus", "regressed_bonus"]


def local_bonus(norms: Tensor, policy: Tensor, beta: float) -> Tensor:
    """(R, H, S A): beta (|phi(s, a)|^2 + E_{j ~ policy(s)} |phi(s, j)|^2).

    norms (R, H, S A), squared, in the estimated inverse covariance; policy (R, H, S, A). At most 2 beta/gamma.
    """
    tables = norms.view(policy.shape)
    return (tables + (tables * policy).sum(-1, keepdim=True)).mul_(beta).view(norms.shape)


def dilate_by_draws(local: Tensor, successors: Tensor, factor: float) -> Tensor:
    """(R, H, S A): B from local bonuses (R, H, S A) and one next pair (R, H - 1, S A) for each step and pair.

    The same draw of a pair serves all that reach it: unbiased, since a draw is independent of those of later steps.
    """
    found = local.clone()
    for h in range(local.shape[1] - 2, -1, -1):
        found[:, h].add_(found[:, h + 1].gather(1, successors[:, h]), alpha=factor)
    return found


def bonus_to_go(local: Tensor, factor: float) -> Tensor:
    """(R, W, H): D_h = sum_{i > h} factor^(i - h) b_i, of local bonuses (R, W, H) along trajectories."""
    steps = local.shape[-1]
    away = torch.arange(steps, device=local.device)
    away = away.unsqueeze(-1) - away
    powers = torch.where(away > 0, factor ** away.to(local.dtype), 0.0)
    return local @ powers


def regressed_bonus(
    local: Tensor, pairs: Tensor, share: Tensor, inverse: Tensor, features: LinearFeatures, factor: float
) -> Tensor:
    """(R, H, S A): B = b + phi^T Lambda_h, Lambda_h = inverse_h mean phi_h D_h over a share of the episodes.

    Args:
        local: (R, H, S A), b.
        pairs: (R, W, H) int64, of W episodes.
        share: (R, W), weights of the episodes in the mean, with sum 1; independent of `inverse`.
        inverse: (R, H, d, d), of the regularised covariance.
        features: of the problem.
        factor: 1 + 1/H.
    """
    along = local.gather(2, pairs.transpose(1, 2)).transpose(1, 2)
    to_go = bonus_to_go(along, factor) * share.unsqueeze(-1)
    mean = torch.einsum("rwhd,rwh->rhd", features.visited(pairs), to_go)
    return local + features.linear((inverse @ mean.unsqueeze(-1)).squeeze(-1))


class DilatedBonus:
    """B by "exact" or "sample", for the policy of each episode.

    Args:
        how: "exact" or "sample".
        simulator: of the problem.
        philox: of the learner; numbers are functions of (seed, run, round).
        factor: 1 + 1/H if None.
    """

    def __init__(self, how: str, simulator: Simulator, philox: Philox, factor: float | None = None) -> None:
        self.simulator, self.factor = simulator, 1.0 + 1.0 / simulator.steps if factor is None else factor
        count = 2 * (simulator.steps - 1) * simulator.pairs if how == "sample" else 0
        self._draws = Draws(philox, "dilated-ftrl/bonus", count) if count else None

    def __call__(self, local: Tensor, policy: Tensor, round: int) -> Tensor:
        """(R, H, S A) from local bonuses (R, H, S A) and the policy (R, H, S, A) of an episode, counted from 0."""
        if self._draws is None:
            return self.simulator.dynamic(local, policy, self.factor)
        return dilate_by_draws(local, self.simulator.successors(policy, self._draws(round)), self.factor)
