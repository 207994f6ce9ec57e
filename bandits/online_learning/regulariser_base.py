"""What every regulariser is: a convex function psi, its Bregman divergence, and the two steps taken with it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bandits.online_learning.domains import Domain
from orbs import reject

__all__ = ["Rate", "Regulariser", "State", "column"]

Rate = float | Tensor
State = dict[str, Tensor]

ANY = ("ball", "box", "simplex", "l1_ball", "capped_simplex", "unconstrained")


def column(eta: Rate) -> Rate:
    """`eta` so that it multiplies points: (..., 1) from (...,)."""
    return eta.unsqueeze(-1) if isinstance(eta, Tensor) else eta


@dataclasses.dataclass(frozen=True)
class Regulariser(ABC):
    """A convex function psi with its Bregman divergence; domains that it fits are in `fits`."""

    name: ClassVar[str]
    adaptive: ClassVar[bool] = False
    fits: ClassVar[tuple[str, ...]] = ANY

    def check(self, domain: Domain) -> None:
        """Raise ValueError where psi does not fit the domain."""
        if domain.name not in self.fits:
            self._refuse(domain, " or ".join(self.fits))

    def _refuse(self, domain: Domain, expected: str) -> None:
        reject(f"{self.name} on {domain.name}", f"a domain {expected}", str(domain), f"take one that {self.name} fits")

    def start(self, domain: Domain, runs: int, device: torch.device | str = "cpu") -> State:
        """The state before the first gradient; empty unless adaptive."""
        return {}

    def update(self, state: State, gradient: Tensor) -> None:
        """Take in the gradient (R, d) of a round, in place; nothing to do unless adaptive."""
        return

    def mirror(self, x: Tensor) -> Tensor:
        """The form in which mirror descent keeps a point."""
        return x

    def point(self, mirror: Tensor) -> Tensor:
        """The point of a mirror form."""
        return mirror

    @abstractmethod
    def minimise(self, linear: Tensor, eta: Rate, domain: Domain, state: State, rounds: int = 0) -> Tensor:
        """(..., d): argmin over the domain of <linear, x> + psi(x)/eta; `rounds` gradients are in `linear`."""

    @abstractmethod
    def move(self, mirror: Tensor, gradient: Tensor, eta: Rate, domain: Domain, state: State) -> Tensor:
        """Mirror form of argmin over the domain of <gradient, x> + D_psi(x, point(mirror))/eta."""

    @abstractmethod
    def value(self, x: Tensor, state: State) -> Tensor:
        """(...,): psi(x)."""

    @abstractmethod
    def divergence(self, x: Tensor, y: Tensor, state: State) -> Tensor:
        """(...,): D_psi(x, y) = psi(x) - psi(y) - <grad psi(y), x - y>."""
