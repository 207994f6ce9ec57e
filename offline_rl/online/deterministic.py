"""What agents with a deterministic policy share: actor and slow copy, Gaussian exploration, the actor's step."""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.networks import Adam, Parameters, clone_parameters, init_mlp, mlp, polyak
from offline_rl.online.agent import OnlineAgent

__all__ = ["DeterministicAgent"]


class DeterministicAgent(OnlineAgent):
    """An agent adds its critic (`_build`) and its update (`_step`). Its configuration has `exploration_noise`."""

    actor: Parameters
    actor_target: Parameters
    actor_optimiser: Adam

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.actor = init_mlp(self.philox, "actor", (self.obs_dim, *config.hidden, self.action_dim), dtype=self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)

    def _mean_action(self, obs: Tensor) -> Tensor:
        """(R, n, obs_dim) -> (R, n, action_dim) of the online policy."""
        return torch.tanh(mlp(obs, self.actor))

    @torch.no_grad()
    def _slow_action(self, obs: Tensor) -> Tensor:
        """The same of the slow policy, without gradient."""
        return torch.tanh(mlp(obs, self.actor_target))

    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        return torch.clamp(self._mean_action(obs) + self.config.exploration_noise * noise, -1.0, 1.0)

    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self._mean_action(obs), obs.new_zeros(obs.shape[:2])

    def _ascend(self, obs: Tensor) -> None:
        """The actor's step up the critic's value at obs (R, B, obs_dim); then all slow parameters move."""
        value = self.critic.actor_value(obs, self._mean_action(obs)).mean(1)
        self.actor_optimiser.minimise(-value.sum())
        self._record(q_policy=value)
        self.critic.sync_target()
        polyak(self.actor_target, self.actor, self.config.tau)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"actor_target.{i}": p for i, p in enumerate(self.actor_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
