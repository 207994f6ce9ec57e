"""ReBRAC: TD3 with separate penalties in actor and critic (Tarasov et al., NeurIPS 2023, arXiv 2305.09836).

Critic: y = r + gamma (min Q'(s', a~) - beta2 |a~ - a'_D|^2) with the next action a'_D of the data; actor, every second
update from the first on: beta1 |pi(s) - a|^2 - lambda min Q(s, pi(s)), lambda = 1 / mean |min Q|. Three hidden layers,
LayerNorm after the ReLU in the critics. As in the authors' code the actor's slow copy moves towards the parameters of
before this update's step (`slow_actor_lag`). Deliberate difference: actions are measured in units of half the action
range, so that a box other than [-1, 1] means the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from offline_rl.config import ReBRACConfig
from offline_rl.critics.interface import Batch
from offline_rl.critics.layer_norm import LayerNormTwinCritic, init_rebrac, normed_mlp
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, clone_parameters, mlp, polyak
from offline_rl.td3_bc import smoothed_action
from orbs import Rows, reject

__all__ = ["ReBRAC", "squared_distance"]


def squared_distance(action: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Sum over coordinates of ((a - b) / scale)^2: action, other (R, B, d), scale (d,) -> (R, B)."""
    return ((action - other) / scale).square().sum(-1)


class ReBRAC(OfflineLearner):
    """ReBRAC. See `OfflineLearner` for the arguments and `ReBRACConfig` for the hyperparameters.

    `attach` needs the next action of each row: a dataset has it, `Transitions` in its field `next_action`. Rows without
    one, as after a time-out, are left out, but for terminal rows, whose targets do not use it; `rows_left_out` says how
    many.
    """

    name = "rebrac"
    config_class = ReBRACConfig

    def _build(self) -> None:
        config = self.config
        self.rows_left_out = 0
        sizes = (self.obs_dim, *config.hidden, self.action_dim)
        self.actor = init_rebrac(self.philox, "actor", sizes, 1e-3, config.actor_layer_norm, 1, self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.critic = LayerNormTwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            discount=config.discount,
            tau=config.tau,
            learning_rate=config.critic_learning_rate,
            actor_value=config.actor_value,
            dtype=self.dtype,
            normed=config.critic_layer_norm,
        )

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"target_noise": (self.config.batch_size, self.action_dim)}

    def _select(self, data: Rows) -> Rows:
        following = np.array(data.part("next_action", 0, len(data)))  # a copy: it may be the caller's own
        terminal = data.part("terminal", 0, len(data)) > 0
        # A terminal row's target is its reward; but 0 times NaN is NaN.
        following[terminal] = np.nan_to_num(following[terminal], nan=0.0)
        known = np.flatnonzero(np.isfinite(following).all(1))
        if not len(known):
            fix = "give a dataset, or Transitions with next_action"
            reject("rebrac.attach", "rows with a known next action", "none", fix)
        self.rows_left_out = len(data) - len(known)
        if self.rows_left_out:
            data, following = data.select(known), following[known]
        self._next_action = torch.as_tensor(following).to(self.device, self.dtype)
        return data

    def _policy(self, obs: Tensor) -> Tensor:
        return self._act_with(obs, self.actor)

    def _act_with(self, obs: Tensor, parameters: list[Tensor]) -> Tensor:
        evaluate = normed_mlp if self.config.actor_layer_norm else mlp
        return self.action_centre + self.action_scale * torch.tanh(evaluate(obs, parameters))

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        config = self.config
        with torch.no_grad():
            box = (self.action_scale, self.action_low, self.action_high)
            action = self._act_with(batch.next_obs, self.actor_target)
            action = smoothed_action(action, noise["target_noise"], config.policy_noise, config.noise_clip, *box)
            distance = squared_distance(action, self._next_action[batch.row], self.action_scale)
        self._record(next_distance=distance.mean(1))
        self._record(**self.critic.update(batch, action, -config.critic_beta * distance))
        if (self.steps - 1) % config.policy_period == 0:  # the very first update includes the actor
            self._actor_step(batch)
            self.critic.sync_target()

    def _actor_step(self, batch: Batch) -> None:
        config = self.config
        action = self._policy(batch.obs)
        value = self.critic.actor_value(batch.obs, action)
        distance = squared_distance(action, batch.action, self.action_scale)
        scale = (
            1.0 / value.detach().abs().mean(1, keepdim=True) if config.normalise_q else torch.ones_like(value[:, :1])
        )
        loss = (config.actor_beta * distance - scale * value).mean(1)
        grads = torch.autograd.grad(loss.sum(), self.actor)
        if config.slow_actor_lag:
            polyak(self.actor_target, self.actor, config.tau)
        self.actor_optimiser.step(grads)
        if not config.slow_actor_lag:
            polyak(self.actor_target, self.actor, config.tau)
        self._record(actor_loss=loss, penalty=distance.mean(1), q_policy=value.mean(1), scale=scale[:, 0])

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"actor_target.{i}": p for i, p in enumerate(self.actor_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
