"""TD3's twin critic: two networks, the minimum of the slow copies as the backup (Fujimoto et al., arXiv 1802.09477)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from offline_rl.critics.interface import Critic, Evaluation, joint, per_member
from offline_rl.networks import Adam, clone_parameters, init_mlp, member, mlp
from orbs import Philox

__all__ = ["TwinCritic", "twin_loss"]


def twin_loss(values: Tensor, target: Tensor) -> Tensor:
    """Sum over members of the mean squared error: values (R, E, B), target (R, B) -> (R,)."""
    return (values - target.unsqueeze(1)).square().mean(2).sum(1)


class TwinCritic(Critic):
    """Two independent networks a run, [obs, action] -> value.

    Args:
        philox: random numbers of the initial weights.
        obs_dim, action_dim, hidden: shapes.
        discount, tau, learning_rate: gamma, Polyak step, Adam's step.
        actor_value: "q1", the first member alone (TD3, TD3+BC, PRDC), or "min" over both (ReBRAC).
        members: 1 makes it DDPG's single critic.
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
        members: int = 2,
    ) -> None:
        self.discount, self.tau, self.members = discount, tau, members
        self._actor_value = actor_value
        sizes = (obs_dim + action_dim, *hidden, 1)
        self.parameters = init_mlp(philox, "critic", sizes, self.members, dtype)
        self.target = clone_parameters(self.parameters)
        self.optimiser = Adam(self.parameters, learning_rate)

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False, target: bool = False) -> Evaluation:
        x = per_member(joint(obs, action), self.members)
        if target:
            with torch.no_grad():
                return self._evaluation(x, self.target, features)
        return self._evaluation(x, self.parameters, features)

    def _evaluation(self, x: Tensor, parameters: list[Tensor], features: bool) -> Evaluation:
        if not features:
            return Evaluation(self._split(self._network(x, parameters)), None, None)
        hidden = self._network(x, parameters, hidden_only=True)
        mean = self._split(mlp(hidden, parameters[-2:]))
        return Evaluation(mean, None, hidden.view(-1, self.members, *hidden.shape[1:]))

    def _network(self, x: Tensor, parameters: list[Tensor], hidden_only: bool = False) -> Tensor:
        """x (G, B, in) -> (G, B, 1), or the last hidden layer."""
        return mlp(x, parameters[:-2], final_relu=True) if hidden_only else mlp(x, parameters)

    def combined(self, evaluation: Evaluation) -> Tensor:
        return evaluation.mean.amin(1)

    def evaluation_loss(self, evaluation: Evaluation, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = twin_loss(evaluation.mean, target)
        return loss, {"critic_loss": loss.detach(), "q_data": evaluation.mean.detach().mean((1, 2))}

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        x = joint(obs, action)
        if self._actor_value == "q1":
            return self._network(x, member(self.parameters, 0, self.members)).squeeze(-1)
        values = self._network(per_member(x, self.members), [p.detach() for p in self.parameters])
        return self._split(values).amin(1)

    def head_weight(self) -> Tensor:
        return self.parameters[-2].detach().view(-1, self.members, self.parameters[-2].shape[1])

    def head_bias(self) -> Tensor:
        return self.parameters[-1].detach().view(-1, self.members)

    def _split(self, stacked: Tensor) -> Tensor:
        """(R * E, B, 1) -> (R, E, B)."""
        return stacked.view(-1, self.members, stacked.shape[1])
