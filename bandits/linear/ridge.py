"""Ridge regression over K fixed arms, a round at a time: each arm's mean and width at the cost of a rank-one update.

What was learned are the counts and the sums of rewards of each arm, which never drift; what a round reads is updated by
Sherman and Morrison's formula and computed anew from the former every `rebuild` rounds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bandits.linear import arrays
from bandits.linear.cholesky import factor, log_determinant, solve_lower, solve_upper
from orbs import reject

__all__ = ["FixedArmRidge", "checked_features", "first_best", "gram"]

TIES = 1e-10  # of scores, relative to what is larger than 1

EARLY = 16  # the first rounds, at least 2 d of them, shrink 1 / lam to order 1: the digits that this costs are restored


def first_best(score: Tensor) -> Tensor:
    """(R,) int64, the lowest index among the scores (R, K) that are at least max - 1e-10 max(1, |max|).

    Scores that are equal but for rounding are ties, so that arms depend neither on the device nor on the layout.
    """
    found: Tensor = arrays.first_best(score.mT, TIES)
    return found


def checked_features(features: Tensor, runs: int, device: torch.device | str) -> Tensor:
    """A copy (K, d, 1), or (K, d, R) of features a run, float64, runs last in memory.

    Raises:
        ValueError: neither (K, d) nor (R, K, d), or a number that is not finite.
    """
    if features.ndim not in (2, 3) or 0 in features.shape or (features.ndim == 3 and len(features) != runs):
        given = f"shape {tuple(features.shape)}"
        reject("features", f"shape (K, d) or ({runs}, K, d)", given, "give one row an arm")
    if not torch.isfinite(features).all():
        reject("features", "finite numbers", "a NaN or inf", "mend the features of the arms")
    own = features.to(device=device, dtype=torch.float64, copy=True)
    return own.unsqueeze(-1) if own.ndim == 2 else own.permute(1, 2, 0).contiguous()


def gram(features: Tensor, weight: Tensor) -> Tensor:
    """(d, d, R) sum_k w_k u_k u_k^T, of features (K, d, 1 or R) and weights (K, R)."""
    arms, d = features.shape[:2]
    if features.shape[-1] == 1:
        row = features[..., 0]
        squares = (row.unsqueeze(1) * row.unsqueeze(2)).view(arms, d * d)
        return (squares.mT @ weight).view(d, d, -1)
    found = torch.zeros(d, d, weight.shape[1], dtype=weight.dtype, device=weight.device)
    for row, own in zip(features, weight, strict=True):
        found.addcmul_((row * own).unsqueeze(0), row.unsqueeze(1))
    return found


class FixedArmRidge:
    """theta = V^-1 b with V = lam I + sum u u^T, b = sum u y over the rounds so far, of R runs; K arms u_k.

    With few arms (K^2 <= d^2 + K d) the state is in the space of scores: P = U V^-1 U^T (K, K, R), whose column of the
    played arm is all that a round needs. Else V^-1 (d, d, R) is kept, and a round multiplies by the arms.

    Widths against a fresh Cholesky solve, one arm dominating for 10^5 rounds, lam = 1, d = 3 and 10: relative errors of
    5e-13 with a rebuild every 100 rounds, 8e-13 every 1000; without one 2e-13 in the first form, 2e-10 in the second.
    After 10^6 rounds, d = 10, with a rebuild every 100: 1e-12.

    Args:
        features: (K, d), or (R, K, d) of each run's own.
        lam: weight of the ridge, above 0.
        runs: R.
        device: where everything lies.
        rebuild: rounds between two computations from the counts and sums.
        score_space: which of the two forms; None chooses.

    Attributes:
        plays, sums: (R, K) how often each arm was played, and the sum of its rewards.
        rounds: added so far.
    """

    def __init__(
        self,
        features: Tensor,
        lam: float,
        runs: int,
        device: torch.device | str = "cpu",
        rebuild: int = 100,
        score_space: bool | None = None,
    ) -> None:
        if not 0 < lam < float("inf"):
            reject("lam", "a finite number above 0", lam, "e.g. lam=1.0")
        if rebuild < 1:
            reject("rebuild", "at least 1 round", rebuild, "e.g. rebuild=100")
        self.features = checked_features(features, runs, device)
        self.lam, self.runs, self.device, self.rebuild = float(lam), runs, torch.device(device), rebuild
        self.arms, self.dimension = self.features.shape[:2]
        products = self.dimension * (self.dimension + self.arms)
        self.score_space = self.arms**2 <= products if score_space is None else score_space

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, runs, dtype=torch.float64, device=self.device)

        self._plays, self._sums, self._gain = zeros(self.arms), zeros(self.arms), zeros()
        self._means = zeros(self.arms)
        size = self.arms if self.score_space else self.dimension
        self._inverse = zeros(size, size)  # U V^-1 U^T, or V^-1
        self._squares = self._inverse.diagonal(dim1=0, dim2=1).mT if self.score_space else zeros(self.arms)
        self._lanes = torch.arange(runs, device=self.device)
        self._rows = torch.arange(size, device=self.device).unsqueeze(-1) * runs + self._lanes
        self._early = max(EARLY, 2 * features.shape[-1])
        self.rounds = 0
        self._renew()

    @property
    def plays(self) -> Tensor:
        return self._plays.mT

    @property
    def sums(self) -> Tensor:
        return self._sums.mT

    @property
    def means(self) -> Tensor:
        """(R, K) <theta, u_k>."""
        return self._means.mT

    @property
    def widths2(self) -> Tensor:
        """(R, K) u_k^T V^-1 u_k."""
        return self._squares.mT

    @property
    def log_volume(self) -> Tensor:
        """(R,) ln det V - d ln lam."""
        return self._gain

    def precision(self) -> Tensor:
        """(R, d, d) V, from the counts."""
        return self._precision().permute(2, 0, 1)

    def theta(self) -> Tensor:
        """(R, d) V^-1 b, solved anew."""
        return self._solved(factor(self._precision())).mT

    def add(self, arm: Tensor, reward: Tensor) -> None:
        """Learn from a round: arms (R,) int64 and their rewards (R,)."""
        self.rounds += 1
        self._count(arm, reward, 1.0)
        if self.rounds <= self._early or self.rounds % self.rebuild == 0:
            self._renew()
        else:
            self._update(arm, reward, 1.0)

    def remove(self, arm: Tensor, reward: Tensor) -> None:
        """Forget an earlier round. 1 - u^T V^-1 u, which a removal divides by, is at least lam / (lam + |u|^2)."""
        self._count(arm, reward, -1.0)
        self._update(arm, reward, -1.0)

    def recount(self, arm: Tensor, reward: Tensor) -> None:
        """Anew from the rounds that are to count, arms and rewards (n, R)."""
        self._plays.zero_().scatter_add_(0, arm, torch.ones_like(reward))
        self._sums.zero_().scatter_add_(0, arm, reward)
        self._renew()

    def _count(self, arm: Tensor, reward: Tensor, sign: float) -> None:
        one = arm.unsqueeze(0)
        self._plays.scatter_add_(0, one, torch.full_like(reward, sign).unsqueeze(0))
        self._sums.scatter_add_(0, one, (reward if sign > 0 else -reward).unsqueeze(0))

    def _update(self, arm: Tensor, reward: Tensor, sign: float) -> None:
        """Sherman-Morrison with + u u^T or - u u^T."""
        one = arm.unsqueeze(0)
        if self.score_space:
            place = self._rows + arm * (self.arms * self.runs)  # the column as a row: the matrix is symmetric
            column = self._inverse.view(-1).index_select(0, place.view(-1)).view(self.arms, -1)
            own = column.gather(0, one)
            share = column / (1.0 + sign * own)
            self._inverse.addcmul_(share.unsqueeze(0), column.unsqueeze(1), value=-sign)
        else:
            direction = (self._inverse * self.row(arm)).sum(1)  # V^-1 u
            column = self._products(direction)
            own = column.gather(0, one)
            share = column / (1.0 + sign * own)
            self._squares.addcmul_(share, column, value=-sign)
            part = direction / (1.0 + sign * own)
            self._inverse.addcmul_(part.unsqueeze(0), direction.unsqueeze(1), value=-sign)
        self._means.addcmul_(share, reward - self._means.gather(0, one), value=sign)
        self._gain += (sign * own[0]).log1p()

    def reset(self) -> None:
        """Forget all rounds."""
        self._plays.zero_()
        self._sums.zero_()
        self.rounds = 0
        self._renew()

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, each with a leading axis of runs, to be saved or filled in place; then call `loaded`."""
        state = {"plays": self._plays.mT, "sums": self._sums.mT, "means": self._means.mT, "log_volume": self._gain}
        state["inverse"] = self._inverse.permute(2, 0, 1)
        return state if self.score_space else {**state, "widths2": self._squares.mT}

    def loaded(self, rounds: int) -> None:
        """After a state of so many rounds has been filled in."""
        self.rounds = rounds

    def _precision(self) -> Tensor:
        matrix = gram(self.features, self._plays)
        matrix.diagonal(dim1=0, dim2=1).add_(self.lam)
        return matrix

    def _solved(self, lower: Tensor) -> Tensor:
        """theta (d, R)."""
        target = (self.features * self._sums.unsqueeze(1)).sum(0)
        return solve_upper(lower, solve_lower(lower, target.unsqueeze(1))).squeeze(1)

    def row(self, arm: Tensor) -> Tensor:
        """(d, R) the features of each run's arm."""
        if self.features.shape[-1] == 1:
            return self.features[:, :, 0].mT.index_select(1, arm)
        return self.features.gather(0, arm.expand(1, self.dimension, -1)).squeeze(0)

    def _products(self, vector: Tensor) -> Tensor:
        """(K, R) <u_k, v> of v (d, R)."""
        return (self.features * vector).sum(1)

    def _renew(self) -> None:
        """The working state from the counts and sums, by a fresh factorisation."""
        lower = factor(self._precision())
        right = self.features.transpose(0, 1)
        half = solve_lower(lower, right.expand(-1, -1, self.runs))  # L^-1 U^T
        if self.score_space:
            self._inverse.zero_()
            for row in half:
                self._inverse.addcmul_(row.unsqueeze(0), row.unsqueeze(1))
        else:
            unit = torch.eye(self.dimension, dtype=torch.float64, device=self.device).unsqueeze(-1)
            whole = solve_lower(lower, unit.expand(-1, -1, self.runs))
            self._inverse.zero_()
            for row in whole:
                self._inverse.addcmul_(row.unsqueeze(0), row.unsqueeze(1))
            self._squares.copy_((half * half).sum(0))
        self._means.copy_(self._products(self._solved(lower)))
        self._gain.copy_(log_determinant(lower) - self.dimension * math.log(self.lam))
