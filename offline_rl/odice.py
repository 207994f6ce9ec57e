"""O-DICE: a state value from the dual of f-divergence-regularised RL, its backward gradient kept from cancelling the
forward one, and a policy cloned with the value's residual as weight (Mao et al., ICLR 2024, arXiv 2402.00348).

With y = r + gamma V(s') - V(s) an update descends G = g_0 + g_f + (g_b - c g_f): g_0 of (1 - lambda) V(s), g_f of
lambda f*(y) through V(s), g_b of lambda eta f*(y) through V(s'), slow copies on the other side, and
c = <g_f, g_b> / <g_f, g_f> over all value parameters of a run. The value's derivatives are written out in
value_stack.py. On a CPU the policy sees only rows whose weight is not 0, how many depends on the data: others add
nothing to its loss. The defaults are the authors' (maoliyuan/ODICE-Pytorch).
Deliberate differences: any action box (the policy lives in units of its half range); reverse KL goes on linearly
where the authors' overflows; a demonstration's last row, whose next state is another episode's, is left out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from offline_rl.blocks import block_edges
from offline_rl.config import ODICEConfig
from offline_rl.critics.interface import Batch, per_member
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, Parameters, init_mlp, leading_rows, mlp, polyak, take_rows
from offline_rl.value_stack import LayerRows, differentiate, evaluate, pack, pull_back, unpack
from orbs import Rows, reject

__all__ = [
    "ODICE",
    "block_returns",
    "cloning_loss",
    "cloning_slopes",
    "conjugate",
    "conjugate_loss",
    "conjugate_slope",
    "linear_loss",
    "linear_slope",
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


def linear_slope(value: Tensor, lam: float) -> Tensor:
    """d linear_loss / d V(s): (R, H, B), the same everywhere."""
    return torch.full_like(value, (1 - lam) / (value.shape[1] * value.shape[2]))


def conjugate_slope(residual: Tensor, lam: float, divergence: str) -> Tensor:
    """d conjugate_loss / d residual: (R, H, B)."""
    return ratio(residual, divergence) * (lam / (residual.shape[1] * residual.shape[2]))


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


def cloning_slopes(weight: Tensor, mean: Tensor, log_std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """d cloning_loss / d mean (R, B, d) and / d log_std (R, 1, d)."""
    bounded = torch.clamp(log_std, *LOG_STD_RANGE)
    inverse = torch.exp(-bounded)
    z = (action - mean) * inverse
    share = (weight / weight.shape[1]).unsqueeze(2)
    by_log_std = (share * (1 - z.square())).sum(1, keepdim=True)
    return -share * z * inverse, torch.where(bounded == log_std, by_log_std, 0.0)


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
        value: Parameters = []  # per hidden layer weight, bias and with LayerNorm gain, shift; then the output's
        for layer in range(0, len(plain), 2):
            value += plain[layer : layer + 2]
            if config.layer_norm and layer < len(plain) - 2:
                value += [torch.ones_like(plain[layer + 1]), torch.zeros_like(plain[layer + 1])]
        self._hold_value(value)
        self._return_scale = 1.0
        # How many rows have a weight is read on the host, for which only a CPU need not wait.
        self._skip_rows = self.device.type == "cpu"

    def _hold_value(self, value: Parameters) -> None:
        """Take over the value's start: all parameters, and each gradient, as one matrix (R * H, P)."""
        self.value_matrix = pack(value)
        self.value_target_matrix = self.value_matrix.clone()
        # Memory for up to three gradients: padding stays 0, everything else is written over in each update.
        self.value_grads = self.value_matrix.new_zeros(3, *self.value_matrix.shape)
        shapes = [tuple(p.shape[1:]) for p in value]
        self.value, self.value_target, self._grad_views = (
            unpack(matrix, shapes) for matrix in (self.value_matrix, self.value_target_matrix, self.value_grads)
        )
        self.value_optimiser = Adam([self.value_matrix], self.config.learning_rate)

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
        value = evaluate(per_member(obs, self.heads), parameters, self.config.layer_norm)
        return value.view(-1, self.heads, obs.shape[1])

    def _mean(self, obs: Tensor) -> Tensor:
        """(R, B, action_dim): the policy's mean where the action box is [-1, 1]."""
        mean = mlp(obs, self.actor)
        return torch.tanh(mean) if self.config.tanh_mean else mean

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * self._mean(obs)

    @torch.no_grad()
    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        gradient, residual = self._value_gradient(batch)
        self.value_optimiser.step([gradient.view_as(self.value_matrix)])
        polyak([self.value_target_matrix], [self.value_matrix], self.config.tau)
        self._actor_step(batch, residual)

    def _value_gradient(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The value's step (R, H * P) and the residual (R, H, B) before it."""
        config, rows = self.config, batch.obs.shape[1]
        reward, goes_on = batch.reward.unsqueeze(1), config.discount * (1.0 - batch.terminal).unsqueeze(1)
        both = torch.cat((batch.obs, batch.next_obs), 1)
        online = batch.obs if config.gradient == "semi" else both
        values, layers = differentiate(per_member(online, self.heads), self.value, config.layer_norm)
        values = values.view(self.runs, self.heads, -1)
        value, next_value = values[..., :rows], values[..., rows:]
        if config.gradient == "true":
            residual = reward + goes_on * next_value - value
        else:
            slow, slow_next = self._values(both, self.value_target).amin(1, keepdim=True).chunk(2, 2)
            residual = reward + goes_on * slow_next - value
        loss = linear_loss(value, config.lam) + conjugate_loss(residual, config.lam, config.divergence)
        self._record(value=value.mean((1, 2)), residual=residual.mean((1, 2)), value_loss=loss)
        linear = linear_slope(value, config.lam)
        slope = conjugate_slope(residual, config.lam, config.divergence)
        if config.gradient == "true":
            cotangent = torch.cat((linear - slope, goes_on * slope), 2)
            return self._pull(layers, [(slice(None), cotangent)])[0], residual
        here, there = slice(0, rows), slice(rows, 2 * rows)
        if config.gradient == "semi":
            return self._pull(layers, [(here, linear - slope)])[0], residual
        next_residual = reward + goes_on * next_value - slow
        next_slope = config.eta * goes_on * conjugate_slope(next_residual, config.lam, config.divergence)
        g_0, g_f, g_b = self._pull(layers, [(here, linear), (here, -slope), (there, next_slope)])
        g_b, c = orthogonal(g_f, g_b)
        self._record(projection=c, forward_norm=g_f.norm(dim=1))
        return g_0 + g_f + g_b, residual

    def _pull(self, layers: list[LayerRows], parts: list[tuple[slice, Tensor]]) -> Tensor:
        """Gradients (K, R, H * P) of sums of cotangent (R, H, n) * V over a span of rows, given as K (span, cotangent).

        They lie in memory that the next update writes over.
        """
        cotangents = self.value_matrix.new_zeros(len(parts), *layers[-1].vectors[0].shape[:2])
        for all_rows, (span, cotangent) in zip(cotangents, parts, strict=True):
            all_rows[:, span] = cotangent.flatten(0, 1)
        pull_back(layers, cotangents, [span for span, _ in parts], [view[: len(parts)] for view in self._grad_views])
        return self.value_grads[: len(parts)].view(len(parts), self.runs, -1)

    def _actor_step(self, batch: Batch, residual: Tensor) -> None:
        config = self.config
        weight = policy_weight(residual, config.policy_weight, config.divergence, config.weight_cap)
        self._record(weight=weight.mean(1), weighted_share=(weight > 0).to(self.dtype).mean(1))
        obs, action = batch.obs, (batch.action - self.action_centre) / self.action_scale
        if self._skip_rows:
            rows = leading_rows(weight != 0)  # a NaN is not 0
            obs, action = take_rows(obs, rows), take_rows(action, rows)
            weight = weight.gather(1, rows) * (rows.shape[1] / weight.shape[1])  # the loss stays a mean over B
        with torch.enable_grad():
            mean = self._mean(obs)
        by_mean, by_log_std = cloning_slopes(weight, mean, self.log_std, action)
        self._record(actor_loss=cloning_loss(weight, mean, self.log_std, action))
        self.actor_optimiser.step([*torch.autograd.grad(mean, self.actor, by_mean), by_log_std])

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)} | {"log_std": self.log_std}
        named |= {f"value.{i}": p for i, p in enumerate(self.value)}
        named |= {f"value_target.{i}": p for i, p in enumerate(self.value_target)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        return named | {f"value_adam.{name}": tensor for name, tensor in self.value_optimiser.state().items()}
