"""O-DICE: a state value from the dual of f-divergence-regularised RL, its backward gradient kept from cancelling the
forward one, and a policy cloned with the value's residual as weight (Mao et al., ICLR 2024, arXiv 2402.00348).

With y = r + gamma V(s') - V(s) an update descends G = g_0 + g_f + (g_b - c g_f): g_0 of (1 - lambda) V(s), g_f of
lambda f*(y) through V(s), g_b of lambda eta f*(y) through V(s'), slow copies on the other side, and
c = <g_f, g_b> / <g_f, g_f> over all value parameters of a run. The defaults are the authors' (maoliyuan/ODICE-Pytorch).
Deliberate differences: any action box (the policy lives in units of its half range); reverse KL goes on linearly
where the authors' overflows; a demonstration's last row, whose next state is another episode's, is left out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from offline_rl.blocks import block_edges
from offline_rl.config import ODICEConfig
from offline_rl.critics.interface import Batch, per_member
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, Parameters, clone_parameters, init_mlp, mlp, polyak
from orbs import Rows, reject

__all__ = [
    "ODICE",
    "block_returns",
    "cloning_loss",
    "conjugate",
    "conjugate_loss",
    "linear_loss",
    "orthogonal",
    "policy_weight",
    "ratio",
]

KL_LIMIT = 20.0  # float32 overflows at exp(89), the squares of its gradients far earlier
NORM_FLOOR = 1e-10
LOG_STD_RANGE = (-5.0, 2.0)
LEGACY_HORIZON = 1000


def ratio(y: Tensor, divergence: str) -> Tensor:
    """omega*(y) = d f*(y) / dy, the optimal occupancy ratio, elementwise: max(0, y/2 + 1), or exp(y - 1)."""
    if divergence == "chi2":
        return torch.clamp(y / 2 + 1, min=0)
    return torch.exp(torch.clamp(y, max=KL_LIMIT) - 1)


def conjugate(y: Tensor, divergence: str) -> Tensor:
    """f*(y) over ratios of at least 0, elementwise.

    "chi2", f(x) = (x - 1)^2: y^2/4 + y, and -1 below y = -2. "kl", f(x) = x log x: exp(y - 1), and its tangent above
    y = 20.
    """
    if divergence == "chi2":
        bounded = torch.clamp(y, min=-2)
        return bounded * (bounded / 4 + 1)
    bounded = torch.clamp(y, max=KL_LIMIT)
    return torch.exp(bounded - 1) * (1 + y - bounded)


def linear_loss(value: Tensor, lam: float) -> Tensor:
    """(1 - lambda) mean V(s): value (R, H, B) -> (R,)."""
    return (1 - lam) * value.mean((1, 2))


def conjugate_loss(residual: Tensor, lam: float, divergence: str) -> Tensor:
    """lambda mean f*(y): residual (R, H, B) -> (R,)."""
    return lam * conjugate(residual, divergence).mean((1, 2))


def orthogonal(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """The part of each run's backward gradient at right angles to its forward one, and the coefficient c.

    Args:
        forward, backward: (R, P), all value parameters of a run in one row.

    Returns:
        backward - c forward (R, P) and c = <forward, backward> / max(<forward, forward>, 1e-10) (R,).
    """
    c = (forward * backward).sum(1) / torch.clamp(forward.square().sum(1), min=NORM_FLOOR)
    return backward - c.unsqueeze(1) * forward, c


def policy_weight(residual: Tensor, kind: str, divergence: str, cap: float) -> Tensor:
    """Cloning weight of each row, averaged over heads, a constant: residual (R, H, B) -> (R, B).

    "relu_residual" is min(max(y, 0), cap), the authors' code; "omega" is min(omega*(y), cap).
    """
    y = residual.detach()
    weight = torch.relu(y) if kind == "relu_residual" else ratio(y, divergence)
    return torch.clamp(weight, max=cap).mean(1)


def cloning_loss(weight: Tensor, mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """-mean w log N(a; mean, std): weight (R, B), mean and action (R, B, d), log_std (R, 1, d) -> (R,).

    The log-std counts as clamped to [-5, 2]; the parameter itself is not.
    """
    log_std = torch.clamp(log_std, *LOG_STD_RANGE)
    z = (action - mean) * torch.exp(-log_std)
    log_density = (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(2)
    return -(weight * log_density).mean(1)


def block_returns(reward: np.ndarray, end: np.ndarray, horizon: int) -> np.ndarray:
    """Undiscounted returns of the complete blocks: one ends where `end` is set or after `horizon` rows.

    Args:
        reward, end: (N,).

    Raises:
        ValueError: there is no complete block.
    """
    edges = block_edges(end, horizon)
    if len(edges) == 1:
        reject("odice.return_blocks", "a complete block", f"{len(reward)} rows without one", "set reward_scale by hand")
    return np.asarray(np.add.reduceat(reward[: edges[-1]].astype(np.float64), edges[:-1]))


class ODICE(OfflineLearner):
    """O-DICE. See `OfflineLearner` for the arguments and `ODICEConfig` for the hyperparameters."""

    name = "odice"
    config_class = ODICEConfig

    def _build(self) -> None:
        config = self.config
        self.heads = 2 if config.twin else 1
        self.actor = init_mlp(
            self.philox, "actor", (self.obs_dim, *config.actor_hidden, self.action_dim), dtype=self.dtype
        )
        self.log_std = torch.zeros(
            (self.runs, 1, self.action_dim), dtype=self.dtype, device=self.device, requires_grad=True
        )
        self.actor_optimiser = Adam([*self.actor, self.log_std], config.learning_rate, config.weight_decay)
        plain = init_mlp(self.philox, "value", (self.obs_dim, *config.hidden, 1), self.heads, self.dtype)
        self.value: Parameters = []  # per hidden layer weight, bias and with LayerNorm gain, shift; then the output's
        for layer in range(0, len(plain), 2):
            self.value += plain[layer : layer + 2]
            if config.layer_norm and layer < len(plain) - 2:
                gain = torch.ones_like(plain[layer + 1], requires_grad=True)
                self.value += [gain, torch.zeros_like(gain, requires_grad=True)]
        self.value_target = clone_parameters(self.value)
        self.value_optimiser = Adam(self.value, config.learning_rate)
        self._return_scale = 1.0

    def _select(self, data: Rows) -> Rows:
        """One demonstration, if so configured; also the factor that the rewards' normalisation takes from the data."""
        config = self.config
        if config.demonstration is None and config.return_blocks == "none":
            return data
        reward, terminal, timeout = (data.part(field, 0, len(data)) for field in ("reward", "terminal", "timeout"))
        ends = np.maximum(terminal, timeout)
        if config.demonstration is not None:
            last = np.flatnonzero(ends)
            if config.demonstration >= len(last):
                fix = f"choose one below {len(last)}" if len(last) else "give data whose episodes end"
                reject("odice.demonstration", "the number of a whole episode", config.demonstration, fix)
            first = last[config.demonstration - 1] + 1 if config.demonstration else 0
            return data.select(np.arange(first, last[config.demonstration] + 1))
        legacy = config.return_blocks == "legacy"
        returns = block_returns(reward, terminal if legacy else ends, LEGACY_HORIZON if legacy else len(reward) + 1)
        spread = float(returns.max() - returns.min())
        if not spread:
            given = f"{len(returns)} with the return {returns[0]:g}"
            reject("odice.return_blocks", "blocks of different returns", given, "set reward_scale by hand")
        self._return_scale = 1000.0 / spread
        return data

    def _shape_reward(self, reward: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.demonstration is not None:
            return torch.zeros_like(reward), next_obs
        return super()._shape_reward(reward * self._return_scale, next_obs)

    def _values(self, obs: Tensor, parameters: Parameters) -> Tensor:
        """V of every head: obs (R, B, obs_dim) -> (R, H, B)."""
        x = per_member(obs, self.heads)
        if self.config.layer_norm:
            for i in range(0, len(parameters) - 2, 4):
                weight, bias, gain, shift = parameters[i : i + 4]
                x = layer_norm(mlp(x, (weight, bias)), (weight.shape[2],))
                x = torch.relu(torch.addcmul(shift, x, gain))
            parameters = parameters[-2:]
        return mlp(x, parameters).view(-1, self.heads, obs.shape[1])

    def _mean(self, obs: Tensor) -> Tensor:
        """(R, B, action_dim): the policy's mean where the action box is [-1, 1]."""
        mean = mlp(obs, self.actor)
        return torch.tanh(mean) if self.config.tanh_mean else mean

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * self._mean(obs)

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        grads, residual = self._value_gradient(batch)
        self.value_optimiser.step(grads)
        polyak(self.value_target, self.value, self.config.tau)
        self._actor_step(batch, residual)

    def _value_gradient(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """The value's step, shaped as its parameters, and the residual (R, H, B) before it, a constant."""
        config = self.config
        reward, goes_on = batch.reward.unsqueeze(1), config.discount * (1.0 - batch.terminal).unsqueeze(1)
        both = torch.cat((batch.obs, batch.next_obs), 1)
        if config.gradient == "true":
            value, next_value = self._values(both, self.value).chunk(2, 2)
            residual = reward + goes_on * next_value - value
            loss = linear_loss(value, config.lam) + conjugate_loss(residual, config.lam, config.divergence)
            grads = list(torch.autograd.grad(loss.sum(), self.value))
            self._record(value=value.mean((1, 2)), residual=residual.mean((1, 2)), value_loss=loss)
            return grads, residual.detach()
        with torch.no_grad():
            slow, slow_next = self._values(both, self.value_target).amin(1, keepdim=True).chunk(2, 2)
        value = self._values(batch.obs, self.value)
        residual = reward + goes_on * slow_next - value
        linear = linear_loss(value, config.lam)
        forward = conjugate_loss(residual, config.lam, config.divergence)
        self._record(value=value.mean((1, 2)), residual=residual.mean((1, 2)), value_loss=linear + forward)
        if config.gradient == "semi":
            return list(torch.autograd.grad((linear + forward).sum(), self.value)), residual.detach()
        next_residual = reward + goes_on * self._values(batch.next_obs, self.value) - slow
        backward = config.eta * conjugate_loss(next_residual, config.lam, config.divergence)
        g_f = self._flat(torch.autograd.grad(forward.sum(), self.value, retain_graph=True))
        g_0 = self._flat(torch.autograd.grad(linear.sum(), self.value))
        g_b, c = orthogonal(g_f, self._flat(torch.autograd.grad(backward.sum(), self.value)))
        self._record(projection=c, forward_norm=g_f.norm(dim=1))
        return self._like_value(g_0 + g_f + g_b), residual.detach()

    def _flat(self, grads: tuple[Tensor, ...]) -> Tensor:
        """Gradients shaped as the value's parameters -> (R, P)."""
        return torch.cat([grad.reshape(self.runs, -1) for grad in grads], 1)

    def _like_value(self, flat: Tensor) -> list[Tensor]:
        """(R, P) -> gradients shaped as the value's parameters."""
        parts = flat.split_with_sizes([p.numel() // self.runs for p in self.value], 1)
        return [part.reshape(p.shape) for part, p in zip(parts, self.value, strict=True)]

    def _actor_step(self, batch: Batch, residual: Tensor) -> None:
        config = self.config
        weight = policy_weight(residual, config.policy_weight, config.divergence, config.weight_cap)
        action = (batch.action - self.action_centre) / self.action_scale
        loss = cloning_loss(weight, self._mean(batch.obs), self.log_std, action)
        self.actor_optimiser.minimise(loss.sum())
        self._record(actor_loss=loss, weight=weight.mean(1), weighted_share=(weight > 0).to(self.dtype).mean(1))

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)} | {"log_std": self.log_std}
        named |= {f"value.{i}": p for i, p in enumerate(self.value)}
        named |= {f"value_target.{i}": p for i, p in enumerate(self.value_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"value_adam.{name}": tensor for name, tensor in self.value_optimiser.state().items()}
