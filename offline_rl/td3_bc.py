"""TD3+BC: TD3 whose actor also imitates the data (Fujimoto & Gu, NeurIPS 2021, arXiv 2106.06860).

Every update the critic regresses on r + gamma min(Q1', Q2') at the smoothed target action; every second update the
actor minimises -lambda Q1(s, pi(s)) + (pi(s) - a)^2 with lambda = alpha / mean |Q1|, and the targets move.
Equal to the authors' code; deliberate difference: an action box that is not symmetric is allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.bc import behaviour_loss
from offline_rl.config import TD3BCConfig
from offline_rl.critics import Batch, make_critic
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, clone_parameters, init_mlp, mlp, polyak

__all__ = ["TD3BC", "scaled_value_loss", "smoothed_action"]


def smoothed_action(
    action: Tensor, noise: Tensor, std: float, clip: float, scale: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """clip(a + scale clip(std noise, +-clip), low, high): action, noise (R, B, d); scale, low, high (d,)."""
    return torch.clamp(action + scale * torch.clamp(std * noise, -clip, clip), low, high)


def scaled_value_loss(value: Tensor, normaliser: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """-lambda mean(value) with lambda = alpha / normaliser, a constant: value (R, B), normaliser (R,) -> two (R,)."""
    scale = alpha / normaliser.detach()
    return -scale * value.mean(1), scale


class TD3BC(OfflineLearner):
    """TD3+BC. See `OfflineLearner` for the arguments and `TD3BCConfig` for the hyperparameters."""

    name = "td3bc"
    config_class = TD3BCConfig

    def _build(self) -> None:
        config = self.config
        sizes = (self.obs_dim, *config.hidden, self.action_dim)
        self.actor = init_mlp(self.philox, "actor", sizes, dtype=self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.critic = make_critic(
            config, self.philox, self.obs_dim, self.action_dim, config.hidden, self.dtype, policy=self._policy
        )

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"target_noise": (self.config.batch_size, self.action_dim)}

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * torch.tanh(mlp(obs, self.actor))

    @torch.no_grad()
    def _target_action(self, next_obs: Tensor, noise: Tensor) -> Tensor:
        action = self.action_centre + self.action_scale * torch.tanh(mlp(next_obs, self.actor_target))
        return smoothed_action(
            action,
            noise,
            self.config.policy_noise,
            self.config.noise_clip,
            self.action_scale,
            self.action_low,
            self.action_high,
        )

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        self._record(**self.critic.update(batch, self._target_action(batch.next_obs, noise["target_noise"])))
        if self.steps % self.config.policy_period == 0:
            self._actor_step(batch)
            self.critic.sync_target()
            polyak(self.actor_target, self.actor, self.config.tau)

    def _actor_step(self, batch: Batch) -> None:
        action = self._policy(batch.obs)
        value = self.critic.actor_value(batch.obs, action)
        value_loss, scale = scaled_value_loss(value, self._q_normaliser(batch, value), self.config.alpha)
        penalty = self._penalty(batch, action)
        self.actor_optimiser.minimise((value_loss + penalty).sum())
        self._record(actor_loss=value_loss + penalty, penalty=penalty, q_policy=value.mean(1), scale=scale)

    def _q_normaliser(self, batch: Batch, value: Tensor) -> Tensor:
        """(R,) mean |Q| by which lambda is divided."""
        return value.detach().abs().mean(1)

    def _penalty(self, batch: Batch, action: Tensor) -> Tensor:
        """(R,) distance of the policy from the data."""
        return behaviour_loss(action, batch.action)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"actor_target.{i}": p for i, p in enumerate(self.actor_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
