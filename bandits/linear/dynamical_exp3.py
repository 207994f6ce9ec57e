"""Exp3 and Batch-Exp3 as the experiments of "Dynamical Linear Bandits" run them (Mussi, Metelli, Restelli, ICML 2023).

Rewards y are mapped to (y + 2 M) / (4 M), M a bound on their size. Batch-Exp3 holds an action for as long as DynLin-UCB
does in its last epochs and learns from the batch's mean reward; the authors' released code adds to a batch the first
two rewards of the next action and credits all to that one (`replicate_misalignment`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.arm_learner import ArmLearner, Draws
from bandits.linear.arrays import Array, largest
from bandits.linear.dynamics import Dynamics, epochs_within
from orbs import Feedback, array, reject

__all__ = ["BatchExp3", "DynamicalExp3", "batch_length"]


def batch_length(spectral_radius: float, horizon: int) -> int:
    """Rounds that Batch-Exp3 holds an action: ceil(ln M / ln(1 / rho)) for M epochs of DynLin-UCB, at least 1."""
    if spectral_radius <= 0:
        return 1
    epochs = epochs_within(spectral_radius, horizon)
    return max(1, math.ceil(math.log(epochs) / math.log(1 / spectral_radius)))


class DynamicalExp3(ArmLearner):
    """p = (1 - gamma) softmax(eta G) + gamma / K, G_I += r' / p_I, eta = gamma / K.

    Args:
        arms: K.
        dynamics: what is known of the system: M is made of it.
        horizon: T; gamma = min(1, sqrt(K ln K / ((e - 1) 2 T / 3))).
        batch: rounds for which an action is held.
        replicate_misalignment: see the module; for batches of at least 2.
        runs, seed, device, low, high: as for `ArmLearner`.
    """

    name = "dynamical-exp3"

    def __init__(
        self, arms: int, dynamics: Dynamics, horizon: int, *, batch: int = 1, replicate_misalignment: bool = False,
        runs: int | Sequence[int] = 1, seed: int = 0, device: torch.device | str = "cpu", **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, device, **common)
        if horizon < 1 or batch < 1:
            reject("horizon, batch", "at least 1 round each", f"{horizon}, {batch}", "give numbers of rounds")
        self.batch, self.misaligned = batch, replicate_misalignment and batch > 1
        self.holds = batch > 1 and not self.misaligned
        self.gamma = min(1.0, math.sqrt(arms * math.log(arms) / ((math.e - 1) * 2 * (horizon / batch) / 3)))
        self.eta = self.gamma / arms
        size = dynamics.reward_size
        self._scale, self._shift = (1 / (4 * size), 0.5) if size > 0 else (0.0, 0.5)
        self.gains, self.total = self.zeros(arms), self.zeros()
        self.chance = torch.full((arms, self.runs), 1.0 / arms, dtype=torch.float64, device=self.device).mT
        self.arm = torch.zeros(self.runs, dtype=torch.int64, device=self.device)
        self._g, self._t, self._p = array(self.gains.mT), array(self.total), array(self.chance.mT)
        self._arm = array(self.arm)
        self._rows = array(torch.arange(arms, device=self.device).unsqueeze(1))
        self._draws = Draws(self.philox, f"{self.name}/arm")
        self._draw(0)

    def _draw(self, batch: int) -> None:
        """The arm of a batch, counted from 0."""
        above = self._p.cumsum(0)[:-1] <= array(self._draws(batch)[:, 0])  # the last arm takes the rest
        self._arm[:] = above.sum(0)

    def hold(self) -> int:
        return self.batch - self.rounds % self.batch if self.holds else 1

    def _choose(self, observation: Tensor | None) -> Tensor:
        return self.arm.clone()

    def _take(self, action: Tensor, reward: Tensor, feedback: Feedback) -> None:
        place, batch = self.rounds % self.batch, self.batch
        # Of rounds that were played at once, the sum.
        self._t += array(feedback.terms.get("total", reward))
        if place == (1 if self.misaligned else batch - 1):
            played = self._rows == array(action)
            self._learn(played, self._t * (self._scale / batch) + self._shift)
            self._t[:] = 0.0
        if place == batch - 1:
            self._draw((self.rounds + 1) // batch)

    def _learn(self, played: Array, reward: Array) -> None:
        self._g += played * reward / self._p
        weight = self.eta * (self._g - largest(self._g))
        weight = weight.exp() if isinstance(weight, Tensor) else math.e**weight
        self._p[:] = (1 - self.gamma) / weight.sum(0) * weight + self.gamma / self.arms

    def _tensors(self) -> dict[str, Tensor]:
        return {"gains": self.gains, "total": self.total, "chance": self.chance, "arm": self.arm}


class BatchExp3(DynamicalExp3):
    """Exp3 over batches of `batch_length` rounds."""

    name = "batch-exp3"

    def __init__(self, arms: int, dynamics: Dynamics, horizon: int, **given: Any) -> None:
        given.setdefault("batch", batch_length(dynamics.spectral_radius, max(horizon, 1)))
        super().__init__(arms, dynamics, horizon, **given)
