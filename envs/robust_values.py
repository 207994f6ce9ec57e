"""Exact values of policies of a finite MDP, nominal or under nature's worst laws, and the best policy, step by step.

With a temperature tau the divergence from a reference policy is charged in each step, so that the best policy is the
softmax ref(a|s) exp(Q(s, a) / tau) / Z and its value the log-mean-exp tau log sum_a ref(a|s) exp(Q(s, a) / tau)
(Gu, He, Liu and Xu, arXiv 2510.14246).
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from envs.finite_mdp import FiniteMDP
from envs.uncertainty import Laws, Uncertainty
from envs.worst_cases import log_mean_exp
from orbs import reject

__all__ = ["against", "at_start", "evaluate", "optimal", "reference_of", "worst_kernels"]

TOLERANCE = 2e-6  # of chances, a little more than worlds allow

_READY: WeakKeyDictionary[FiniteMDP, list[Laws]] = WeakKeyDictionary()


def _ready(mdp: FiniteMDP) -> list[Laws]:
    """The laws of each step made ready, once a model."""
    if mdp not in _READY:
        _READY[mdp] = [Laws(laws) for laws in mdp.laws]
    return _READY[mdp]


def _ahead(mdp: FiniteMDP, values: Tensor, step: int, uncertainty: Uncertainty | None) -> Tensor:
    """(..., F) the mean of the next value under each law, the worst one where nature may choose."""
    laws = _ready(mdp)[step if len(mdp.laws) > 1 else 0]
    return laws.mean(values) if uncertainty is None else uncertainty.worst(values, laws, step)


def reference_of(mdp: FiniteMDP, reference: Any) -> Tensor | None:
    """(H or 1, S, A) on the model's device, checked; on other devices than the CPU its numbers are not looked at."""
    if reference is None:
        return None
    shape = (mdp.states, mdp.actions)
    try:
        reference = torch.as_tensor(reference)
    except (TypeError, ValueError, RuntimeError):
        reject("reference", f"a policy, shape {shape} or {(mdp.steps, *shape)}", repr(reference), "give a tensor")
    if reference.shape not in (shape, (1, *shape), (mdp.steps, *shape)):
        wanted = f"shape {shape} or {(mdp.steps, *shape)}"
        reject("reference", wanted, f"shape {tuple(reference.shape)}", "give a distribution over actions a state")
    if reference.device.type == "cpu":
        if not bool((reference > 0).all()):
            reject("reference", "positive chances", f"a least one of {float(reference.min()):g}", "e.g. 1e-14 for 0")
        off = float((reference.sum(-1) - 1.0).abs().max())
        if not off < TOLERANCE:
            reject("reference", "distributions over actions", f"a sum that misses 1 by {off:.3g}", "divide by the sum")
    kept: Tensor = reference.to(mdp.device, torch.float64).reshape(-1, *shape)
    return kept / kept.sum(-1, keepdim=True)


def _temperature(temperature: float | Tensor, device: torch.device) -> float | Tensor:
    if isinstance(temperature, Tensor):
        if temperature.device.type == "cpu" and not bool(((temperature >= 0) & (temperature < math.inf)).all()):
            reject("temperature", "finite numbers of at least 0", temperature.tolist(), "e.g. 0.05")
        return temperature.to(device, torch.float64)
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not (number and 0 <= temperature < math.inf):
        reject("temperature", "a finite number of at least 0", repr(temperature), "e.g. 0.05")
    return float(temperature)


def evaluate(
    mdp: FiniteMDP,
    policy: Tensor,
    uncertainty: Uncertainty | None = None,
    temperature: float | Tensor = 0.0,
    reference: Tensor | None = None,
) -> Tensor:
    """(..., H + 1, S) values of a policy, under nature's worst laws for it if there is an uncertainty set.

    Args:
        policy: (..., H, S, A), rows over actions; leading axes broadcast against those of the model's rewards.
        temperature: weight of KL(policy || reference) of each step, at least 0; a tensor broadcasts against lead axes.
        reference: (S, A) or (H, S, A), positive; the uniform policy if None.

    Raises:
        ValueError: shapes that do not fit, a negative temperature, a reference that is not positive.
    """
    shape = (mdp.steps, mdp.states, mdp.actions)
    if policy.shape[-3:] != shape:
        reject("policy", f"shape (..., {', '.join(map(str, shape))})", f"shape {tuple(policy.shape)}", "see the model")
    if policy.device.type == "cpu":
        off = float((policy.sum(-1) - 1.0).abs().max())
        if not (off < TOLERANCE and float(policy.min()) > -TOLERANCE):
            given = f"a sum that misses 1 by {off:.3g}, a least chance of {float(policy.min()):.3g}"
            reject("policy", "distributions over actions", given, "divide each row by its sum")
    if uncertainty is not None:
        uncertainty.check(mdp.steps, mdp.factors)
    tau, base = _temperature(temperature, mdp.device), reference_of(mdp, reference)
    paid = (policy * mdp.reward).sum(-1)  # (..., H, S)
    if isinstance(tau, Tensor) or tau > 0:
        ratio = policy * mdp.actions if base is None else policy / base
        strayed = torch.xlogy(policy.clamp_min(0.0), ratio.clamp_min(0.0)).sum(-1)
        paid = paid - (tau[..., None, None] if isinstance(tau, Tensor) else tau) * strayed
    tables = [torch.zeros_like(paid[..., 0, :])]
    for h in range(mdp.steps - 1, -1, -1):
        ahead = mdp.mix(h, _ahead(mdp, tables[-1], h, uncertainty))
        tables.append(paid[..., h, :] + (policy[..., h, :, :] * ahead).sum(-1))
    return torch.stack(tables[::-1], dim=-2)


def optimal(
    mdp: FiniteMDP,
    uncertainty: Uncertainty | None = None,
    temperature: float | Tensor = 0.0,
    reference: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best values (..., H + 1, S), and a policy (..., H, S, A) that has them; leading axes as of the rewards.

    Args:
        temperature, reference: as for `evaluate`; at 0 the policy is greedy, the first of the best actions.
    """
    if uncertainty is not None:
        uncertainty.check(mdp.steps, mdp.factors)
    tau, base = _temperature(temperature, mdp.device), reference_of(mdp, reference)
    if base is None:
        base = torch.full((1, 1, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64, device=mdp.device)
    lead = mdp.reward.shape[:-3]
    if isinstance(tau, Tensor):
        lead = torch.broadcast_shapes(lead, tau.shape)  # type: ignore[no-untyped-call]
    tables, rows = [mdp.reward.new_zeros(*lead, mdp.states)], []
    for h in range(mdp.steps - 1, -1, -1):
        q = mdp.reward_at(h) + mdp.mix(h, _ahead(mdp, tables[-1], h, uncertainty))
        value, row = _step(q, base[h if len(base) > 1 else 0], tau)
        tables.append(value)
        rows.append(row)
    return torch.stack(tables[::-1], dim=-2), torch.stack(rows[::-1], dim=-3)


def _step(q: Tensor, base: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
    """The value (..., S) and rows (..., S, A) of the best policy for q (..., S, A)."""
    best, first = q.max(-1)
    greedy = torch.nn.functional.one_hot(first, q.shape[-1]).to(q)
    if not isinstance(tau, Tensor) and tau == 0:
        return best, greedy
    cold = None
    if isinstance(tau, Tensor):
        cold, tau = tau[..., None] <= 0, tau.clamp_min(1e-300)[..., None]  # against states
    value = log_mean_exp(q.mT, base.mT, tau, best)
    row = torch.softmax(base.log() + (q - best[..., None]) / (tau[..., None] if isinstance(tau, Tensor) else tau), -1)
    if cold is None:
        return value, row
    return torch.where(cold, best, value), torch.where(cold[..., None], greedy, row)


def at_start(mdp: FiniteMDP, values: Tensor) -> Tensor:
    """(...) the mean value of the first state, from values (..., H + 1, S)."""
    return values[..., 0, :] @ mdp.start


def worst_kernels(
    mdp: FiniteMDP,
    policy: Tensor,
    uncertainty: Uncertainty,
    temperature: float | Tensor = 0.0,
    reference: Tensor | None = None,
) -> Tensor:
    """(..., H, F, S) laws of nature that give the policy its worst value, as `evaluate` has it; see there."""
    values, ready = evaluate(mdp, policy, uncertainty, temperature, reference), _ready(mdp)
    worst = [
        uncertainty.worst_laws(values[..., h + 1, :], ready[h if len(ready) > 1 else 0], h) for h in range(mdp.steps)
    ]
    return torch.stack(worst, dim=-3)


def against(mdp: FiniteMDP, laws: Tensor, uncertainty: Uncertainty | None = None) -> FiniteMDP:
    """The model with nature's laws (H, F, S) in place, and what it pays for them (regularised) added to the rewards.

    The nominal value of a policy there is its worst value if the laws are those of `worst_kernels`.
    """
    reward = mdp.reward
    if uncertainty is not None:
        prices = [uncertainty.price(laws[h], mdp.laws_at(h), h) for h in range(mdp.steps)]
        reward = reward + torch.stack([mdp.mix(h, price) for h, price in enumerate(prices)])
    return mdp.replace(laws=laws, reward=reward, fail=())
