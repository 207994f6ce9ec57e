"""A plan that never changes: the human expert of the advertising system of "Dynamical Linear Bandits"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandits.base import FOREVER, Learner
from orbs import Feedback, reject, runs_last

__all__ = ["FixedPlan"]


class FixedPlan(Learner):
    """Plays one and the same point (d,) in every round, and learns nothing.

    Args:
        plan: (d,), finite.
        runs, device: as for `Learner`.
    """

    holds = True

    def __init__(self, plan: Any, runs: int | Sequence[int] = 1, device: torch.device | str = "cpu") -> None:
        super().__init__(runs, device)
        given = torch.as_tensor(plan, dtype=torch.float64, device=self.device)
        if given.ndim != 1 or not bool(torch.isfinite(given).all()):
            reject("plan", "finite numbers (d,)", plan, "give one a coordinate")
        self._points = runs_last(given.expand(self.runs, -1))

    def act(self, observation: Tensor | None = None) -> Tensor:
        """(R, d) the plan."""
        return self._points

    def observe(self, action: Tensor, feedback: Feedback | Tensor) -> None:
        self.rounds += 1

    def hold(self) -> int:
        return FOREVER

    def _tensors(self) -> dict[str, Tensor]:
        return {}
