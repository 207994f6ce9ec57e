"""What DynLin-UCB and the baselines of its experiments know of the system: bounds, the constants made of them, epochs.

Mussi, Metelli, Restelli, "Dynamical Linear Bandits", ICML 2023, arXiv 2211.08997.
"""

from __future__ import annotations

import dataclasses
import math

from orbs import reject

__all__ = ["Dynamics", "Epochs", "epochs_within"]

SMALLEST_RADIUS = 1e-4  # below it nothing is held: one round an epoch


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Bounds on a linear system, and its noise.

    Args:
        spectral_radius: rho_bar, an upper bound on the moduli of A's eigenvalues, in [0, 1).
        transient: Phi >= 1, sup_k ||A^k|| / rho^k with the true spectral radius rho.
        state_weight, action_weight: Om and Th, bounds on ||omega|| and ||theta||.
        input_norm, action_norm: Bn and Un, bounds on ||B|| and on the actions' norms.
        noise: sigma.

    Raises:
        ValueError: a bound that is none.
    """

    spectral_radius: float
    transient: float
    state_weight: float
    action_weight: float
    input_norm: float
    action_norm: float
    noise: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 1.0 if field.name == "transient" else 0.0
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= least):
                reject(f"dynamics.{field.name}", f"a finite number of at least {least:g}", repr(value), "give a bound")
        if not self.spectral_radius < 1:
            fix = "rewards of a system with 1 or more grow without bound: give a smaller one"
            reject("dynamics.spectral_radius", "a number below 1", self.spectral_radius, fix)

    @property
    def gain(self) -> float:
        """c_a: a bound on the norm of h, the steady reward's weights."""
        return self.action_weight + self.state_weight * self.input_norm * self.transient / (1 - self.spectral_radius)

    @property
    def transient_gain(self) -> float:
        """c_b: what the bias of early samples is bounded by, with X = U / (1 - rho) as the released code has it."""
        slow = 1 / (1 - self.spectral_radius)
        norm, growth = self.action_norm, self.state_weight * self.transient
        return norm * growth * (norm * self.input_norm * slow + norm * slow)

    @property
    def variance(self) -> float:
        """sb2: a bound on a sample's variance."""
        slow = 1 / (1 - self.spectral_radius**2)
        return self.noise**2 * (1 + (self.state_weight * self.transient) ** 2 * slow)

    @property
    def reward_size(self) -> float:
        """M: the magnitude of rewards as the experiments of the paper bound it for Exp3, without Phi."""
        gain = self.action_weight + self.state_weight * self.input_norm / (1 - self.spectral_radius)
        return gain * self.action_norm

    def radius(self, time: float, horizon: int, ridge: float, dimension: int, transient: bool = True) -> float:
        """beta(t) of DynLin-UCB after `time` rounds, delta = 1 / horizon; with or without its transient term."""
        volume = dimension / 2 * math.log1p(time * self.action_norm**2 / (dimension * ridge))
        bias = self.transient_gain / math.sqrt(ridge) * (1 + math.log(time + 1)) if transient else 0.0
        noise = math.sqrt(2 * self.variance * (math.log(horizon) + volume))
        return self.gain * math.sqrt(ridge) + bias + noise


class Epochs:
    """DynLin-UCB's schedule: epoch m = 1, 2, .. is 1 + H_m rounds long, H_m = floor(ln m / ln(1 / rho)).

    Args:
        spectral_radius: rho; below 1e-4 every epoch is one round.
        first: rounds by which the first epoch is longer.

    Attributes:
        number, start, end: of the present epoch; it takes the rounds start + 1 .. end.
    """

    def __init__(self, spectral_radius: float, first: int = 0) -> None:
        self.spectral_radius, self.first = spectral_radius, first
        self.restart()

    def restart(self) -> None:
        self.number, self.start, self._held = 1, 0, 0
        self._next = self._power(1) if self.spectral_radius >= SMALLEST_RADIUS else math.inf
        self.end = 1 + self.first

    def _power(self, rounds: int) -> float:
        """rho^-rounds."""
        return self.spectral_radius**-rounds

    def advance(self) -> None:
        """Go on to the next epoch."""
        self.number += 1
        # By products, not by a quotient of logarithms, which can fall short by rounding where m is a power of 1 / rho.
        enough = self.number * (1 + 1e-12)
        if self._next <= enough:
            # A guess that may be one off, then products.
            self._held = max(self._held, int(math.log(enough) / -math.log(self.spectral_radius)) - 1)
            while self._power(self._held + 1) <= enough:
                self._held += 1
            self._next = self._power(self._held + 1)
        self.start, self.end = self.end, self.end + 1 + self._held

    def seek(self, rounds: int) -> None:
        """To the epoch in which round `rounds` + 1 lies."""
        self.restart()
        while self.end <= rounds:
            self.advance()


def epochs_within(spectral_radius: float, horizon: int) -> int:
    """The number of epochs that it takes to cover the horizon."""
    epochs = Epochs(spectral_radius)
    epochs.seek(horizon - 1)
    return epochs.number
