"""The worst mean of one law, by slower and independent means: linear programmes, root searches, a convex solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, linprog, minimize


def tv(values: np.ndarray, law: np.ndarray, level: float, form: str) -> float:
    """A linear programme in (nu, gained, lost)."""
    n = len(law)
    same = np.hstack((np.eye(n), -np.eye(n), np.eye(n)))  # nu - gained + lost = law
    one = np.concatenate((np.ones(n), np.zeros(2 * n)))
    price = 0.5 * level if form == "regularised" else 0.0
    cost = np.concatenate((values, np.full(2 * n, price)))
    most = (
        {} if form == "regularised" else {"A_ub": [np.concatenate((np.zeros(n), np.full(2 * n, 0.5)))], "b_ub": [level]}
    )
    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    rows = np.vstack((same, one))
    found = linprog(cost, A_eq=rows, b_eq=np.append(law, 1.0), method="highs", options=exact, **most)
    assert found.success
    return float(found.fun)


def _tilted(values: np.ndarray, law: np.ndarray, how: str) -> Callable[[float], np.ndarray]:
    def nu(t: float) -> np.ndarray:
        above = values - values.min()
        raw = law * (np.exp(-t * above) if how == "kl" else np.maximum(1.0 - t * above, 0.0))
        return raw / raw.sum()

    return nu


def divergence(nu: np.ndarray, law: np.ndarray, how: str) -> float:
    if how == "tv":
        return float(0.5 * np.abs(nu - law).sum())
    if how == "kl":
        some = nu > 0
        return float((nu[some] * np.log(nu[some] / law[some])).sum())
    return float(((nu - law) ** 2 / law).sum())


def constrained(values: np.ndarray, law: np.ndarray, radius: float, how: str) -> float:
    """Search for the tilt whose divergence is the radius, on the support."""
    values, law = values[law > 0], law[law > 0]
    least = law[values == values.min()].sum()
    if radius >= (-np.log(least) if how == "kl" else 1 / least - 1):
        return float(values.min())
    nu, high = _tilted(values, law, how), 1e-6
    while divergence(nu(high), law, how) < radius:
        high *= 2
    t = brentq(lambda t: divergence(nu(t), law, how) - radius, 0.0, high, xtol=1e-16, rtol=8.9e-16, maxiter=1000)
    return float(nu(t) @ values)


def regularised(values: np.ndarray, law: np.ndarray, weight: float, how: str, starts: int = 8) -> float:
    """A convex solver from several starts; only points of the simplex count."""
    values, law = values[law > 0], law[law > 0]
    rng, best = np.random.default_rng(0), np.inf

    def cost(nu: np.ndarray) -> float:
        return float(nu @ values + weight * divergence(np.maximum(nu, 0), law, how))

    def slope(nu: np.ndarray) -> np.ndarray:
        if how == "kl":
            return values + weight * (np.log(np.maximum(nu, 1e-300) / law) + 1)
        return values + 2 * weight * (nu - law) / law

    limits = [(1e-14 if how == "kl" else 0.0, 1.0)] * len(law)
    for i in range(starts):
        start = law if i == 0 else rng.dirichlet(np.ones(len(law)))
        found = minimize(
            cost, start, jac=slope, bounds=limits, method="SLSQP", options={"maxiter": 500, "ftol": 1e-15},
            constraints={"type": "eq", "fun": lambda nu: nu.sum() - 1, "jac": lambda nu: np.ones_like(nu)},
        )  # fmt: skip
        nu = np.maximum(found.x, 0)
        if abs(nu.sum() - 1) < 1e-10:
            best = min(best, cost(nu / nu.sum()))
    return best
