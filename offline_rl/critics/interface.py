"""What every critic answers to. Axes: R runs, E members of one critic, B rows of a batch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Critic", "Evaluation", "td_target"]


class Batch(NamedTuple):
    """Rows drawn from the data. obs, next_obs (R, B, obs_dim), normalised; action (R, B, action_dim);
    reward, terminal (R, B); row (R, B) int64, the numbers of the rows in the attached data."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminal: Tensor
    row: Tensor


class Evaluation(NamedTuple):
    """mean (R, E, B); std (R, E, B) or None; features (R, E, B, width), the penultimate layer, or None."""

    mean: Tensor
    std: Tensor | None
    features: Tensor | None


def td_target(reward: Tensor, terminal: Tensor, backup: Tensor, discount: float) -> Tensor:
    """y = r + gamma (1 - terminal) backup, all (R, B). A time-out is not a terminal: it bootstraps."""
    return reward + discount * (1.0 - terminal) * backup


class Critic(Protocol):
    """A value function with its own targets and optimiser."""

    parameters: list[Tensor]

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False) -> Evaluation:
        """Online members at (R, B, .) rows; the gradient reaches parameters and action."""
        ...

    def backup_value(self, next_obs: Tensor, next_action: Tensor) -> Tensor:
        """(R, B) from the target parameters, without gradient."""
        ...

    def td_target(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> Tensor:
        """(R, B): y = r + gamma (1 - terminal) (backup_value + bonus), without gradient."""
        ...

    def loss(self, batch: Batch, target: Tensor, next_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (R,), one a run, and metrics (R,) each."""
        ...

    def update(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> dict[str, Tensor]:
        """One optimiser step on the loss against its own target; returns the metrics."""
        ...

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """(R, B), what the actor maximises; the gradient passes through the action alone."""
        ...

    def sync_target(self) -> None:
        """Polyak step of the target parameters."""
        ...

    def train(self) -> None:
        """Training mode (dropout on), for critics that have one."""
        ...

    def eval(self) -> None:
        """Evaluation mode."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Every tensor to save, by name; loading copies into them."""
        ...


def per_member(x: Tensor, members: int) -> Tensor:
    """(R, B, d) -> (R * E, B, d), the same rows for each member, in the stack's run-major order."""
    runs, rows, width = x.shape
    return x.unsqueeze(1).expand(runs, members, rows, width).reshape(runs * members, rows, width)


def joint(obs: Tensor, action: Tensor) -> Tensor:
    """The critic's input: observation, then action, on the last axis."""
    return torch.cat((obs, action), dim=-1)
