"""Step rules: the rate eta_t of a round as a function of the rounds before it, values of their own.

A rule is frozen; what it has to remember lies in a dict of tensors that the learner holds and saves. Every rate is
non-increasing in t, as the bounds need it, but for `Constant`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from orbs import reject

__all__ = [
    "Constant",
    "GradientNorm",
    "InverseSqrt",
    "InverseTime",
    "Mixability",
    "PredictionError",
    "Round",
    "SelfBounding",
    "Step",
]

State = dict[str, Tensor]


class Round(NamedTuple):
    """A round that is over: gradient, what was predicted for it (None: nothing), the point played, all (R, d); eta."""

    gradient: Tensor
    prediction: Tensor | None
    point: Tensor
    eta: float | Tensor


def squared_error(seen: Round) -> Tensor:
    """(R,) ||g_t - M_t||^2."""
    off = seen.gradient if seen.prediction is None else seen.gradient - seen.prediction
    return (off * off).sum(-1)


class Step(ABC):
    """A step rule."""

    def start(self, runs: int, device: torch.device) -> State:
        """What the rule remembers before the first round; tensors (runs,)."""
        return {}

    @abstractmethod
    def rate(self, state: State, t: int) -> float | Tensor:
        """eta_t, a number or (R,), for round t = 1, 2, ...; `state` holds the rounds before t."""

    def update(self, state: State, seen: Round) -> None:
        """Take a round in, in place; most rules have nothing to remember."""
        return


def _zeros(runs: int, device: torch.device) -> Tensor:
    return torch.zeros(runs, dtype=torch.float64, device=device)


def _positive(rule: object, **values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and 0 < value < math.inf):
            reject(f"{type(rule).__name__}.{name}", "a finite number above 0", repr(value), "give a positive number")


@dataclass(frozen=True)
class Constant(Step):
    """eta."""

    eta: float

    def __post_init__(self) -> None:
        _positive(self, eta=self.eta)

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.eta


@dataclass(frozen=True)
class InverseSqrt(Step):
    """scale / sqrt(t)."""

    scale: float

    def __post_init__(self) -> None:
        _positive(self, scale=self.scale)

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.scale / math.sqrt(t)


@dataclass(frozen=True)
class InverseTime(Step):
    """scale / (t - offset), infinite where that is 0: strongly convex losses, scale a multiple of 1 / lambda."""

    scale: float
    offset: int = 0

    def __post_init__(self) -> None:
        _positive(self, scale=self.scale)

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.scale / (t - self.offset) if t > self.offset else math.inf


@dataclass(frozen=True)
class GradientNorm(Step):
    """scale / sqrt(bound^2 + sum_{s<t} ||g_s||^2), bound at least every ||g_t||."""

    scale: float
    bound: float

    def __post_init__(self) -> None:
        _positive(self, scale=self.scale, bound=self.bound)

    def start(self, runs: int, device: torch.device) -> State:
        return {"squares": _zeros(runs, device)}

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.scale * torch.rsqrt(state["squares"] + self.bound**2)

    def update(self, state: State, seen: Round) -> None:
        state["squares"] += (seen.gradient * seen.gradient).sum(-1)


@dataclass(frozen=True)
class PredictionError(Step):
    """D / sqrt(delta + 4 G^2 + sum_{s<t} ||g_s - M_s||^2): 4 G^2 stands for round t's own error.

    Chen, Zhang, Tu, Zhao, Zhang, arXiv 2302.04552; delta = 10 D^2 L^2 makes room for the smoothness of expected losses.
    """

    diameter: float
    bound: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, diameter=self.diameter, bound=self.bound)
        if not 0 <= self.delta < math.inf:
            reject("PredictionError.delta", "a finite number of at least 0", self.delta, "0, or 10 D^2 L^2")

    def start(self, runs: int, device: torch.device) -> State:
        return {"errors": _zeros(runs, device)}

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.diameter * torch.rsqrt(state["errors"] + (self.delta + 4.0 * self.bound**2))

    def update(self, state: State, seen: Round) -> None:
        state["errors"] += squared_error(seen)


@dataclass(frozen=True)
class SelfBounding(Step):
    """D^2 / (nu + sum_{s<t} eta_s ||g_s - M_s||^2), with the rates that were used.

    Sachs, Hadiji, van Erven, Guzman, arXiv 2202.07554, for the regulariser ||x||^2: `Euclidean(scale=2)`.
    """

    diameter: float
    nu: float

    def __post_init__(self) -> None:
        _positive(self, diameter=self.diameter, nu=self.nu)

    def start(self, runs: int, device: torch.device) -> State:
        return {"sum": _zeros(runs, device), "errors": _zeros(runs, device)}

    def rate(self, state: State, t: int) -> float | Tensor:
        return self.diameter**2 / (state["sum"] + self.nu)

    def update(self, state: State, seen: Round) -> None:
        error = squared_error(seen)
        state["errors"] += error
        state["sum"] += error * seen.eta


@dataclass(frozen=True)
class Mixability(Step):
    """AdaHedge: ln K / Delta_{t-1}, Delta the sum of mixability gaps, infinite while that is 0.

    De Rooij, van Erven, Grunwald, Koolen, arXiv 1301.0534. The gap of a round is <x, g> minus the mix loss
    -(1 / eta) ln sum_i x_i exp(-eta g_i), here the change of -(1 / eta) ln sum_i exp(-eta L_i), because a weight that
    has underflowed would be missing from the sum over x: the rule would not see a new leader come. The limit at an
    infinite rate is the change of the smallest L_i. On the simplex of total 1 alone.
    """

    experts: int

    def __post_init__(self) -> None:
        if self.experts < 2:
            reject("Mixability.experts", "at least 2", self.experts, "AdaHedge chooses among experts")

    def start(self, runs: int, device: torch.device) -> State:
        behind = torch.zeros(self.experts, runs, dtype=torch.float64, device=device).T
        return {"gaps": _zeros(runs, device), "behind": behind}

    def rate(self, state: State, t: int) -> float | Tensor:
        return math.log(self.experts) / state["gaps"]

    def update(self, state: State, seen: Round) -> None:
        behind = state["behind"]  # cumulative losses above the smallest
        eta = torch.as_tensor(seen.eta, device=behind.device)
        finite = torch.isfinite(eta)
        rate = torch.where(finite, eta, 1.0).unsqueeze(-1)
        before = torch.exp(-rate * behind).sum(-1).log()
        behind += seen.gradient
        rise = behind.amin(-1, keepdim=True)
        behind -= rise
        after = torch.exp(-rate * behind).sum(-1).log()
        mixed = rise.squeeze(-1) + torch.where(finite, (before - after) / rate.squeeze(-1), 0.0)
        state["gaps"] += ((seen.point * seen.gradient).sum(-1) - mixed).clamp_min_(0.0)
