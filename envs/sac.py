"""The behaviour agent: Stable-Baselines3's Soft Actor-Critic with its gradient step written in few kernel calls.

Everything but `train` is the library's own (networks, replay buffer, rollouts, seeding). Its `train` spends two
thirds of its time between the kernels at these sizes; this one stacks the two critics, differentiates the two-layer
networks by hand and applies one fused Adam to each flat parameter vector. The same losses in the same order: the
tests compare its parameters with the library's own after the same updates.

SAC: Haarnoja et al. 2018, arXiv 1812.05905. Needs stable-baselines3, imported with this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from stable_baselines3 import SAC
from torch import Tensor, nn

__all__ = ["BehaviourSAC"]

_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0  # as Stable-Baselines3 clips them
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_SQUASH_EPS = 1e-6  # in log(1 - tanh(u)^2 + eps), as Stable-Baselines3's distribution has it


class _Flat:
    """Parameters in one vector, with their gradients, moments and shaped views of each.

    Args:
        shapes: of the views, in order.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.value, self.grad = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
        self.first, self.second = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
        self.step = torch.zeros(())
        self.values = [part.view(shape) for part, shape in zip(torch.split(self.value, sizes), shapes, strict=True)]
        self.grads = [part.view(shape) for part, shape in zip(torch.split(self.grad, sizes), shapes, strict=True)]

    def adam(self, learning_rate: float) -> None:
        self.step += 1
        torch._fused_adam_(
            [self.value], [self.grad], [self.first], [self.second], [], [self.step],
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        return {"value": self.value, "first": self.first, "second": self.second, "step": self.step}


class BehaviourSAC(SAC):
    """SAC with two hidden layers, two critics and an automatic temperature; `train` is ours, see the module.

    The networks' parameters are views of `flat_actor`, `flat_critic`, `flat_target`, so that the library's rollouts
    see every update.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        hidden = _linear(self.actor.latent_pi)
        assert len(hidden) == 2
        actor = [*hidden, cast(nn.Linear, self.actor.mu), cast(nn.Linear, self.actor.log_std)]
        self.flat_actor = _adopt([actor], stacked=False)
        self.flat_critic, self.flat_target = (
            _adopt([_linear(critic.qf0), _linear(critic.qf1)], stacked=True)
            for critic in (self.critic, self.critic_target)
        )
        assert self.log_ent_coef is not None
        self.flat_temperature = _Flat([(1,)])
        self.flat_temperature.value.copy_(self.log_ent_coef.detach())
        self.log_ent_coef.data = self.flat_temperature.value

    random_until: int | None = None  # environment steps that are played at random; None: until learning starts

    def _sample_action(self, learning_starts: int, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        until = learning_starts if self.random_until is None else self.random_until
        return super()._sample_action(until, *arguments, **options)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learns, by name: parameters, targets, temperature and Adam's moments (no copies)."""
        parts = {
            "actor": self.flat_actor, "critic": self.flat_critic, "target": self.flat_target,
            "temperature": self.flat_temperature,
        }  # fmt: skip
        return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state().items()}

    @torch.no_grad()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Take `gradient_steps` updates on batches from the replay buffer."""
        rate = self.lr_schedule(self._current_progress_remaining)
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size)  # type: ignore[union-attr]
            obs, next_obs = batch.observations.float(), batch.next_observations.float()
            noise, next_noise = torch.randn(batch.actions.shape), torch.randn(batch.actions.shape)
            self._step(obs, batch.actions, batch.rewards, next_obs, batch.dones, noise, next_noise, rate)
        self._n_updates += gradient_steps

    def _step(
        self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, done: Tensor, noise: Tensor,
        next_noise: Tensor, rate: float,
    ) -> None:  # fmt: skip
        """One update from a batch of B rows: obs (B, d), action (B, k) in [-1, 1], reward, done (B, 1)."""
        count = len(obs)
        policy = _squashed(self.flat_actor.values, obs, noise)
        temperature = self.flat_temperature.value.exp()
        target_entropy = float(self.target_entropy)
        self.flat_temperature.grad.copy_(-(policy["log_prob"].mean() + target_entropy).reshape(1))
        self.flat_temperature.adam(rate)

        following = _squashed(self.flat_actor.values, next_obs, next_noise)
        _, _, next_q = _stacked_forward(self.flat_target.values, torch.cat([next_obs, following["action"]], 1))
        best = torch.minimum(next_q[0], next_q[1]) - temperature * following["log_prob"].unsqueeze(1)
        target = reward + (1.0 - done) * self.gamma * best

        joint = torch.cat([obs, action], 1)
        first, second, q = _stacked_forward(self.flat_critic.values, joint)
        _stacked_backward(self.flat_critic, joint, first, second, (q - target) / count)
        self.flat_critic.adam(rate)

        joint = torch.cat([obs, policy["action"]], 1)
        first, second, q = _stacked_forward(self.flat_critic.values, joint)
        lower = q[0] <= q[1]
        grad_q = torch.stack([lower, ~lower]).to(q.dtype) / -count
        grad_action = _input_gradient(self.flat_critic.values, first, second, grad_q)[:, obs.shape[1] :]
        _actor_backward(self.flat_actor, obs, noise, policy, grad_action, temperature)
        self.flat_actor.adam(rate)
        self.flat_target.value.lerp_(self.flat_critic.value, self.tau)


def _linear(network: object) -> list[nn.Linear]:
    return [layer for layer in cast(nn.Sequential, network) if isinstance(layer, nn.Linear)]


def _adopt(networks: Sequence[Sequence[nn.Linear]], stacked: bool) -> _Flat:
    """All layers in one vector; the modules become views of it.

    Views are [W (out, in), b (out,)] a layer, or stacked [W (n, out, in), b (n, 1, out)] for n networks.
    """
    shapes: list[tuple[int, ...]] = []
    for layer in networks[0]:
        rows, columns = layer.weight.shape
        count = len(networks)
        shapes += [(count, rows, columns), (count, 1, rows)] if stacked else [(rows, columns), (rows,)]
    flat = _Flat(shapes)
    for index, network in enumerate(networks):
        for number, layer in enumerate(network):
            weight, bias = flat.values[2 * number], flat.values[2 * number + 1]
            weight, bias = (weight[index], bias[index, 0]) if stacked else (weight, bias)
            weight.copy_(layer.weight.detach())
            bias.copy_(layer.bias.detach())
            layer.weight.data, layer.bias.data = weight, bias
    return flat


def _stacked_forward(parameters: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden activations (2, B, width) twice and values (2, B, 1) of the two critics at x (B, d + k)."""
    w1, b1, w2, b2, w3, b3 = parameters
    first = torch.baddbmm(b1, x.expand(2, *x.shape), w1.mT).relu_()
    second = torch.baddbmm(b2, first, w2.mT).relu_()
    return first, second, torch.baddbmm(b3, second, w3.mT)


def _hidden_gradients(parameters: list[Tensor], first: Tensor, second: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients before the two rectifiers, from that of the values (2, B, 1)."""
    _, _, w2, _, w3, _ = parameters
    at_second = torch.ops.aten.threshold_backward(grad * w3, second, 0)  # (2, B, 1) * (2, 1, width)
    at_first = torch.ops.aten.threshold_backward(torch.bmm(at_second, w2), first, 0)
    return at_first, at_second


def _stacked_backward(flat: _Flat, x: Tensor, first: Tensor, second: Tensor, grad: Tensor) -> None:
    at_first, at_second = _hidden_gradients(flat.values, first, second, grad)
    for number, (given, inner) in enumerate(((x.expand(2, *x.shape), at_first), (first, at_second), (second, grad))):
        torch.bmm(inner.mT, given, out=flat.grads[2 * number])
        torch.sum(inner, 1, keepdim=True, out=flat.grads[2 * number + 1])


def _input_gradient(parameters: list[Tensor], first: Tensor, second: Tensor, grad: Tensor) -> Tensor:
    """(B, d + k): the gradient at the critics' common input."""
    at_first, _ = _hidden_gradients(parameters, first, second, grad)
    return torch.bmm(at_first, parameters[0]).sum(0)


def _squashed(parameters: list[Tensor], obs: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """A tanh-Gaussian action at obs (B, d) with standard normal noise (B, k), and what its gradient needs."""
    w1, b1, w2, b2, w_mean, b_mean, w_std, b_std = parameters
    first = torch.addmm(b1, obs, w1.t()).relu_()
    second = torch.addmm(b2, first, w2.t()).relu_()
    mean = torch.addmm(b_mean, second, w_mean.t())
    raw = torch.addmm(b_std, second, w_std.t())
    log_std = raw.clamp(_LOG_STD_MIN, _LOG_STD_MAX)
    std = log_std.exp()
    action = torch.addcmul(mean, std, noise).tanh_()
    slope = 1.0 - action.square()
    per_column = noise.square().mul_(-0.5) - log_std - (slope + _SQUASH_EPS).log_()
    log_prob = per_column.sum(1) - _HALF_LOG_2PI * noise.shape[1]
    return {
        "first": first, "second": second, "raw": raw, "std": std, "action": action, "slope": slope,
        "log_prob": log_prob,
    }  # fmt: skip


def _actor_backward(
    flat: _Flat, obs: Tensor, noise: Tensor, policy: dict[str, Tensor], grad_action: Tensor, temperature: Tensor
) -> None:
    """Gradient of mean(temperature log pi(a|s) - min Q(s, a)), where grad_action (B, k) is that of its second term."""
    scale = temperature / len(obs)
    slope = policy["slope"]
    # d log pi / d a = 2 a / (1 - a^2 + eps); the Gaussian's own term depends on log std alone: -1.
    total = grad_action + scale * 2.0 * policy["action"] / (slope + _SQUASH_EPS)
    grad_mean = total * slope
    grad_log_std = grad_mean * policy["std"] * noise - scale
    grad_log_std *= (policy["raw"] >= _LOG_STD_MIN) & (policy["raw"] <= _LOG_STD_MAX)
    _, _, w2, _, w_mean, _, w_std, _ = flat.values
    at_second = torch.ops.aten.threshold_backward(grad_mean @ w_mean + grad_log_std @ w_std, policy["second"], 0)
    at_first = torch.ops.aten.threshold_backward(at_second @ w2, policy["first"], 0)
    layers = (
        (at_first, obs), (at_second, policy["first"]), (grad_mean, policy["second"]), (grad_log_std, policy["second"])
    )  # fmt: skip
    for number, (inner, given) in enumerate(layers):
        torch.mm(inner.t(), given, out=flat.grads[2 * number])
        torch.sum(inner, 0, out=flat.grads[2 * number + 1])
