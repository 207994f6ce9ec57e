"""STAC's critic: a Gaussian over the one-step target, its spread subtracted (Ozalp, arXiv 2601.00737).

Loss log sigma + ((y - mu) / sigma)^2 / 2; the backup and the actor take mu - beta sigma. The spread is not propagated
as a variance: only the number y is bootstrapped. Dropout before LayerNorm, on in the slow copy too, as in the author's
code (ugurcanozalp/rl-warehouse, STAC and its ablation ESTAC). Deliberate differences: "min_pess" (two members, the
smaller mu - beta sigma) and the clip of the gradient are ours, and off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from offline_rl.critics.interface import Critic, Evaluation, joint, per_member
from offline_rl.dropout_stack import Dropout, dropout_stack, init_dropout_stack
from offline_rl.networks import Adam, Parameters, clone_parameters, mlp
from orbs import Philox, reject

__all__ = ["COMBINE", "RAW_STD_MIN", "GaussianCritic", "clipped", "floored_std", "gaussian_nll", "pessimistic"]

Combine = Literal["single", "min_mean", "min_pess"]
COMBINE: dict[str, int] = {"single": 1, "min_mean": 2, "min_pess": 2}
"""Rule -> members."""
RAW_STD_MIN = -5.0
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def floored_std(raw: Tensor) -> Tensor:
    """softplus(max(z, -5)), from 0.0067153; below -5 without gradient. Any shape."""
    return torch.nn.functional.softplus(torch.clamp(raw, min=RAW_STD_MIN))


def gaussian_nll(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """Sum over members of the mean over rows of log sigma + ((y - mu) / sigma)^2 / 2, without log(2 pi) / 2.

    mean, std (R, E, B), target (R, B) -> (R,).
    """
    error = (target.unsqueeze(1) - mean) / std
    return (torch.log(std) + 0.5 * error.square()).mean(2).sum(1)


def pessimistic(mean: Tensor, std: Tensor, beta: float, combine: Combine = "single") -> Tensor:
    """One value out of the members', (R, E, B) twice -> (R, B).

    "single": mu - beta sigma of the only member; "min_mean": the smaller mu, without beta (ESTAC); "min_pess": the
    smaller mu - beta sigma.
    """
    values = mean if combine == "min_mean" else mean - beta * std
    return values[:, 0] if combine == "single" else values.amin(1)


def clipped(grads: Sequence[Tensor], runs: int, norm: float) -> list[Tensor]:
    """The gradients (R * E, ...) scaled down, run by run, to a joint norm of at most `norm`."""
    square = torch.stack([grad.reshape(runs, -1).square().sum(1) for grad in grads]).sum(0)
    scale = torch.clamp(norm / (torch.sqrt(square) + 1e-6), max=1.0)
    return [(grad.reshape(runs, -1) * scale.unsqueeze(1)).view(grad.shape) for grad in grads]


class GaussianCritic(Critic):
    """[obs, action] -> mean and standard deviation, one network a run or two.

    Args:
        philox: random numbers of the initial weights and of dropout.
        obs_dim, action_dim, hidden: shapes.
        discount, tau, learning_rate: gamma, Polyak step, Adam's step.
        beta: what a standard deviation costs, in the backup and to the actor.
        dropout: probability of dropping a hidden unit, in training.
        target_dropout: whether the slow copy drops units, too.
        members, combine: 1 and "single", or 2 with "min_mean" (ESTAC) or "min_pess", see `pessimistic`.
        clip_norm: bound of each run's gradient norm; None, as published, for none.

    Raises:
        ValueError: a number out of its range, or members that do not fit the rule.
    """

    def __init__(
        self,
        philox: Philox,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        learning_rate: float = 3e-4,
        dtype: torch.dtype = torch.float32,
        beta: float = 0.25,
        dropout: float = 0.01,
        target_dropout: bool = True,
        members: int = 1,
        combine: Combine = "single",
        clip_norm: float | None = None,
    ) -> None:
        if COMBINE.get(combine) != members:
            rules = "1 with combine='single', 2 with 'min_mean' or 'min_pess'"
            reject("critic_members", rules, f"{members} with {combine!r}", "choose one of these pairs")
        if not 0.0 <= beta < math.inf:
            reject("critic_beta", "a finite number of at least 0", beta, "e.g. critic_beta=0.25")
        if clip_norm is not None and not clip_norm > 0.0:
            reject("critic clip_norm", "None or a positive number", clip_norm, "e.g. clip_norm=10.0")
        self.discount, self.tau, self.members = discount, tau, members
        self.beta, self.target_dropout, self.clip_norm = beta, target_dropout, clip_norm
        self._combine, self._training = combine, True
        sizes = (obs_dim + action_dim, *hidden, 2)
        self.parameters = init_dropout_stack(philox, "critic", sizes, members, dtype)
        with torch.no_grad():
            self.parameters[-1][..., 1] = 0.0
        self.target = clone_parameters(self.parameters)
        self.optimiser = Adam(self.parameters, learning_rate)
        self.dropout = Dropout(philox, "dropout.critic", dropout, hidden, members, dtype)

    def evaluate(self, obs: Tensor, action: Tensor, features: bool = False, target: bool = False) -> Evaluation:
        if target:
            with torch.no_grad():
                return self._pass("target", self.target, obs, action, features)
        return self._pass("data", self.parameters, obs, action, features)

    def combined(self, evaluation: Evaluation) -> Tensor:
        assert evaluation.std is not None
        return pessimistic(evaluation.mean, evaluation.std, self.beta, self._combine)

    def evaluation_loss(self, evaluation: Evaluation, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mean, std, _, raw = evaluation
        assert std is not None
        assert raw is not None
        loss = gaussian_nll(mean, std, target)
        return loss, {
            "critic_loss": loss.detach(),
            "critic_nll": loss.detach() + self.members * HALF_LOG_2PI,  # as the author logs it
            "q_data": mean.detach().mean((1, 2)),
            "critic_std": std.detach().mean((1, 2)),
            "critic_std_floor": (raw.detach() < RAW_STD_MIN).to(mean.dtype).mean((1, 2)),
        }

    def actor_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.combined(self._pass("actor", [p.detach() for p in self.parameters], obs, action, False))

    @torch.no_grad()
    def online_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.combined(self._pass("value", self.parameters, obs, action, False))

    def head_weight(self) -> Tensor:
        """(R, E, N), of the mean."""
        weight = self.parameters[-2].detach()
        return weight[..., 0].view(-1, self.members, weight.shape[1])

    def head_bias(self) -> Tensor:
        return self.parameters[-1].detach()[:, 0, 0].view(-1, self.members)

    def minimise(self, loss: Tensor) -> None:
        if self.clip_norm is None:
            self.optimiser.minimise(loss.sum())
        else:
            grads = torch.autograd.grad(loss.sum(), self.parameters)
            self.optimiser.step(clipped(grads, len(loss), self.clip_norm))

    def begin(self, step: int) -> None:
        self.dropout.begin(step)

    def train(self) -> None:
        self._training = True

    def eval(self) -> None:
        self._training = False

    def _pass(self, kind: str, parameters: Parameters, obs: Tensor, action: Tensor, features: bool) -> Evaluation:
        """One forward pass with its own masks, drawn for the purpose dropout.critic.<kind>."""
        x = per_member(joint(obs, action), self.members)
        masks = None
        if self._training and (self.target_dropout or kind != "target"):
            masks = self.dropout.masks(kind, x.shape[1])
        hidden = dropout_stack(x, parameters, masks, hidden_only=True)
        mean, raw = mlp(hidden, parameters[-2:]).view(-1, self.members, x.shape[1], 2).unbind(-1)
        kept = hidden.view(-1, self.members, *hidden.shape[1:]) if features else None
        return Evaluation(mean, floored_std(raw), kept, raw)
