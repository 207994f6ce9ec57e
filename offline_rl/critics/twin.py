"""TD3's twin critic: two networks, the minimum of the slow copies as the backup (Fujimoto et al., arXiv 1802.09477)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from offline_rl.critics.interface import Batch, Evaluation, joint, per_member, td_target
from offline_rl.networks import Adam, clone_parameters, init_mlp, member, mlp, polyak
from orbs import Philox

__all__ = ["TwinCritic", "twin_loss"]


def twin_loss(values: Tensor, target: Tensor) -> Tensor:
    """Sum over members of the mean squared error: values (R, E, B), target (R, B) -> (R,)."""
    return (values - target.unsqueeze(1)).square().mean(2).sum(1)


class TwinCritic:
    """Two independent networks a run, [obs, action] -> value.

    Args:
        philox: random numbers of the initial weights.
        obs_dim, action_dim, hidden: shapes.
        discount, tau, learning_rate: gamma, Polyak step, Adam's step.
        actor_value: "q1", the first member alone (TD3, TD3+BC, PRDC), or "min" over both (ReBRAC).
    """

    members = 2

    def __init__(
        self,
        philox: Philox,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        learning_rate: float = 3e-4,
        actor_value: Literal["q1", "min"] = "q1",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.discount, self.tau = discount, tau
        self._actor_value = actor_value
        sizes = (obs_dim + action_dim, *hidden, 1)
        self.parameters = init_mlp(philox, "critic", sizes, self.members, dtype)
        self.target = clone_parameters(self.parameters)
        self.optimiser = Adam(self.parameters, learning_rate)

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False) -> Evaluation:
        x = per_member(joint(obs, action), self.members)
        if not features:
            return Evaluation(self._split(mlp(x, self.parameters)), None, None)
        hidden = mlp(x, self.parameters[:-2], final_relu=True)
        mean = torch.baddbmm(self.parameters[-1], hidden, self.parameters[-2])
        return Evaluation(self._split(mean), None, hidden.view(-1, self.members, *hidden.shape[1:]))

    @torch.no_grad()
    def backup_value(self, next_obs: Tensor, next_action: Tensor) -> Tensor:
        values = self._split(mlp(per_member(joint(next_obs, next_action), self.members), self.target))
        return torch.minimum(values[:, 0], values[:, 1])

    @torch.no_grad()
    def td_target(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> Tensor:
        backup = self.backup_value(batch.next_obs, next_action)
        return td_target(batch.reward, batch.terminal, backup if bonus is None else backup + bonus, self.discount)

    def loss(self, batch: Batch, target: Tensor, next_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.evaluate(batch.obs, batch.action).mean
        loss = twin_loss(values, target)
        return loss, {"critic_loss": loss.detach(), "q_data": values.detach().mean((1, 2))}

    def update(self, batch: Batch, next_action: Tensor, bonus: Tensor | None = None) -> dict[str, Tensor]:
        loss, metrics = self.loss(batch, self.td_target(batch, next_action, bonus), next_action)
        self.optimiser.minimise(loss.sum())
        return metrics

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        x = joint(obs, action)
        if self._actor_value == "q1":
            return mlp(x, member(self.parameters, 0, self.members)).squeeze(-1)
        values = self._split(mlp(per_member(x, self.members), [p.detach() for p in self.parameters]))
        return torch.minimum(values[:, 0], values[:, 1])

    def sync_target(self) -> None:
        polyak(self.target, self.parameters, self.tau)

    def train(self) -> None:
        """Nothing to switch: no dropout."""

    def eval(self) -> None:
        """Nothing to switch: no dropout."""

    def state(self) -> dict[str, Tensor]:
        named = {f"online.{i}": p for i, p in enumerate(self.parameters)}
        named |= {f"target.{i}": p for i, p in enumerate(self.target)}
        return named | {f"adam.{name}": tensor for name, tensor in self.optimiser.state().items()}

    def _split(self, stacked: Tensor) -> Tensor:
        """(R * E, B, 1) -> (R, E, B)."""
        return stacked.view(-1, self.members, stacked.shape[1])
