"""Regularisers psi, and what follows-the-leader and mirror descent do with them on each domain.

    minimise:  argmin_{x in domain} <linear, x> + psi(x)/eta                      (FTRL)
    move:      argmin_{x in domain} <gradient, x> + D_psi(x, point)/eta           (mirror descent)

McMahan, arXiv 1403.3465; Orabona, arXiv 1912.13213. Points are float64 (..., d); eta > 0 is a number or a tensor
(...,), and may be infinite for the entropy alone. A regulariser is a value; what the adaptive ones gather
lies in a dict of tensors that the learner holds and hands back.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from bandits.online_learning import simplex_solvers as solvers
from bandits.online_learning.adaptive_regularisers import Diagonal, MatrixAdaptive, Quadratic
from bandits.online_learning.domains import Box, CappedSimplex, Domain, Simplex
from bandits.online_learning.regulariser_base import Rate, Regulariser, State, column
from orbs import reject

__all__ = [
    "Diagonal",
    "Entropy",
    "Euclidean",
    "LogBarrier",
    "MatrixAdaptive",
    "Quadratic",
    "Rate",
    "Regulariser",
    "State",
    "Tsallis",
]


@dataclasses.dataclass(frozen=True)
class Euclidean(Regulariser):
    """psi = scale/2 ||x||^2: gradient descent, or lazily projected dual averaging.

    Args:
        scale: positive; 2 gives ||x||^2, which Sachs et al. (arXiv 2202.07554) use.
        l1: weight of ||x||_1 added to every round's loss, for FTRL alone (regularised dual averaging, Xiao 2010):
            thresholding before projecting is exact on a ball around 0, on a box and without constraint.
    """

    name: ClassVar[str] = "euclidean"
    scale: float = 1.0
    l1: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            reject("euclidean.scale", "a positive number", self.scale, "1 gives half the squared norm")
        if not (math.isfinite(self.l1) and self.l1 >= 0):
            reject("euclidean.l1", "a number of at least 0", self.l1, "0 leaves it out")

    def check(self, domain: Domain) -> None:
        if self.l1 > 0 and domain.name not in ("ball", "box", "unconstrained"):
            self._refuse(domain, "ball or box or unconstrained for l1 > 0")

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        rate = column(eta) / self.scale
        if self.l1 > 0:
            linear = linear - linear.clamp(-self.l1 * rounds, self.l1 * rounds)
        return domain.project(linear * -rate)

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        if self.l1 > 0:
            reject("euclidean.l1", "0 for mirror descent", self.l1, "use follow-the-regularised-leader")
        return domain.project(mirror - gradient * (column(eta) / self.scale))

    def value(self, x: Tensor, state: State) -> Tensor:
        return (x * x).sum(-1) * (self.scale / 2)

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        return self.value(x - y, state)


@dataclasses.dataclass(frozen=True)
class Entropy(Regulariser):
    """psi = sum x_i ln x_i - x_i: Hedge on the simplex, also with caps, exponentials on a box with low >= 0.

    On a simplex the linear part is constant. eta = inf is the limit: uniform over the smallest entries of `linear`
    (with caps: these first, then the next smallest). Mirror form: ln x, so that tiny weights recover later.
    """

    name: ClassVar[str] = "entropy"
    fits: ClassVar[tuple[str, ...]] = ("simplex", "capped_simplex", "box")

    def check(self, domain: Domain) -> None:
        super().check(domain)
        least = domain.low if isinstance(domain, Box) else domain.floor if isinstance(domain, CappedSimplex) else 0.0
        if least < 0:
            self._refuse(domain, "simplex, or capped_simplex or box with no negative coordinate")

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        if isinstance(domain, Box):
            return (linear * self._negative(eta)).exp_().clamp_(domain.low, domain.high)
        if isinstance(domain, CappedSimplex):
            logs = (linear - linear.amin(-1, keepdim=True)).mul_(self._negative(eta))
            infinite = torch.as_tensor(column(eta), dtype=logs.dtype, device=logs.device).isinf()
            # In the limit every other loss is out of reach of the smaller ones: steps of 1e3 in the exponent.
            logs = torch.where(infinite, -1e3 * solvers.ranks(linear), logs)
            return solvers.capped_entropy(logs, domain.cap, domain.total, domain.floor).exp_()
        weights = solvers.soft_weights(linear, eta)
        return weights if _total(domain) == 1.0 else weights.mul_(_total(domain))

    def mirror(self, x: Tensor) -> Tensor:
        return x.log()

    def point(self, mirror: Tensor) -> Tensor:
        return mirror.exp()

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        logs = mirror + gradient * self._negative(eta)
        if isinstance(domain, Box):
            return logs.clamp(math.log(domain.low) if domain.low > 0 else -math.inf, math.log(domain.high))
        logs = logs.sub_(logs.amax(-1, keepdim=True))
        if isinstance(domain, CappedSimplex):
            return solvers.capped_entropy(logs, domain.cap, domain.total, domain.floor)
        return logs.sub_((logs.exp().sum(-1, keepdim=True) / _total(domain)).log_())

    @staticmethod
    def _negative(eta: Rate) -> Rate:
        """-eta, the largest float for infinity: 0 times it is 0."""
        if isinstance(eta, Tensor):
            return -eta.clamp(max=solvers.LARGEST).unsqueeze(-1)
        return -min(eta, solvers.LARGEST)

    def value(self, x: Tensor, state: State) -> Tensor:
        return (torch.xlogy(x, x) - x).sum(-1)

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        return (torch.xlogy(x, x) - torch.xlogy(x, y) - x + y).sum(-1)


def _total(domain: Domain) -> float:
    return domain.total if isinstance(domain, Simplex) else 1.0


@dataclasses.dataclass(frozen=True)
class LogBarrier(Regulariser):
    """psi = -sum ln x_i, of x as it stands whatever the simplex's total."""

    name: ClassVar[str] = "log_barrier"
    fits: ClassVar[tuple[str, ...]] = ("simplex",)

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        total = _total(domain)
        scores = (linear - linear.amin(-1, keepdim=True)).mul_(total * column(eta))
        return solvers.barrier_weights(scores, 1.0)[0].mul_(total)

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        total = _total(domain)
        scores = mirror.reciprocal() + gradient * column(eta)
        scores = scores.sub_(scores.amin(-1, keepdim=True)).mul_(total)
        return solvers.barrier_weights(scores, 1.0)[0].mul_(total)

    def value(self, x: Tensor, state: State) -> Tensor:
        return -x.log().sum(-1)

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        ratio = x / y
        return (ratio - 1.0 - ratio.log()).sum(-1)


@dataclasses.dataclass(frozen=True)
class Tsallis(Regulariser):
    """psi = -sum (x_i^alpha - alpha x_i) / (alpha (1 - alpha)), of x as it stands whatever the simplex's total.

    Zimmert and Seldin, arXiv 1807.07623. With the same eta, alpha -> 1 is the entropy, alpha -> 0 the log-barrier.

    Args:
        alpha: strictly between 0 and 1.
    """

    name: ClassVar[str] = "tsallis"
    fits: ClassVar[tuple[str, ...]] = ("simplex",)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            reject("tsallis.alpha", "a number strictly between 0 and 1", self.alpha, "LogBarrier is 0, Entropy is 1")

    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        total, rest = _total(domain), 1.0 - self.alpha
        scores = (linear - linear.amin(-1, keepdim=True)).mul_(total**rest * column(eta))
        return solvers.barrier_weights(scores, 1.0 / rest)[0].mul_(total)

    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        total, rest = _total(domain), 1.0 - self.alpha
        # (x^-rest - 1) / rest: the constant is free, and without it digits are lost where alpha is near 1.
        slopes = mirror.rsqrt() - 1.0 if self.alpha == 0.5 else torch.expm1(mirror.log().mul_(-rest))
        scores = slopes.div_(rest) + gradient * column(eta)
        scores = scores.sub_(scores.amin(-1, keepdim=True)).mul_(total**rest)
        return solvers.barrier_weights(scores, 1.0 / rest)[0].mul_(total)

    def value(self, x: Tensor, state: State) -> Tensor:
        return (self.alpha * x - x**self.alpha).sum(-1) / (self.alpha * (1.0 - self.alpha))

    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        powers = y**self.alpha
        gaps = (1.0 - self.alpha) * powers + self.alpha * powers * (x / y) - x**self.alpha
        return gaps.sum(-1) / (self.alpha * (1.0 - self.alpha))
