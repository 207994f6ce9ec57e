"""BEER: a deterministic actor-critic whose critic's features obey a bound that the Bellman equation implies.

He, Zhou, Fang, Maghsudi, ICLR 2024, arXiv 2404.12754. The critic's loss and the bound are `offline_rl.critics.beer`'s;
this is the learner below it: deterministic policy gradient (Lillicrap et al., arXiv 1509.02971) with one critic, no
smoothing noise, actor and both targets every step, TD3's exploration. Deliberate differences from the authors' code:
networks and replay see actions scaled to [-1, 1] of the box; the bound has the configured discount, not 0.99; it is
+inf where a feature vector vanishes; the penalty is left out where its weight is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.critics import Batch, BEERRegularizer, TwinCritic
from offline_rl.networks import Adam, clone_parameters, init_mlp, mlp, polyak
from offline_rl.online.agent import OnlineAgent
from offline_rl.online.config import BEERConfig

__all__ = ["BEER"]


class BEER(OnlineAgent):
    """BEER. See `OnlineAgent` for the arguments and `BEERConfig` for the hyperparameters."""

    name = "beer"
    config_class = BEERConfig

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.actor = init_mlp(self.philox, "actor", (self.obs_dim, *config.hidden, self.action_dim), dtype=self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        base = TwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            config.discount,
            config.tau,
            config.learning_rate,
            dtype=self.dtype,
            members=1,
        )
        self.critic = BEERRegularizer(
            base,
            config.beta,
            config.bound,
            mask_terminal=config.mask_terminal,
            bias_correct=config.bias_correct,
            policy=self._mean_action,
        )

    def _mean_action(self, obs: Tensor) -> Tensor:
        return torch.tanh(mlp(obs, self.actor))

    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        return torch.clamp(self._mean_action(obs) + self.config.exploration_noise * noise, -1.0, 1.0)

    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self._mean_action(obs), obs.new_zeros(obs.shape[:2])

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        with torch.no_grad():
            next_action = torch.tanh(mlp(batch.next_obs, self.actor_target))
        self._record(**self.critic.update(batch, next_action))
        value = self.critic.actor_value(batch.obs, self._mean_action(batch.obs)).mean(1)
        self.actor_optimiser.minimise(-value.sum())
        self._record(q_policy=value)
        self.critic.sync_target()
        polyak(self.actor_target, self.actor, self.config.tau)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"actor_target.{i}": p for i, p in enumerate(self.actor_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
