"""Twin critic whose hidden layers are normalised after the rectifier, as ReBRAC's (arXiv 2305.09836).

Hidden block: linear, ReLU, LayerNorm (Ba et al. 2016, arXiv 1607.06450) with flax's eps of 1e-6. Hidden weights start
uniform in +-1/sqrt(fan_in), hidden biases at 0.1, the last layer uniform in +-`last_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from offline_rl.critics.twin import TwinCritic
from offline_rl.networks import Adam, Parameters, clone_parameters, init_mlp, mlp
from orbs import Philox

__all__ = ["EPS", "LayerNormTwinCritic", "init_rebrac", "normed_mlp"]

EPS = 1e-6


def init_rebrac(
    philox: Philox, name: str, sizes: Sequence[int], last_bound: float, normed: bool, members: int, dtype: torch.dtype
) -> Parameters:
    """ReBRAC's initial weights: [W, b] a layer, or [W, b, scale, shift] a hidden layer where `normed`.

    Shapes (G, in, out) and (G, 1, out) with G = runs * members, as `init_mlp`.
    """
    plain = init_mlp(philox, name, sizes, members, dtype)
    with torch.no_grad():
        for bias in plain[1:-2:2]:
            bias.fill_(0.1)
        for tensor in plain[-2:]:  # drawn in +-1/sqrt(fan_in)
            tensor.mul_(last_bound * math.sqrt(sizes[-2]))
    if not normed:
        return plain
    parameters: Parameters = []
    for weight, bias in zip(plain[:-2:2], plain[1:-2:2], strict=True):
        parameters += [weight, bias, torch.ones_like(bias).requires_grad_(), torch.zeros_like(bias).requires_grad_()]
    return parameters + plain[-2:]


def normed_mlp(x: Tensor, parameters: Sequence[Tensor], hidden_only: bool = False) -> Tensor:
    """Evaluate a stack with normalised hidden layers: x (G, B, in) -> (G, B, out), or the last hidden layer."""
    for layer in range((len(parameters) - 2) // 4):
        weight, bias, scale, shift = parameters[4 * layer : 4 * layer + 4]
        x = mlp(x, [weight, bias], final_relu=True)
        x = torch.addcmul(shift, torch.nn.functional.layer_norm(x, x.shape[-1:], eps=EPS), scale)
    return x if hidden_only else mlp(x, parameters[-2:])


class LayerNormTwinCritic(TwinCritic):
    """`TwinCritic` with LayerNorm after each hidden ReLU; see there for the arguments."""

    def __init__(
        self,
        philox: Philox,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        learning_rate: float = 3e-4,
        actor_value: Literal["q1", "min"] = "min",
        dtype: torch.dtype = torch.float32,
        normed: bool = True,
        last_bound: float = 3e-3,
    ) -> None:
        self.discount, self.tau = discount, tau
        self._actor_value, self._normed = actor_value, normed
        sizes = (obs_dim + action_dim, *hidden, 1)
        self.parameters = init_rebrac(philox, "critic", sizes, last_bound, normed, self.members, dtype)
        self.target = clone_parameters(self.parameters)
        self.optimiser = Adam(self.parameters, learning_rate)

    def _network(self, x: Tensor, parameters: list[Tensor], hidden_only: bool = False) -> Tensor:
        if not self._normed:
            return super()._network(x, parameters, hidden_only)
        return normed_mlp(x, parameters, hidden_only)
