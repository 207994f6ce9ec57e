"""UCB1 and its variants that know the variance: play the arm of the largest mean + bonus.

UCB1 and UCB1-Tuned: Auer, Cesa-Bianchi, Fischer (Machine Learning 47, 2002). UCB-V: Audibert, Munos, Szepesvari
(Theoretical Computer Science 410, 2009), with their zeta = c = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.multi_armed.arm_means import IndexLearner, log_horizon
from orbs import Feedback

__all__ = ["UCB1", "UCBV", "UCBTuned", "ucb1_index", "ucb_tuned_index", "ucbv_index"]


def ucb1_index(mean: Tensor, plays: Tensor, log_time: float, scale: float = 1.0) -> Tensor:
    """(R, K) mean + scale sqrt(2 log_time / plays); infinite where an arm was not played."""
    # Not by infinity alone: without noise the scale is 0, and 0 times infinity no number.
    return torch.where(plays > 0, mean + scale * (2.0 * log_time / plays).sqrt(), math.inf)


def ucb_tuned_index(mean: Tensor, variance: Tensor, plays: Tensor, log_time: float) -> Tensor:
    """(R, K) mean + sqrt(l min(1/4, variance + sqrt(2 l))), l = log_time / plays; infinite where not played."""
    ratio = log_time / plays
    return mean + (ratio * (variance + (2.0 * ratio).sqrt()).clamp_max(0.25)).sqrt()


def ucbv_index(mean: Tensor, variance: Tensor, plays: Tensor, log_time: float) -> Tensor:
    """(R, K) mean + sqrt(2 variance l) + 3 l, l = log_time / plays; infinite where an arm was not played."""
    ratio = log_time / plays
    return torch.where(plays > 0, mean + (2.0 * variance * ratio).sqrt() + 3.0 * ratio, torch.inf)


class UCB1(IndexLearner):
    """Each arm once in index order, then argmax m + scale sqrt(2 ln t / n).

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`; with a finite range rewards are moved into
            [0, 1].
        scale: 1 is Hoeffding's for [0, 1]; sigma for Gaussian rewards in the released code of Dynamical Linear Bandits.
        horizon: ln T in place of ln t (Slivkins' book) where it is given.
    """

    label: ClassVar[str] = "ucb1"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, scale: float = 1.0,
        horizon: int | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        self.scale, self.log_horizon = scale, log_horizon(horizon)

    def _index(self) -> Tensor:
        log = self.log_round if self.log_horizon is None else max(self.log_horizon, 1e-300)
        return ucb1_index(self.means, self.plays, log, self.scale)


class _Variances(IndexLearner):
    """Also keeps the sums of squares, of rewards in a declared range alone."""

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self._need_range(self.label)
        self.squares = self.zeros(arms)

    @property
    def variances(self) -> Tensor:
        """(R, K) of the rewards seen (divided by n), 0 where the arm was not played."""
        return (self.squares / self.plays.clamp_min(1.0) - self.means.square()).clamp_min(0.0)

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        moved = self.moved(reward)
        self._count(action, moved)
        self.squares.scatter_add_(1, action.unsqueeze(1), moved.square().unsqueeze(1))

    def _tensors(self) -> dict[str, Tensor]:
        return {**super()._tensors(), "squares": self.squares}


class UCBTuned(_Variances):
    """UCB1-Tuned: argmax m + sqrt((ln t / n) min(1/4, variance + sqrt(2 ln t / n))). Arguments of `IndexLearner`."""

    label: ClassVar[str] = "ucb1-tuned"

    def _index(self) -> Tensor:
        return ucb_tuned_index(self.means, self.variances, self.plays, self.log_round)


class UCBV(_Variances):
    """UCB-V: argmax m + sqrt(2 variance ln t / n) + 3 ln t / n. Arguments of `IndexLearner`."""

    label: ClassVar[str] = "ucb-v"

    def _index(self) -> Tensor:
        return ucbv_index(self.means, self.variances, self.plays, self.log_round)
