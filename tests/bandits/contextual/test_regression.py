"""Recursive ridge regression: equal to a fresh solution, also after a million rows, and run by run."""

import numpy as np
import pytest
import torch

from bandits.contextual.regression import ArmRidge, SharedRidge
from orbs import runs_last


def zeros(runs):
    return torch.zeros(runs, 1, dtype=torch.float64)


def shown(x):
    """As learners keep contexts."""
    return runs_last(torch.as_tensor(x))


@pytest.mark.parametrize("rebuilds", [False, True])
def test_arm_ridge_is_a_fresh_solution(rebuilds):
    rng = np.random.default_rng(0)
    runs, arms, d, ridge = 3, 4, 5, 0.7
    model = ArmRidge(zeros(runs), arms, d, ridge)
    gram = np.tile(ridge * np.eye(d), (runs, arms, 1, 1))
    target = np.zeros((runs, arms, d))
    for t in range(150):
        x, y, w = rng.normal(size=(runs, d)), rng.normal(size=runs), rng.uniform(0.5, 9.0, runs)
        arm = rng.integers(0, arms, runs)
        heavy = t % 2 == 0
        model.add(torch.as_tensor(arm), shown(x), torch.as_tensor(y), torch.as_tensor(w) if heavy else None)
        for r in range(runs):
            weight = w[r] if heavy else 1.0
            gram[r, arm[r]] += weight * np.outer(x[r], x[r])
            target[r, arm[r]] += weight * y[r] * x[r]
        if rebuilds and t % 10 == 0:
            model.rebuild()
    solution = np.linalg.solve(gram, target[..., None])[..., 0]
    q = rng.normal(size=(runs, d))
    np.testing.assert_allclose(model.weights.numpy(), solution, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.gram.numpy(), gram, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.predict(shown(q)).numpy(), (solution * q[:, None]).sum(-1), rtol=1e-9)
    widths = np.einsum("ri,rkij,rj->rk", q, np.linalg.inv(gram), q)
    np.testing.assert_allclose(model.squared_widths(shown(q)).numpy(), widths, rtol=1e-9)
    assert rebuilds or torch.equal(model.inverse, model.inverse.mT)


@pytest.mark.parametrize("rebuilds", [False, True])
def test_shared_ridge_is_a_fresh_solution(rebuilds):
    rng = np.random.default_rng(1)
    runs, arms, d, ridge = 3, 4, 5, 0.7
    model = SharedRidge(zeros(runs), arms, d, ridge)
    gram, target = np.tile(ridge * np.eye(d), (runs, 1, 1)), np.zeros((runs, d, arms))
    for t in range(150):
        x, y = rng.normal(size=(runs, d)), rng.normal(size=(runs, arms))
        model.add(shown(x), shown(y))
        gram += x[:, :, None] * x[:, None]
        target += x[:, :, None] * y[:, None]
        if rebuilds and t % 10 == 0:
            model.rebuild()
    q, solution = rng.normal(size=(runs, d)), np.linalg.solve(gram, target)
    np.testing.assert_allclose(model.weights.mT.numpy(), solution, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict(shown(q)).numpy(), np.einsum("rd,rdk->rk", q, solution), rtol=1e-9)


def test_widths_stay_right_after_a_million_rows():
    """The sums of 10^6 rows, an inverse made from them, then the 99 rounds until the next one is made."""
    rng = np.random.default_rng(2)
    runs, arms, d = 4, 3, 10
    spread = np.logspace(0, -2, d)
    model = ArmRidge(zeros(runs), arms, d, 1.0)
    for r in range(runs):
        for a in range(arms):
            basis = np.linalg.qr(rng.normal(size=(d, d)))[0] * spread
            root = basis @ np.diag(np.sqrt(rng.chisquare(10**6, d)))
            model.gram[r, a] += torch.as_tensor(root @ root.T)
            model.target[r, a] = torch.as_tensor(rng.normal(size=d) * 1e5)
    model.rebuild()
    for _ in range(99):
        x = shown(rng.normal(size=(runs, d)) * spread)
        model.add(torch.as_tensor(rng.integers(0, arms, runs)), x, torch.as_tensor(rng.normal(size=runs)))
    q = rng.normal(size=(runs, d))
    gram = model.gram.numpy()
    fresh = (q[:, None] * np.linalg.solve(gram, np.broadcast_to(q[:, None, :, None], (runs, arms, d, 1)))[..., 0]).sum(
        -1
    )
    np.testing.assert_allclose(model.squared_widths(shown(q)).numpy(), fresh, rtol=1e-8)
    solution = np.linalg.solve(gram, model.target.numpy()[..., None])[..., 0]
    np.testing.assert_allclose(model.weights.numpy(), solution, rtol=1e-7)


def test_a_run_alone_has_the_same_bits():
    rng = np.random.default_rng(3)
    runs, arms, d = 7, 3, 6
    together, alone = ArmRidge(zeros(runs), arms, d, 1.0), ArmRidge(zeros(1), arms, d, 1.0)
    for t in range(40):
        x, y, arm = rng.normal(size=(runs, d)), rng.normal(size=runs), torch.as_tensor(rng.integers(0, arms, runs))
        together.add(arm, shown(x), torch.as_tensor(y))
        alone.add(arm[4:5], shown(x[4:5]), torch.as_tensor(y[4:5]))
        if t == 20:
            together.rebuild()
            alone.rebuild()
    for name, tensor in alone.tensors().items():
        assert torch.equal(tensor[0], together.tensors()[name][4]), name
    q = rng.normal(size=(runs, d))
    assert torch.equal(alone.squared_widths(shown(q[4:5]))[0], together.squared_widths(shown(q))[4])
    assert torch.equal(alone.predict(shown(q[4:5]))[0], together.predict(shown(q))[4])
    several, one = SharedRidge(zeros(runs), arms, d, 1.0), SharedRidge(zeros(1), arms, d, 1.0)
    for _ in range(40):
        x, y = rng.normal(size=(runs, d)), rng.normal(size=(runs, arms))
        several.add(shown(x), shown(y))
        one.add(shown(x[4:5]), shown(y[4:5]))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor[0], several.tensors()[name][4]), name
