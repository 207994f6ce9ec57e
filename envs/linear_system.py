"""Linear systems with a reward: what the dynamical linear bandit is played on, and what is known of one in closed form.

    x' = A x + B u,   reward = <omega, x> + <theta, u>,   omega = C^T 1, theta = D^T 1

Source: Mussi, Metelli, Restelli, "Dynamical Linear Bandits", ICML 2023, arXiv 2211.08997. A system's file is JSON with
the keys of the configurations in marcomussi/DLB.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from orbs import reject

__all__ = ["SYSTEMS", "LinearSystem", "budget_actions", "find_system"]

FOLDER = Path(__file__).parent / "systems"
SYSTEMS = ("synthetic", "advertising")
POWERS = 1000  # of A, over which its transient growth is the largest


def budget_actions(dimension: int, budget: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """(K, d) the vertices of {low <= u <= high, sum u <= budget}: channels filled greedily, in every order; sorted."""
    if dimension < 1 or dimension > 8:
        reject("dimension", "1 to 8 channels, whose orders can be gone through", dimension, "list the actions yourself")
    if not (high > low and budget >= dimension * low):
        reject("budget", "one that buys the least of every channel", budget, "raise it, or lower the least")
    found = set()
    for order in itertools.permutations(range(dimension)):
        u, left = [low] * dimension, budget - dimension * low
        for channel in order:
            given = max(0.0, min(left, high - low))
            u[channel] += given
            left -= given
        found.add(tuple(u))
    return np.array(sorted(found))


def _matrix(name: str, given: Any) -> np.ndarray:
    try:
        matrix = np.array(given, np.float64)
    except (TypeError, ValueError):
        reject(f"system.{name}", "a matrix of numbers", repr(given), "give a list of rows")
    if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
        reject(f"system.{name}", "a matrix of finite numbers", f"shape {matrix.shape}: {given}", "give a list of rows")
    return matrix


@dataclasses.dataclass(frozen=True, eq=False)
class LinearSystem:
    """A stable linear system and the actions to choose from.

    Args:
        A: (n, n); B: (n, d); C: (m, n) and D: (m, d), whose m outputs add up to the reward.
        actions: (K, d), the arms.
        noise: sigma, standard deviation of each state coordinate's and each output's noise.
        expert: (d,) what a human planner does, or None.
        name: what it is called.

    Raises:
        ValueError: shapes that do not fit, a spectral radius of 1 or more, no actions, numbers that are not finite.
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    actions: np.ndarray
    noise: float = 0.01
    expert: np.ndarray | None = None
    name: str = "system"

    def __post_init__(self) -> None:
        for field in ("A", "B", "C", "D", "actions"):
            object.__setattr__(self, field, _matrix(field, getattr(self, field)))
        n, d, m = len(self.A), self.B.shape[1], len(self.C)
        for field, shape in (("A", (n, n)), ("B", (n, d)), ("C", (m, n)), ("D", (m, d))):
            given = getattr(self, field).shape
            if given != shape:
                reject(
                    f"system.{field}", f"shape {shape}", f"shape {given}", "A is (n, n), B (n, d), C (m, n), D (m, d)"
                )
        if self.actions.shape[1] != d:
            wanted = f"rows of {d} numbers, one an input"
            reject("system.actions", wanted, f"shape {self.actions.shape}", "give one row an arm")
        if not self.spectral_radius < 1:
            wanted = "a stable system, spectral radius below 1"
            reject("system.A", wanted, f"{self.spectral_radius:.6g}", "scale A down: rewards would grow without bound")
        if not (np.isfinite(self.noise) and self.noise >= 0):
            reject("system.noise", "a finite number of at least 0", self.noise, "give a standard deviation")
        if self.expert is not None:
            expert = np.array(self.expert, np.float64)
            if expert.shape != (d,) or not np.isfinite(expert).all():
                reject("system.expert", f"{d} finite numbers", self.expert, "give one an input, or None")
            object.__setattr__(self, "expert", expert)

    @classmethod
    def from_file(cls, path: str | Path) -> LinearSystem:
        """Read a JSON file.

        Raises:
            ValueError: no such file, not JSON, a key that is missing, values that do not fit.
        """
        path = Path(path)
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            reject("system", f"one of {', '.join(SYSTEMS)}, or a JSON file", f"{path} ({error.strerror})", "check it")
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            reject("system", "a JSON file", f"{path}: {error}", "mend it")
        needed = ("A", "B", "C", "D", "max_daily_budget", "max_camp_budget", "min_camp_budget", "noise_sigma")
        missing = [key for key in needed if not isinstance(given, dict) or key not in given]
        if missing:
            reject("system", f"the keys {', '.join(needed)}", f"{path} without {', '.join(missing)}", "add them")
        numbers = {key: given[key] for key in needed[4:]}
        for key, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                reject(f"system.{key}", "a number", repr(value), f"mend it in {path}")
        budget, high, low, noise = (float(value) for value in numbers.values())
        inputs = _matrix("B", given["B"]).shape[1]
        weights, expert = given.get("expert"), None
        if weights not in (None, [-1]):
            expert = plan_of(_matrix("expert", [weights])[0], budget, high)
        actions = budget_actions(inputs, budget, low, high)
        fields = {key: given[key] for key in ("A", "B", "C", "D")}
        return cls(**fields, actions=actions, noise=noise, expert=expert, name=path.stem)

    @property
    def omega(self) -> np.ndarray:
        """(n,) the reward's weights on the state."""
        return np.asarray(self.C.sum(0))

    @property
    def theta(self) -> np.ndarray:
        """(d,) the reward's weights on the action."""
        return np.asarray(self.D.sum(0))

    @functools.cached_property
    def spectral_radius(self) -> float:
        """The largest modulus of A's eigenvalues, 0 of a nilpotent A (its computed ones are only nearly 0)."""
        n, size = len(self.A), np.linalg.norm(self.A, 2)
        if size == 0 or np.linalg.norm(np.linalg.matrix_power(self.A / size, n), 2) < 1e-14:
            return 0.0
        return float(np.abs(np.linalg.eigvals(self.A)).max())

    @functools.cached_property
    def transient(self) -> float:
        """Phi: how far ||A^k|| exceeds rho^k at most, at least 1; of a nilpotent A, how large ||A^k|| gets.

        Over 1000 powers: where an eigenvalue of modulus rho is defective the ratio grows for ever: no bound then.
        """
        nilpotent = self.spectral_radius == 0
        scaled = self.A if nilpotent else self.A / self.spectral_radius
        power, largest = np.eye(len(scaled)), 1.0
        for _ in range(len(scaled) if nilpotent else POWERS):
            power = power @ scaled
            largest = max(largest, float(np.linalg.norm(power, 2)))
        return largest

    def markov_parameters(self, count: int) -> np.ndarray:
        """(count, d): what an action adds to the reward 0, 1, .. rounds later."""
        rows, carried = [self.theta], self.omega
        for _ in range(count - 1):
            rows.append(self.B.T @ carried)
            carried = self.A.T @ carried
        return np.array(rows[:count])

    @functools.cached_property
    def steady(self) -> np.ndarray:
        """h (d,): holding u for ever gives the mean reward <h, u>."""
        return np.asarray(self.theta + self.B.T @ np.linalg.solve(np.eye(len(self.A)) - self.A.T, self.omega))

    def bounds(self) -> dict[str, float]:
        """What DynLin-UCB knows of the system: its spectral radius, transient growth, and norms of its parts."""
        return {
            "spectral_radius": self.spectral_radius,
            "transient": self.transient,
            "state_weight": float(np.linalg.norm(self.omega)),
            "action_weight": float(np.linalg.norm(self.theta)),
            "input_norm": float(np.linalg.norm(self.B, 2)),
            "action_norm": float(np.linalg.norm(self.actions, axis=1).max()),
        }


def plan_of(weights: np.ndarray, budget: float, high: float) -> np.ndarray:
    """(d,) the planner's action: shares of the budget, none above `high`, what is cut off going to the others."""
    share = weights / weights.sum()
    top = share > high / budget
    share = np.where(top, high / budget, share)
    if top.any() and not top.all():
        share[~top] *= (1.0 - share[top].sum()) / share[~top].sum()
    return np.asarray(share * budget)


def find_system(given: str | LinearSystem) -> LinearSystem:
    """A system by name, by its file, or itself."""
    if isinstance(given, LinearSystem):
        return given
    return LinearSystem.from_file(FOLDER / f"{given}.json" if given in SYSTEMS else given)
