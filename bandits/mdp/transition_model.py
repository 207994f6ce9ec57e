"""Ridge regression of next states on features, by sufficient statistics, and its bonuses (arXiv:1907.05388).

The regression of f(s') for any f is Lambda^-1 N f with Lambda = ridge I + sum phi phi^T, N = sum phi e_{s'}^T: the rows
of Lambda^-1 N are signed weights on the states, the same numbers as a weight for every past episode, whatever their
number. Episodes cost O(H d^2 + H d S) a run: the inverse is updated by a matrix of rank one, and computed anew every
`REFRESH` episodes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["REFRESH", "TransitionModel", "diagonal_bonus", "elliptical_bonus", "mix", "script_bonus", "theory_beta"]

REFRESH = 256


def mix(features: Tensor, each: Tensor) -> Tensor:
    """(R, H, S A) <phi, x> from features (1|R, 1|H, S A, d) and x (R, H, d)."""
    if len(features) > 1:
        return (features @ each.unsqueeze(-1)).squeeze(-1)
    if features.shape[1] == 1:
        return each @ features[0, 0].mT
    return (each.transpose(0, 1) @ features[0].mT).transpose(0, 1)


def diagonal_bonus(inverse: Tensor) -> Tensor:
    """(R, H, d) sqrt((Lambda^-1)_ii): mixed by the features, the bonus sum_i phi_i sqrt((Lambda^-1)_ii)."""
    return inverse.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()


def script_bonus(features: Tensor, inverse: Tensor) -> Tensor:
    """(R, H, S A) sqrt(sum_i phi_i^2 (Lambda^-1)_ii), at most the former; features (1|R, 1|H, S A, d)."""
    return mix(features * features, inverse.diagonal(dim1=-2, dim2=-1)).clamp_min(0.0).sqrt()


def elliptical_bonus(features: Tensor, inverse: Tensor) -> Tensor:
    """(R, H, S A) sqrt(phi^T Lambda^-1 phi); features (1|R, 1|H, S A, d)."""
    return ((features @ inverse) * features).sum(-1).clamp_min(0.0).sqrt()


def theory_beta(
    divergence: str | None,
    form: str,
    dimension: int,
    steps: int,
    episodes: int,
    level: float = 1.0,
    delta: float = 0.05,
    offline: bool = False,
) -> float:
    """The bonus's factor in the theorems, up to their constants: with it every Q is at its cap for long.

    Online total variation, and no set at all: d H sqrt(log(3 d H K / delta)) (2402.15399, its order); offline
    constrained sets 4 sqrt(d) H sqrt(log(2 d H^2 K / delta)) (2403.09621). Regularised sets of weight lam, with
    xi = log(1024 H sqrt(d) K^2 / delta): TV 16 H d sqrt(xi), KL 16 d lam e^(H/lam) sqrt(H/lam + xi), chi2
    8 d H^2 (1 + 1/lam) sqrt(xi) (2411.18612, as recalled). Constrained KL and chi2 take that of total variation.
    """
    d, h, k = dimension, steps, max(episodes, 1)
    xi = math.log(1024 * h * math.sqrt(d) * k * k / delta)
    if divergence is not None and form == "regularised":
        if divergence == "tv":
            return 16 * h * d * math.sqrt(xi)
        if divergence == "kl":
            return 16 * d * level * math.exp(min(h / level, 300.0)) * math.sqrt(h / level + xi)
        return 8 * d * h * h * (1 + 1 / level) * math.sqrt(xi)
    if offline:
        return 4 * math.sqrt(d) * h * math.sqrt(math.log(2 * d * h * h * k / delta))
    return d * h * math.sqrt(math.log(3 * d * h * k / delta))


class TransitionModel:
    """What R runs know of the H steps' transitions.

    Args:
        features: (1|R, 1|H, S, A, d).
        runs, steps: R, H.
        ridge: what Lambda starts from, times the identity; above 0.
        pays: whether to keep sum phi r, for the regression of rewards.

    Attributes:
        gram: (R, H, d, d) Lambda; inverse: its inverse; moves: (R, H, d, S) N; pays: (R, H, d) sum phi r, or None.
        growth: (R, H) by how much log det Lambda has grown since it was last set to 0.
        table: (1|R, 1|H, S A, d) the features.
    """

    def __init__(self, features: Tensor, runs: int, steps: int, ridge: float, pays: bool) -> None:
        self.states, self.actions, self.dimension = (int(n) for n in features.shape[2:])
        self.table = features.flatten(2, 3).contiguous()
        self.ridge, self.runs, self.steps = ridge, runs, steps
        d, device = self.dimension, features.device
        eye = torch.eye(d, dtype=torch.float64, device=device)
        self.gram = (ridge * eye).repeat(runs, steps, 1, 1)
        self.inverse = (eye / ridge).repeat(runs, steps, 1, 1)
        self.moves = torch.zeros(runs, steps, d, self.states, dtype=torch.float64, device=device)
        self.pays = torch.zeros(runs, steps, d, dtype=torch.float64, device=device) if pays else None
        self.growth = torch.zeros(runs, steps, dtype=torch.float64, device=device)
        # Where in the flat table a run's and a step's features begin.
        size, (by_run, by_step) = self.states * self.actions, self.table.shape[:2]
        steps_at = size * (torch.arange(steps, device=device) if by_step > 1 else torch.zeros(1, dtype=torch.int64))
        runs_at = size * by_step * (torch.arange(runs, device=device) if by_run > 1 else torch.zeros(1).long())
        self._begin = runs_at.to(device).unsqueeze(-1) + steps_at.to(device)
        self._flat = self.table.flatten(0, 2)

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs."""
        found = {"gram": self.gram, "inverse": self.inverse, "moves": self.moves, "growth": self.growth}
        return found if self.pays is None else {**found, "pays": self.pays}

    def learn(self, states: Tensor, actions: Tensor, rewards: Tensor, round: int) -> None:
        """Take in an episode: states (R, H + 1) and actions (R, H), int64, rewards (R, H); its number, from 0."""
        phi = self._flat[states[:, :-1] * self.actions + actions + self._begin]
        column, d = phi.unsqueeze(-1), self.dimension
        toward = self.inverse @ column
        share = 1.0 + (toward * column).sum((-2, -1))
        flat = toward.view(-1, d, 1)
        self.gram.view(-1, d, d).baddbmm_(column.view(-1, d, 1), column.view(-1, 1, d))
        self.inverse.view(-1, d, d).baddbmm_(flat, (flat / share.view(-1, 1, 1)).mT, alpha=-1)
        self.growth += share.log()
        self.moves.scatter_add_(3, states[:, 1:, None, None].expand(-1, -1, d, 1), column)
        if self.pays is not None:
            self.pays += phi * rewards.unsqueeze(-1)
        if round % REFRESH == REFRESH - 1:
            self.inverse.copy_(torch.linalg.inv_ex(self.gram).inverse)  # inv would wait for the device

    def learn_all(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Take in N episodes at once: states (R, N, H + 1) and actions (R, N, H), int64, rewards (R, N, H)."""
        phi = self._flat[states[..., :-1] * self.actions + actions + self._begin.unsqueeze(1)].transpose(1, 2)
        before = torch.linalg.slogdet(self.gram).logabsdet
        self.gram += phi.mT @ phi
        self.growth += torch.linalg.slogdet(self.gram).logabsdet - before
        self.inverse.copy_(torch.linalg.inv(self.gram))
        reached = torch.nn.functional.one_hot(states[..., 1:], self.states).double().transpose(1, 2)
        self.moves += phi.mT @ reached
        if self.pays is not None:
            self.pays += (phi * rewards.transpose(1, 2).unsqueeze(-1)).sum(2)

    def weights(self) -> Tensor:
        """(R, H, d, S) the signed weights Lambda^-1 N."""
        return self.inverse @ self.moves

    def pay_weights(self) -> Tensor:
        """(R, H, d) the regression of rewards, Lambda^-1 sum phi r."""
        assert self.pays is not None
        return (self.inverse @ self.pays.unsqueeze(-1)).squeeze(-1)
