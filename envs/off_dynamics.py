"""Robust linear MDPs: the simulated off-dynamics MDP with its perturbed targets, and random d-rectangular ones.

The first is the simulation of "Distributionally Robust Off-Dynamics Reinforcement Learning" (Liu and Xu, arXiv
2402.15399), on which the papers on robust linear MDPs are compared; `softness` is ours: it gives the rewarding law a
second outcome, without which KL and chi-square sets cannot move it at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs.episodic_world import EpisodicWorld
from envs.finite_mdp import FiniteMDP, linear_mdp
from envs.mdp_env import SingleMDP
from envs.regret_world import between, known, whole
from envs.uncertainty import Uncertainty

__all__ = [
    "OffDynamics",
    "RandomRobustMDP",
    "off_dynamics_mdp",
    "off_dynamics_target",
    "random_robust_mdp",
    "single",
    "single_random",
]

STEPS, STATES, FACTORS, BITS = 3, 5, 4, 4
FAIL, GOAL = 3, 4  # the states x4 and x5
DIVERGENCES = ("off", "tv", "kl", "chi2")
FORMS = ("constrained", "regularised")


def chances(norm: float, delta: float) -> np.ndarray:
    """(16,) c(a) = delta + <xi, a> for the actions a in {-1, 1}^4, xi = norm/4 (1, 1, 1, 1)."""
    signs = np.array(list(itertools.product((-1, 1), repeat=BITS)))
    # Of whole numbers first: actions with equally many ones have equal chances to the last bit.
    return np.asarray(delta + signs.sum(1) * (norm / BITS))


def off_dynamics_mdp(norm: float = 0.2, delta: float = 0.3, leak: float = 0.001, softness: float = 0.0) -> FiniteMDP:
    """Five states, 16 actions, 3 steps, 4 laws: x1 -> x2 -> x3, or to x5, where each later step pays 1; x4 fails.

    Args:
        norm: of xi in the 1-norm; an action's chance c of x5 is delta - norm to delta + norm, which must be in [0, 1].
        leak: chance of x4 on the way x1 -> x2 -> x3.
        softness: chance of x4 instead of x5 in the first step.
    """
    c = np.maximum(chances(norm, delta), 0.0)
    phi = np.zeros((STATES, 2**BITS, FACTORS))
    for state in range(3):
        phi[state, :, state], phi[state, :, 3] = 1 - c, c
    phi[FAIL, :, 2], phi[GOAL, :, 3] = 1, 1
    laws = np.zeros((STEPS, FACTORS, STATES))
    laws[:, :, FAIL] = 1.0  # whatever no feature of a reachable state asks for
    laws[0, 0], laws[1, 1] = 0.0, 0.0
    laws[0, 0, [1, FAIL]] = laws[1, 1, [2, FAIL]] = 1 - leak, leak
    laws[:, 3] = 0.0
    laws[:, 3, GOAL] = 1.0
    laws[0, 3, [GOAL, FAIL]] = 1 - softness, softness
    weights = np.zeros((STEPS, FACTORS))
    weights[1:, 3] = 1.0
    return linear_mdp(phi, laws, weights, STEPS, 0, (FAIL,))


def off_dynamics_target(model: FiniteMDP, shift: float, norm: float, delta: float = 0.3) -> FiniteMDP:
    """The perturbed MDP: the first step goes from x1 to x2 with chance 1 - c, to x4 with `shift` c, else to x5."""
    c = torch.as_tensor(np.maximum(chances(norm, delta), 0.0))
    kernel = model.kernel.expand(STEPS, -1, -1, -1).clone()
    kernel[0, 0] = 0.0
    kernel[0, 0, :, 1], kernel[0, 0, :, FAIL], kernel[0, 0, :, GOAL] = 1 - c, shift * c, (1 - shift) * c
    return FiniteMDP(kernel.flatten(1, 2), model.reward, STEPS, None, model.start, model.fail)


def random_robust_mdp(
    instance: int = 5, steps: int = 4, states: int = 8, actions: int = 4, dimension: int = 4
) -> FiniteMDP:
    """Features and laws Dirichlet(1/2), weights uniform; the last state fails, by a law of its own.

    Drawn by NumPy's default generator seeded with `instance`, in the order features, laws, weights.
    """
    rng = np.random.default_rng(instance)
    phi, laws = np.zeros((states, actions, dimension)), np.zeros((steps, dimension, states))
    half = np.full(dimension - 1, 0.5)
    phi[:-1, :, :-1] = rng.dirichlet(half, (states - 1, actions))
    phi[-1, :, -1] = 1.0
    laws[:, :-1] = rng.dirichlet(np.full(states, 0.5), (steps, dimension - 1))
    laws[:, -1, -1] = 1.0
    weights = rng.uniform(size=(steps, dimension))
    weights[:, -1] = 0.0
    return linear_mdp(phi, laws, weights, steps, 0, (states - 1,))


def nature(divergence: str, form: str, level: float, only: tuple[int, int] | None, shape: tuple[int, int]) -> Any:
    """The uncertainty set of a problem's settings; constrained ones at one (step, law) alone if `only` names it."""
    known("divergence", divergence, DIVERGENCES)
    known("form", form, FORMS)
    if divergence == "off":
        return None
    everywhere = Uncertainty(divergence, form, between("level", level, 0.0, np.inf))  # type: ignore[arg-type]
    if form == "regularised" or only is None:
        return everywhere
    levels = torch.zeros(shape, dtype=torch.float64)
    levels[only] = level
    return Uncertainty(divergence, form, levels)  # type: ignore[arg-type]


class OffDynamics(EpisodicWorld):
    """The simulated off-dynamics MDP, trained nominally, judged robustly and in targets that are ever more perturbed.

    Args:
        horizon, runs, seed, device: as for `EpisodicWorld`.
        norm, delta, leak, softness: as for `off_dynamics_mdp`.
        divergence: tv, kl, chi2, or off.
        form: constrained (radius on the first step's fourth law alone) or regularised (weight of all laws).
        level: the radius, at least 0, or the weight, above 0.

    Raises:
        ValueError: a value out of its range, an unknown word.
    """

    def __init__(
        self,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        norm: float = 0.2,
        delta: float = 0.3,
        leak: float = 0.001,
        softness: float = 0.0,
        divergence: str = "tv",
        form: str = "constrained",
        level: float = 0.5,
    ) -> None:
        self.delta = between("OffDynamics.delta", delta, 0.0, 1.0)
        self.norm = between("OffDynamics.norm", norm, 0.0, min(self.delta, 1 - self.delta))
        self.leak = between("OffDynamics.leak", leak, 0.0, 1.0)
        self.softness = between("OffDynamics.softness", softness, 0.0, 1.0)
        chosen = nature(divergence, form, level, (0, 3), (STEPS, FACTORS))
        super().__init__(STEPS, STATES, 2**BITS, horizon, runs, seed, device, chosen)

    def _model(self) -> FiniteMDP:
        return off_dynamics_mdp(self.norm, self.delta, self.leak, self.softness)

    def _targets(self) -> dict[str, FiniteMDP]:
        model = self._model()
        shifts = [i / 20 for i in range(21)]
        return {f"{q:g}": off_dynamics_target(model, q, self.norm, self.delta) for q in shifts}


class RandomRobustMDP(EpisodicWorld):
    """A random d-rectangular robust MDP, the same for all runs.

    Args:
        horizon, runs, seed, device: as for `EpisodicWorld`.
        instance, steps, states, actions, dimension: as for `random_robust_mdp`.
        divergence, form, level: of the uncertainty set, of all laws.
    """

    def __init__(
        self,
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        instance: int = 5,
        steps: int = 4,
        states: int = 8,
        actions: int = 4,
        dimension: int = 4,
        divergence: str = "tv",
        form: str = "constrained",
        level: float = 0.2,
    ) -> None:
        self.instance = whole("RandomRobustMDP.instance", instance, 0)
        shape = {"steps": steps, "states": states, "actions": actions, "dimension": dimension}
        least = {"states": 2, "dimension": 2}
        self._size = {name: whole(f"RandomRobustMDP.{name}", n, least.get(name, 1)) for name, n in shape.items()}
        chosen = nature(divergence, form, level, None, (steps, dimension))
        super().__init__(steps, states, actions, horizon, runs, seed, device, chosen)

    def _model(self) -> FiniteMDP:
        return random_robust_mdp(self.instance, **self._size)


def single(**arguments: Any) -> SingleMDP:
    """One run of the off-dynamics MDP, step by step, as a gymnasium environment."""
    return SingleMDP(OffDynamics, **arguments)


def single_random(**arguments: Any) -> SingleMDP:
    """One run of a random d-rectangular MDP, step by step, as a gymnasium environment."""
    return SingleMDP(RandomRobustMDP, **arguments)
