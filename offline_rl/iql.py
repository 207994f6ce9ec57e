"""IQL: implicit Q-learning (Kostrikov, Nair & Levine, ICLR 2022, arXiv 2110.06169).

V regresses on min(Q1, Q2) of the data's actions by expectiles, Q on r + gamma V(s'), and the actor clones the data
weighted by exp(beta (Q - V)): no action outside the data is ever valued. Defaults are the authors' JAX code
(ikostrikov/implicit_q_learning); `IQLConfig` names CORL's choices. Deliberate difference: any action box. The policy's
likelihood and error live in the box's own units, (a - centre) / half range, which for [-1, 1] changes nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from offline_rl.blocks import block_edges
from offline_rl.config import IQLConfig
from offline_rl.critics import Batch, TwinCritic, td_target
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, init_mlp, mlp, orthogonal_mlp
from orbs import ROW_BLOCK, Rows, reject

__all__ = [
    "IQL",
    "advantage_weight",
    "block_returns",
    "cosine_rate",
    "episode_returns",
    "expectile_loss",
    "gaussian_log_prob",
    "squared_error",
]

# The authors' constants: actions are clipped this far inside the box; two episodes start where s' and the next s differ
# by more than this; returns are scaled to this range; CORL's blocks are this long.
ACTION_MARGIN = 1e-5
SAME_STATE = 1e-6
RETURN_RANGE = 1000.0
BLOCK_ROWS = 1000


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |tau - 1[u < 0]| u^2 over rows: difference u = target - prediction (R, B) -> (R,)."""
    weight = (expectile - (difference < 0).to(difference.dtype)).abs()
    return (weight * difference.square()).mean(1)


def advantage_weight(advantage: Tensor, beta: float, cap: float) -> Tensor:
    """min(exp(beta A), cap), the exponent clipped first so that nothing overflows: (R, B) -> (R, B)."""
    return torch.exp(torch.clamp(beta * advantage, max=math.log(cap)))


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """log N(action; mean, diag exp(2 log_std)): mean, action (R, B, d), log_std (R, 1, d) -> (R, B)."""
    scaled = (action - mean) * torch.exp(-log_std)
    return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(2)


def squared_error(mean: Tensor, action: Tensor) -> Tensor:
    """Sum over coordinates of (mean - action)^2: two (R, B, d) -> (R, B)."""
    return (mean - action).square().sum(2)


def cosine_rate(rate: float, done: int | Tensor, steps: int | None) -> float | Tensor:
    """Step size after `done` updates: rate (1 + cos(pi done / steps)) / 2, then 0; constant where steps is None.

    For a tensor `done`, () int64, a () float32 tensor.
    """
    if steps is None:
        return rate
    if isinstance(done, Tensor):
        return (rate * 0.5 * (1.0 + torch.cos(math.pi * (done.double() / steps).clamp(max=1.0)))).float()
    return rate * 0.5 * (1.0 + math.cos(math.pi * min(done / steps, 1.0)))


def episode_returns(data: Rows) -> np.ndarray:
    """(E,) float64 sums of reward: an episode ends at a terminal, at the last row, or where s' is not the next s."""
    count = len(data)
    ends = np.ones(count, dtype=bool)
    for start in range(0, count - 1, ROW_BLOCK):
        stop = min(start + ROW_BLOCK, count - 1)
        gap = data.part("obs", start + 1, stop + 1).astype(np.float64) - data.part("next_obs", start, stop)
        ends[start:stop] = (np.linalg.norm(gap, axis=1) > SAME_STATE) | (data.part("terminal", start, stop) > 0)
    starts = np.concatenate(([0], np.flatnonzero(ends[:-1]) + 1))
    return np.asarray(np.add.reduceat(data.part("reward", 0, count).astype(np.float64), starts))


def block_returns(data: Rows) -> np.ndarray:
    """(E,) float64 sums of reward: a block ends at a terminal or after 1000 rows; an incomplete last one is dropped."""
    total = np.concatenate(([0.0], np.cumsum(data.part("reward", 0, len(data)), dtype=np.float64)))
    return np.diff(total[block_edges(data.part("terminal", 0, len(data)), BLOCK_ROWS)])


class IQL(OfflineLearner):
    """IQL. See `OfflineLearner` for the arguments and `IQLConfig` for the hyperparameters.

    The networks see actions in the environment's units, as the other learners' do. `act` answers with the policy's mean
    centre + half range * tanh, for the Gaussian too: the spread serves the training alone.
    """

    name = "iql"
    config_class = IQLConfig

    def _build(self) -> None:
        config = self.config
        start = orthogonal_mlp if config.initialisation == "orthogonal" else init_mlp
        self.actor = start(self.philox, "actor", (self.obs_dim, *config.hidden, self.action_dim), dtype=self.dtype)
        self.log_std = []
        if config.policy == "gaussian":
            shape = (self.runs, 1, self.action_dim)
            self.log_std = [torch.zeros(shape, dtype=self.dtype, device=self.device, requires_grad=True)]
        self.actor_optimiser = Adam([*self.actor, *self.log_std], config.learning_rate)
        self.value = start(self.philox, "value", (self.obs_dim, *config.hidden, 1), dtype=self.dtype)
        self.value_optimiser = Adam(self.value, config.learning_rate)
        self.critic = TwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            discount=config.discount,
            tau=config.tau,
            learning_rate=config.learning_rate,
            dtype=self.dtype,
        )
        if config.initialisation == "orthogonal":
            sizes = (self.obs_dim + self.action_dim, *config.hidden, 1)
            drawn = orthogonal_mlp(self.philox, "critic", sizes, self.critic.members, self.dtype)
            with torch.no_grad():
                for online, target, weight in zip(self.critic.parameters, self.critic.target, drawn, strict=True):
                    online.copy_(weight)
                    target.copy_(weight)
        self.reward_factor = 1.0
        # A unit is dropped where a 32-bit word is below this: the same units in float32 and float64.
        self.drop_below = round(config.dropout * 2**32)

    # The data as they are used.

    def _surveyed(self, data: Rows) -> None:
        kind = self.config.reward_normaliser
        if kind == "none":
            return
        returns = episode_returns(data) if kind == "episodes" else block_returns(data)
        spread = float(np.ptp(returns)) if len(returns) else 0.0
        if not spread > 0:
            given = f"{len(returns)} of them with a range of {spread}"
            reject("iql.reward_normaliser", f"{kind} with different returns", given, "use reward_normaliser='none'")
        self.reward_factor = RETURN_RANGE / spread

    def _shape_reward(self, reward: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        return super()._shape_reward(self.reward_factor * reward, next_obs)

    def _shape_action(self, action: Tensor) -> Tensor:
        if not self.config.clip_data_actions:
            return action
        reach = (1.0 - ACTION_MARGIN) * self.action_scale
        return torch.clamp(action, self.action_centre - reach, self.action_centre + reach)

    # The update.

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        q = self.critic.backup_value(batch.obs, batch.action)
        if self.config.update_order == "value_first":
            self._value_step(batch, q)
            advantage, backup = q - self._value_of(batch.obs), self._value_of(batch.next_obs)
            self._actor_step(batch, advantage)
            self._critic_step(batch, backup)
        else:
            backup = self._value_of(batch.next_obs)
            advantage = self._value_step(batch, q)
            self._critic_step(batch, backup)
            self._actor_step(batch, advantage)

    def _value_step(self, batch: Batch, q: Tensor) -> Tensor:
        """One step of V towards q (R, B); returns q - V of before it."""
        value = mlp(batch.obs, self.value).squeeze(-1)
        difference = q - value
        loss = expectile_loss(difference, self.config.expectile)
        self.value_optimiser.minimise(loss.sum())
        self._record(value_loss=loss, value=value.mean(1))
        return difference.detach()

    def _critic_step(self, batch: Batch, backup: Tensor) -> None:
        target = td_target(batch.reward, batch.terminal, backup, self.config.discount)
        loss, metrics = self.critic.loss(batch, target, batch.action)
        if self.config.critic_reduction == "mean":
            loss = loss / self.critic.members
            metrics["critic_loss"] = loss.detach()
        self.critic.optimiser.minimise(loss.sum())
        self.critic.sync_target()
        self._record(**metrics)

    def _actor_step(self, batch: Batch, advantage: Tensor) -> None:
        config = self.config
        weight = advantage_weight(advantage, config.beta, config.weight_cap)
        mean = torch.tanh(self._dropped_out(batch.obs))
        action = (batch.action - self.action_centre) / self.action_scale
        if config.policy == "gaussian":
            log_std = torch.clamp(self.log_std[0], config.log_std_min, config.log_std_max)
            error = -gaussian_log_prob(mean, log_std, action)
        else:
            error = squared_error(mean, action)
        loss = (weight * error).mean(1)
        done = self.philox.step(self.steps - 1)
        self.actor_optimiser.learning_rate = cosine_rate(config.learning_rate, done, config.cosine_steps)
        self.actor_optimiser.minimise(loss.sum())
        self._record(actor_loss=loss, advantage=advantage.mean(1), weight=weight.mean(1))

    @torch.no_grad()
    def _value_of(self, obs: Tensor) -> Tensor:
        """(R, B, obs_dim) -> (R, B), a constant."""
        return mlp(obs, self.value).squeeze(-1)

    def _dropped_out(self, x: Tensor) -> Tensor:
        """The policy's network with dropout after every hidden layer's ReLU: (R, B, obs_dim) -> (R, B, action_dim)."""
        if self.drop_below == 0:
            return mlp(x, self.actor)
        for layer, width in enumerate(self.config.hidden):
            x = mlp(x, self.actor[2 * layer : 2 * layer + 2], final_relu=True)
            # Drawn here and not a block ahead: a block of masks would be a hundred times a batch's activations.
            words = self.philox.words(f"dropout.{layer}", self.steps, 1, x.shape[1] * width)
            kept = (words >= self.drop_below).view(x.shape)
            x = x * (kept.to(x.dtype) / (1.0 - self.config.dropout))
        return mlp(x, self.actor[-2:])

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * torch.tanh(mlp(obs, self.actor))

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"log_std.{i}": p for i, p in enumerate(self.log_std)}
        named |= {f"value.{i}": p for i, p in enumerate(self.value)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        named |= {f"value_adam.{name}": tensor for name, tensor in self.value_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
