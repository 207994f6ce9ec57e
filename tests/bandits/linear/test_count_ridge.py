"""Ridge regression from counts and sums beside fresh solves."""

import numpy as np
import pytest
import torch

from bandits.linear.count_ridge import CountRidge
from orbs import array

# Counts and sums in place of V and b.


def problem_of(d, seed, arms=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(arms, d)), rng


def by_cholesky(u, counts, sums, lam):
    """Means and widths of one run by a fresh Cholesky factor."""
    v = lam * np.eye(u.shape[1]) + (u * counts[:, None]).T @ u
    lower = np.linalg.cholesky(v)
    sides = np.linalg.solve(lower, u.T)
    return sides.T @ np.linalg.solve(lower, u.T @ sums), (sides * sides).sum(0), np.linalg.solve(v, u.T @ sums)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 9, 12])
@pytest.mark.parametrize("dominating", [False, True])
def test_count_ridge_beside_fresh_solves(d, dominating):
    u, rng = problem_of(d, d)
    runs, lam = 4, 0.7
    counts = rng.integers(0, 40, size=(6, runs)).astype(float)
    if dominating:
        counts[2] = 1e6
    sums = rng.normal(size=(6, runs)) * (1 + np.sqrt(counts))
    ridge = CountRidge(torch.from_numpy(u), runs)
    assert ridge.dimension == d
    for _ in range(2):  # a second look finds the first one's work in its memory
        means, widths2 = ridge.look(array(torch.from_numpy(counts)), array(torch.from_numpy(sums)), lam)
    theta = ridge.estimate(array(torch.from_numpy(counts)), array(torch.from_numpy(sums)), lam).numpy()
    for run in range(runs):
        wanted = by_cholesky(u, counts[:, run], sums[:, run], lam)
        np.testing.assert_allclose(means[:, run], wanted[0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(np.sqrt(widths2[:, run]), np.sqrt(wanted[1]), rtol=1e-8)
        np.testing.assert_allclose(theta[run], wanted[2], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("d", [2, 3, 9])
def test_widths_stay_accurate_where_one_arm_dominates(d):
    """Against exact rational arithmetic, so that two ways of rounding cannot agree on a wrong number."""
    from fractions import Fraction as F

    u, _ = problem_of(d, 40 + d)
    u = np.round(u * 64) / 64
    counts = np.array([[1e6], [3.0], [1.0], [0.0], [2.0], [1.0]])
    lam = 0.75
    _, widths2 = CountRidge(torch.from_numpy(u), 1).look(counts, np.zeros((6, 1)), lam)
    v = [[sum((F(n[0]) * F(a[i]) * F(a[j]) for n, a in zip(counts, u, strict=True)), F(lam) * (i == j))
          for j in range(d)] for i in range(d)]  # fmt: skip
    for k in range(6):
        rows = [row[:] + [F(u[k][i])] for i, row in enumerate(v)]
        for i in range(d):
            for j in range(i + 1, d):
                factor = rows[j][i] / rows[i][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
        # The pivots and what is left of u: u^T V^-1 u is a sum of squares over pivots.
        wanted = sum((rows[i][d] ** 2 / rows[i][i] for i in range(d)), F(0))
        assert widths2[k, 0] == pytest.approx(float(wanted), rel=1e-8)


@pytest.mark.parametrize("d", [2, 9])
def test_products_of_all_pairs(d):
    u, rng = problem_of(d, 60 + d, 4)
    both = np.vstack([u, np.eye(d)])
    counts = np.concatenate([rng.integers(0, 9, size=(4, 3)), np.full((d, 3), 0.6)]).astype(float)
    sums = np.concatenate([rng.normal(size=(4, 3)), np.zeros((d, 3))])
    means, products = CountRidge(torch.from_numpy(both), 3).products(counts, sums, 4)
    for run in range(3):
        v = (both * counts[:, run, None]).T @ both
        np.testing.assert_allclose(products[:, :, run], both @ np.linalg.solve(v, u.T), atol=1e-11)
        np.testing.assert_allclose(means[:, run], both @ np.linalg.solve(v, both.T @ sums[:, run]), atol=1e-11)
