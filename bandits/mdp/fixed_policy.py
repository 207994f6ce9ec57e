"""A policy that never changes: the reference policy, or the best one as an oracle. It learns nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.mdp.base import PolicyLearner
from orbs import Feedback

__all__ = ["FixedPolicy"]


class FixedPolicy(PolicyLearner):
    """Plays one policy for good.

    Args:
        states, actions, steps: S, A, H.
        policy: (S, A), (H, S, A) or (R, H, S, A), rows of chances; None: uniform.
        runs, seed, device: see `PolicyLearner`.

    Raises:
        ValueError: a policy of another shape, or whose rows are no distributions.
    """

    def __init__(
        self,
        states: int,
        actions: int,
        steps: int,
        policy: Tensor | None = None,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(states, actions, steps, runs, seed, device)
        self.policy = self.uniform() if policy is None else self.checked("policy", policy)

    def _plan(self) -> Tensor:
        return self.policy.clone()

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        return

    def _tensors(self) -> dict[str, Tensor]:
        return {}
