"""What every critic answers to. Axes: R runs, E members of one critic, B rows of a batch, N units of the last layer.

A new critic subclasses `Critic`, sets the attributes named there and implements `evaluate`, `combined`,
`evaluation_loss` and `actor_value`; all else follows, and may be replaced where something faster gives the same.
One whose value is linear in its features also implements `head_weight` and `head_bias`, and so takes BEER's penalty;
one with dropout also `begin`, `train` and `eval`. A line in `offline_rl.critics.CRITICS` gives it a name.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from offline_rl.networks import Adam, Parameters, polyak

__all__ = ["Batch", "Critic", "Evaluation", "td_target"]


class Batch(NamedTuple):
    """Rows drawn from the data or the replay. obs, next_obs (R, B, obs_dim), as the networks take them: normalised
    where the learner does so; action (R, B, action_dim); reward, terminal (R, B); row (R, B) int64, their numbers."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminal: Tensor
    row: Tensor


class Evaluation(NamedTuple):
    """mean (R, E, B); std (R, E, B) or None; features (R, E, B, N), the penultimate layer, or None;
    raw_std (R, E, B), what std was made of, or None."""

    mean: Tensor
    std: Tensor | None
    features: Tensor | None
    raw_std: Tensor | None = None


def td_target(reward: Tensor, terminal: Tensor, backup: Tensor, discount: float) -> Tensor:
    """y = r + gamma (1 - terminal) backup, all (R, B). A time-out is not a terminal: it bootstraps."""
    return reward + discount * (1.0 - terminal) * backup


class Critic(Protocol):
    """A value function with its own targets and optimiser.

    Attributes:
        parameters, target: online and slow parameters, tensors (R * E, ...), run-major.
        optimiser: Adam of the online ones.
        discount, tau: gamma, Polyak step.
        members: E.
    """

    parameters: Parameters
    target: Parameters
    optimiser: Adam
    discount: float
    tau: float
    members: int

    # What a critic implements.

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False, target: bool = False) -> Evaluation:
        """All members at obs (R, B, obs_dim), action (R, B, action_dim).

        Online, the gradient reaches parameters and action; with `target` the slow parameters, without gradient.
        """
        ...

    def combined(self, evaluation: Evaluation) -> Tensor:
        """(R, B), one value out of the members': what is backed up."""
        ...

    def evaluation_loss(self, evaluation: Evaluation, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (R,) of the online evaluation of a batch against its target (R, B), and metrics (R,) each."""
        ...

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """(R, B), what the actor maximises, of the online parameters; the gradient passes through the action alone."""
        ...

    # What a critic with features, linear in its last layer, implements.

    def head_weight(self) -> Tensor:
        """(R, E, N), w of mean = features . w + b, without gradient.

        Raises:
            TypeError: this critic has none.
        """
        expected = "a critic that exposes features, head_weight() and head_bias()"
        raise TypeError(f"critic: expected {expected}, got {type(self).__name__}. Fix: choose the twin or STAC's.")

    def head_bias(self) -> Tensor:
        """(R, E), b of the same. Raises as `head_weight`."""
        return self.head_weight()

    # What a critic with dropout implements.

    def begin(self, step: int) -> None:
        """The number of the update that begins, from 1: learners say it before anything else. Masks depend on it."""
        return

    def train(self) -> None:
        """Training mode, as it starts: dropout on."""
        return

    def eval(self) -> None:
        """Evaluation mode: dropout off, in the slow parameters too."""
        return

    # What follows.

    @torch.no_grad()
    def backup_value(self, next_obs: Tensor, next_action: Tensor) -> Tensor:
        """(R, B) from the target parameters, without gradient."""
        return self.combined(self.evaluate(next_obs, next_action, target=True))

    @torch.no_grad()
    def online_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """(R, B): what `backup_value` is for the target parameters, for the online ones. Without gradient."""
        return self.combined(self.evaluate(obs, action))

    @torch.no_grad()
    def td_target(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> Tensor:
        """(R, B): y = r + gamma (1 - terminal) (backup_value + bonus), without gradient."""
        backup = self.backup_value(batch.next_obs, next_action)
        return td_target(batch.reward, batch.terminal, backup if bonus is None else backup + bonus, self.discount)

    def loss(self, batch: Batch, target: Tensor, next_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (R,), one a run, and metrics (R,) each; `next_action` is the one that `target` (R, B) was made with."""
        return self.evaluation_loss(self.evaluate(batch.obs, batch.action), target)

    def minimise(self, loss: Tensor) -> None:
        """One optimiser step down the loss (R,)."""
        self.optimiser.minimise(loss.sum())

    def update(
        self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One optimiser step on the loss against its own target; returns the metrics. The slow parameters stay.

        `target` is the batch's `td_target(batch, next_action, bonus)`, from a caller who has it already.
        """
        if target is None:
            target = self.td_target(batch, next_action, bonus)
        loss, metrics = self.loss(batch, target, next_action)
        self.minimise(loss)
        return metrics

    def sync_target(self) -> None:
        """Polyak step of the target parameters."""
        polyak(self.target, self.parameters, self.tau)

    def state(self) -> dict[str, Tensor]:
        """Every tensor to save, by name; loading copies into them."""
        named = {f"online.{i}": p for i, p in enumerate(self.parameters)}
        named |= {f"target.{i}": p for i, p in enumerate(self.target)}
        return named | {f"adam.{name}": tensor for name, tensor in self.optimiser.state().items()}


def per_member(x: Tensor, members: int) -> Tensor:
    """(R, B, d) -> (R * E, B, d), the same rows for each member, in the stack's run-major order."""
    runs, rows, width = x.shape
    return x.unsqueeze(1).expand(runs, members, rows, width).reshape(runs * members, rows, width)


def joint(obs: Tensor, action: Tensor) -> Tensor:
    """The critic's input: observation, then action, on the last axis."""
    return torch.cat((obs, action), dim=-1)
