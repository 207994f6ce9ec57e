"""Second, plain versions of the learners of the dynamical linear bandit: one run, one round at a time, in loops.

Nothing here is shared with the package. Where a learner draws, a function of the round (counted from 0) gives the same
uniform number to both versions.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Uniform = Callable[[int], float]
BUDGET = 1.5
SYSTEMS = Path(__file__).parents[3] / "envs" / "systems"

# typed here a second time, so that the package's files are checked too
MATRICES: dict[str, dict[str, list[list[float]]]] = {
    "synthetic": {
        "A": [[0.2, 0, 0], [0, 0, 0], [0, 0, 0.1]],
        "B": [[0.45, 0, 0], [0, 0, 0], [0, 0, 0.1]],
        "C": [[1, 0, 0], [0, 0, 0], [0, 0, 0.1]],
        "D": [[0, 0, 0], [0, 0.5, 0], [0, 0, 0.1]],
    },
    "advertising": {
        "A": [[0.38, 0.33, 0.60], [0.07, 0.76, -0.54], [0.18, 0.34, 0.05]],
        "B": [[0.14, 0.34, -0.05], [-0.17, 0.03, -0.01], [0.04, -0.09, 0.17]],
        "C": [[0.25, -0.14, 0.01], [-0.55, 0.20, -0.13], [-0.31, -0.10, -0.01]],
        "D": [[0.11, 0.10, 0.01], [0.01, 0.36, 0.01], [0.01, -0.05, 0.00]],
    },
}


@dataclass
class Plant:
    """A linear system with its action set and the norms that the learners are told."""

    A: np.ndarray
    B: np.ndarray
    omega: np.ndarray
    theta: np.ndarray
    actions: np.ndarray
    sigma: float
    rho: float = field(init=False)
    phi: float = field(init=False)

    def __post_init__(self) -> None:
        self.rho = float(np.abs(np.linalg.eigvals(self.A)).max())
        self.phi = 1.0
        power = np.eye(len(self.A))
        for _ in range(1000):
            power = power @ (self.A / self.rho if self.rho > 0 else self.A)
            self.phi = max(self.phi, float(np.linalg.norm(power, 2)))
        self.omega_norm = float(np.linalg.norm(self.omega))
        self.theta_norm = float(np.linalg.norm(self.theta))
        self.b_norm = float(np.linalg.norm(self.B, 2))
        self.u_norm = max(float(np.linalg.norm(u)) for u in self.actions)

    @property
    def h(self) -> np.ndarray:
        return np.asarray(self.theta + self.B.T @ np.linalg.solve((np.eye(len(self.A)) - self.A).T, self.omega))

    @property
    def magnitude(self) -> float:
        return (self.theta_norm + self.omega_norm * self.b_norm / (1 - self.rho)) * self.u_norm


def plant(name: str, sigma: float) -> Plant:
    m = {key: np.array(rows, dtype=float) for key, rows in MATRICES[name].items()}
    actions = np.array(sorted(set(itertools.permutations((0.0, 0.5, 1.0)))))
    return Plant(m["A"], m["B"], m["C"].T @ np.ones(3), m["D"].T @ np.ones(3), actions, sigma)


def stored(name: str) -> dict[str, object]:
    return dict(json.loads((SYSTEMS / f"{name}.json").read_text()))


class Simulation:
    """The reward first, then the state; `noise` gives (state noise (n,), reward noise) of a round."""

    def __init__(self, system: Plant, noise: Callable[[int], tuple[np.ndarray, float]]) -> None:
        self.system, self.noise, self.t, self.x = system, noise, 0, np.zeros(len(system.A))

    def step(self, u: np.ndarray) -> float:
        s = self.system
        eps, eta = self.noise(self.t)
        y = float(s.omega @ self.x + s.theta @ u + eta)
        self.x = s.A @ self.x + s.B @ u + eps
        self.t += 1
        return y


def lowest_of_the_best(scores: Sequence[float]) -> int:
    top = max(scores)
    return next(i for i, score in enumerate(scores) if score >= top - 1e-10 * max(1.0, abs(top)))


def from_cumulative(p: Sequence[float], uniform: float) -> int:
    """The arm whose piece of [0, 1) holds the number."""
    total = 0.0
    for arm, weight in enumerate(p):
        total += weight
        if uniform < total:
            return arm
    return len(p) - 1


def held(m: int, rho: float) -> int:
    """H_m: the largest k with rho^-k <= m."""
    if rho < 1e-4:
        return 0
    k = 0
    while (1 / rho) ** (k + 1) <= m * (1 + 1e-12):
        k += 1
    return k


@dataclass
class Ridge:
    """V and b as they are defined, the estimate by one solve."""

    d: int
    lam: float

    def __post_init__(self) -> None:
        self.V, self.b = self.lam * np.eye(self.d), np.zeros(self.d)

    def add(self, u: np.ndarray, y: float) -> None:
        self.V = self.V + np.outer(u, u)
        self.b = self.b + u * y

    def estimate(self) -> np.ndarray:
        return np.asarray(np.linalg.solve(self.V, self.b))

    def width(self, u: np.ndarray) -> float:
        return math.sqrt(float(u @ np.linalg.solve(self.V, u)))


class DynLin:
    """DynLin-UCB; `late` is the released code's way of counting; `rho` may differ from the system's."""

    def __init__(
        self, system: Plant, horizon: int, lam: float, first: int, rho: float | None = None, late: bool = False
    ) -> None:
        self.s, self.horizon, self.lam, self.first, self.late = system, horizon, lam, first, late
        self.rho = system.rho if rho is None else rho
        self.ridge = Ridge(system.actions.shape[1], lam)
        self.t, self.m, self.left, self.arm = 0, 0, 0, -1

    def beta(self, t: int) -> float:
        s, lam, rho, d = self.s, self.lam, self.rho, self.s.actions.shape[1]
        c_a = s.theta_norm + s.omega_norm * s.b_norm * s.phi / (1 - rho)
        x_norm = s.u_norm / (1 - rho)
        c_b = s.u_norm * s.omega_norm * s.phi * (s.u_norm * s.b_norm / (1 - rho) + x_norm)
        sb2 = s.sigma**2 * (1 + s.omega_norm**2 * s.phi**2 / (1 - rho**2))
        log_term = math.log(self.horizon) + d / 2 * math.log(1 + t * s.u_norm**2 / (d * lam))
        return c_a * math.sqrt(lam) + c_b / math.sqrt(lam) * (1 + math.log(t + 1)) + math.sqrt(2 * sb2 * log_term)

    def scores(self, t: int) -> list[float]:
        h = self.ridge.estimate()
        return [float(h @ u) + self.beta(t) * self.ridge.width(u) for u in self.s.actions]

    def choose(self) -> int:
        if self.left == 0:
            self.m += 1
            # released code: S_1 = 1 and S_{m+1} = S_m + 1 + H_{m+1}: the first action is held two rounds
            self.left = held(self.m, self.rho) + 1 + (1 if self.late and self.m == 1 else 0)
            self.arm = self.first if self.m == 1 else lowest_of_the_best(self.scores(self.t))
        return self.arm

    def update(self, arm: int, y: float) -> None:
        self.left -= 1
        self.t += 1
        if self.left == 0:
            self.ridge.add(self.s.actions[arm], y)


class LinUcb:
    """Both published tunings: lam = "log" (DynLin's constants, no transient term) and 1 (no noise factor)."""

    def __init__(self, system: Plant, horizon: int, tuning: str, first: int) -> None:
        self.s, self.horizon, self.tuning, self.first, self.t = system, horizon, tuning, first, 0
        self.ridge = Ridge(system.actions.shape[1], math.log(horizon) if tuning == "log" else 1.0)

    def shrink(self) -> float:
        """What multiplies t Un^2 / (d lam) under the logarithm."""
        return 1.0

    def beta(self) -> float:
        s, d, lam = self.s, self.s.actions.shape[1], self.ridge.lam
        if self.tuning == "log":
            c_a = s.theta_norm + s.omega_norm * s.b_norm * s.phi / (1 - s.rho)
            sb2 = s.sigma**2 * (1 + s.omega_norm**2 * s.phi**2 / (1 - s.rho**2))
            inside = 1 + self.t * s.u_norm**2 / (d * lam) * self.shrink()
            return c_a * math.sqrt(lam) + math.sqrt(2 * sb2 * (math.log(self.horizon) + d / 2 * math.log(inside)))
        inside = (d * lam + self.horizon * BUDGET**2) / (d * lam)
        return s.theta_norm * math.sqrt(lam) + math.sqrt(2 * math.log(self.horizon) + d * math.log(inside))

    def choose(self) -> int:
        if self.t == 0:
            return self.first
        h = self.ridge.estimate()
        return lowest_of_the_best([float(h @ u) + self.beta() * self.ridge.width(u) for u in self.s.actions])

    def update(self, arm: int, y: float) -> None:
        self.ridge.add(self.s.actions[arm], y)
        self.t += 1


class DLinUcbLog(LinUcb):
    """LinUCB (log) with the discounted logarithm."""

    def __init__(self, system: Plant, horizon: int, first: int) -> None:
        super().__init__(system, horizon, "log", first)

    def shrink(self) -> float:
        # (1 - g^2t) / (1 - g^2) is close to t for small t; the spec multiplies (t Un^2 / (d lam)) by it
        g2 = 0.999999**2
        return (1 - g2**self.t) / (1 - g2)


class DLinUcbOne:
    """The released D-LinUCB with lam = 1: V, W and b written out as recursions."""

    g = 0.999999999

    def __init__(self, system: Plant, horizon: int, first: int) -> None:
        self.s, self.horizon, self.first, self.t = system, horizon, first, 0
        d = system.actions.shape[1]
        self.V, self.W, self.b = np.eye(d), np.eye(d), np.zeros(d)

    def estimate(self) -> np.ndarray:
        return np.asarray(np.linalg.solve(self.V, self.b))

    def beta(self) -> float:
        s, d, g2 = self.s, self.s.actions.shape[1], self.g**2
        mu = self.g ** (-self.t)
        grown = sum(g2**k for k in range(self.t))
        inside = 1 + BUDGET**2 * grown / (d * mu)
        return s.theta_norm * math.sqrt(mu) + s.sigma * math.sqrt(2 * math.log(self.horizon) + d * math.log(inside))

    def choose(self) -> int:
        if self.t == 0:
            return self.first
        h, beta = self.estimate(), self.beta()
        scores = []
        for u in self.s.actions:
            z = np.linalg.solve(self.V, u)
            scores.append(float(h @ u) + beta * math.sqrt(float(z @ self.W @ z)))
        return lowest_of_the_best(scores)

    def update(self, arm: int, y: float) -> None:
        u, g = self.s.actions[arm], self.g
        mu = g ** (-self.t)
        self.V = g * self.V + np.outer(u, u) + (1 - g) * mu * np.eye(len(u))
        self.W = g**2 * self.W + np.outer(u, u) + (1 - g**2) * mu * np.eye(len(u))
        self.b = g * self.b + u * y
        self.t += 1


def epochs_to_cover(horizon: int, rho: float) -> int:
    done = m = 0
    while done < horizon:
        m += 1
        done += 1 + held(m, rho)
    return m


class Exp3:
    """`uniform` gives the number of each draw, counted from 0. Rewards are summed as they come, then mapped."""

    def __init__(self, system: Plant, horizon: float, uniform: Uniform) -> None:
        self.s, self.uniform, self.t, self.tau = system, uniform, 0, 1
        self.K = len(system.actions)
        self.gamma = min(1.0, math.sqrt(self.K * math.log(self.K) / ((math.e - 1) * 2 * horizon / 3)))
        self.eta = self.gamma / self.K
        self.G = [0.0] * self.K

    def p(self) -> list[float]:
        top = max(self.G)
        w = [math.exp(self.eta * (g - top)) for g in self.G]
        return [(1 - self.gamma) * x / sum(w) + self.gamma / self.K for x in w]

    def unit(self, y: float) -> float:
        return (y + 2 * self.s.magnitude) / (4 * self.s.magnitude)

    def choose(self) -> int:
        return from_cumulative(self.p(), self.uniform(self.t))

    def update(self, arm: int, y: float) -> None:
        self.G[arm] += self.unit(y) / self.p()[arm]
        self.t += 1


class BatchExp3(Exp3):
    """`late`: the released code's batches. Actions change at round indices 0, tau, 2 tau, ...; its updates come after
    the rounds of index 1, 1 + tau, ...; each holds the rewards since the last and credits the action of that round."""

    def __init__(self, system: Plant, horizon: int, uniform: Uniform, late: bool = False) -> None:
        tau = max(1, math.ceil(math.log(epochs_to_cover(horizon, system.rho)) / math.log(1 / system.rho)))
        super().__init__(system, horizon / tau, uniform)
        self.tau, self.late, self.total, self.arm = tau, late, 0.0, -1

    def choose(self) -> int:
        if self.t % self.tau == 0:
            self.arm = from_cumulative(self.p(), self.uniform(self.t // self.tau))
        return self.arm

    def update(self, arm: int, y: float) -> None:
        self.total += y
        if self.t % self.tau == (1 if self.late else self.tau - 1):
            self.G[arm] += self.unit(self.total / self.tau) / self.p()[arm]
            self.total = 0.0
        self.t += 1


class Ar2:
    """AR2 with the paper's rule, or with the release's quirks; `first_of` says which of several tied arms is played.

    Rounds count from 1. An arm's last play is `tau`, its trigger time `since`. By the paper's rule an arm that is
    played, for whatever reason, is triggered no longer: it has been looked at.
    """

    def __init__(
        self, system: Plant, first_of: Callable[[int, list[int]], int], quirks: bool = False, length: int | None = None
    ) -> None:
        self.s, self.first_of, self.quirks = system, first_of, quirks
        self.K, self.alpha = len(system.actions), system.rho
        self.length = math.ceil(self.K * self.alpha**-3 * system.sigma**-3) if length is None else length
        inside = 4 * math.log(1 / (self.alpha * system.sigma)) + 4 * math.log(self.length) + 2 * math.log(4 * self.K)
        self.c1 = 24 * math.sqrt(inside)
        self.t = 0
        self.restart()

    def restart(self) -> None:
        self.r, self.tau = [0.0] * self.K, [0] * self.K
        self.since: list[int | None] = [None] * self.K
        self.last_two: list[int] = []
        self.begun = self.t

    def superior(self) -> int:
        last, before = self.last_two[-1], self.last_two[-2] if len(self.last_two) > 1 else self.last_two[-1]
        return before if self.r[before] > self.r[last] else last

    def choose(self) -> int:
        step = self.t - self.begun
        if step == self.length:
            self.restart()
            step = 0
        if step < self.K:
            return self.K - 1 - step
        now, a = self.t + 1, self.alpha
        best = self.superior()
        for i in range(self.K):
            if i != best and self.since[i] is None:
                gap = (a**2 - a ** (2 * (now - self.tau[i] + 1))) / (1 - a**2)
                if self.r[best] - self.r[i] <= self.c1 * self.s.sigma * math.sqrt(gap):
                    self.since[i] = now
        waiting = [since for since in self.since if since is not None]
        if now % 2 == 1 and waiting:
            earliest = min(waiting)
            return self.first_of(self.t, [i for i in range(self.K) if self.since[i] == earliest])
        return best

    def update(self, arm: int, y: float) -> None:
        step = self.t - self.begun
        now = self.t + 1
        if self.quirks and step < self.K - 1:
            self.r[arm] = self.alpha ** (self.K - 1) * y
        else:
            self.r = [self.alpha * r for r in self.r]
            self.r[arm] = self.alpha * y
        if not self.quirks:
            self.since[arm] = None
        self.tau[arm] = now
        self.last_two = [*self.last_two[-1:], arm]
        self.t += 1
