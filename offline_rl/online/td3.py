"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al., ICML 2018, arXiv 1802.09477).

Every update the critic regresses on r + gamma min(Q1', Q2') at the smoothed target action; every second update the
actor ascends Q1 and the targets move. The authors' newest code; deliberate differences: networks and replay see
actions scaled to [-1, 1] of the box, which need not be symmetric (the authors' see the environment's, which differs
where the box is not [-1, 1]); a critic other than the twin can be plugged in; the first update follows the last random
step, one step before the authors'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.critics import Batch, make_critic
from offline_rl.networks import Adam, clone_parameters, init_mlp, mlp, polyak
from offline_rl.online.agent import OnlineAgent
from offline_rl.online.config import TD3Config

__all__ = ["TD3"]


class TD3(OnlineAgent):
    """TD3. See `OnlineAgent` for the arguments and `TD3Config` for the hyperparameters."""

    name = "td3"
    config_class = TD3Config

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.actor = init_mlp(self.philox, "actor", (self.obs_dim, *config.hidden, self.action_dim), dtype=self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.critic = make_critic(
            config, self.philox, self.obs_dim, self.action_dim, config.hidden, self.dtype, policy=self._mean_action
        )

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"target_noise": (self.config.batch_size, self.action_dim)}

    def _mean_action(self, obs: Tensor) -> Tensor:
        return torch.tanh(mlp(obs, self.actor))

    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        return torch.clamp(self._mean_action(obs) + self.config.exploration_noise * noise, -1.0, 1.0)

    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self._mean_action(obs), obs.new_zeros(obs.shape[:2])

    @torch.no_grad()
    def _target_action(self, next_obs: Tensor, noise: Tensor) -> Tensor:
        """clip(target policy + clip(std noise, +-clip), -1, 1): next_obs (R, B, .), noise (R, B, action_dim)."""
        clip = self.config.noise_clip
        noise = (self.config.policy_noise * noise).clamp_(-clip, clip)
        return torch.tanh(mlp(next_obs, self.actor_target)).add_(noise).clamp_(-1.0, 1.0)

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        self._record(**self.critic.update(batch, self._target_action(batch.next_obs, noise["target_noise"])))
        if self.steps % self.config.policy_period:
            return
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
