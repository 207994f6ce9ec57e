"""Learners of the arms' mean rewards: plays and means of each arm, and rules that play the arm of the largest index."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner, Draws, log_or_zero
from orbs import Feedback, reject

__all__ = ["ArmMeans", "IndexLearner"]


class ArmMeans(ArmLearner):
    """Keeps n (R, K), plays, and s (R, K), sums of rewards; with a declared range, of rewards moved into [0, 1]."""

    def __init__(self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, **common: Any) -> None:
        super().__init__(arms, runs, seed, **common)
        self.plays, self.sums = self.zeros(arms), self.zeros(arms)

    @property
    def means(self) -> Tensor:
        """(R, K), 0 where the arm was not played."""
        return self.sums / self.plays.clamp_min(1.0)

    def moved(self, reward: Tensor) -> Tensor:
        """(R,) the reward as it is learned from: in [0, 1] where its range is declared."""
        return self.unit(reward) if self.bounded else reward

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        self._count(action, self.moved(reward))

    def _count(self, action: Tensor, reward: Tensor) -> None:
        """One play of an arm (R,) and its moved reward (R,)."""
        arm = action.unsqueeze(1)
        self.plays.scatter_add_(1, arm, torch.ones_like(reward).unsqueeze(1))
        self.sums.scatter_add_(1, arm, reward.unsqueeze(1))

    def _need_range(self, name: str) -> None:
        """Refuse rewards without a declared range."""
        if not self.bounded:
            given = f"[{self.low:g}, {self.high:g}]"
            reject(name, "rewards in a declared range", given, "state low and high, or choose another learner")

    def _tensors(self) -> dict[str, Tensor]:
        return {"plays": self.plays, "sums": self.sums}


class IndexLearner(ArmMeans):
    """Plays the arm of the largest index; an arm that was never played has an infinite one.

    Args:
        arms, runs, seed, device, low, high: as for `ArmLearner`.
        ties: "lowest", the arm of the lowest number, or "random", one of the best drawn uniformly (also among the
            arms not played yet, which come in index order otherwise).
    """

    label: ClassVar[str] = "index"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, ties: str = "lowest", **common: Any
    ) -> None:
        super().__init__(arms, runs, seed, **common)
        if ties not in ("lowest", "random"):
            reject("ties", "'lowest' or 'random'", repr(ties), "choose one")
        self._luck = Draws(self.philox, f"{self.label}/ties", arms) if ties == "random" else None

    def best(self, index: Tensor, luck: int | None = None) -> Tensor:
        """(R,) int64 the arm of the largest index (R, K), ties as stated, by a round's luck, the coming's if None."""
        top = index.max(-1, keepdim=True)
        if self._luck is None:
            return top.indices.squeeze(-1)
        return torch.where(index == top.values, self._luck(self.rounds if luck is None else luck), -1.0).max(-1).indices

    @property
    def log_round(self) -> float:
        """ln t of the round to come, a trace above 0 in the first, so that an arm without plays has no 0 / 0."""
        return max(log_or_zero(self.rounds + 1), 1e-300)

    @abstractmethod
    def _index(self) -> Tensor:
        """(R, K) of the round to come, infinite where an arm was not played."""

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self.best(self._index())


def log_horizon(horizon: int | None) -> float | None:
    """ln T, None where no horizon is given.

    Raises:
        ValueError: a horizon without rounds.
    """
    if horizon is not None and horizon < 1:
        reject("horizon", "at least 1 round", horizon, "give the number of rounds, or None for the round's own")
    return None if horizon is None else math.log(horizon)
