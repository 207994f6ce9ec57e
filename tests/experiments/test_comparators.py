"""The best fixed point in hindsight: against scipy, closed forms and its own certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize

from bandits.online_learning.domains import Ball, Box, L1Ball, Simplex
from envs.hindsight import Hindsight, absolute, hinge, huber, logarithmic, logistic, squared
from experiments.comparators import best_fixed_point, lowest

LINKS = {"absolute": absolute(), "hinge": hinge(), "huber": huber(0.3), "logistic": logistic(), "squared": squared()}


def losses(link, features, target, block=7):
    def draw(first, rounds):
        return features[:, first : first + rounds], target[:, first : first + rounds]

    return Hindsight(link, draw, features.shape[1], block)


def problem(name, runs, rounds, dimension, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(runs, rounds, dimension))
    target = features @ rng.normal(size=dimension) + 0.3 * rng.standard_t(3, size=(runs, rounds))
    if name in ("hinge", "logistic"):
        target = np.sign(target)
    made = (torch.from_numpy(x) for x in (features, target))
    return losses(LINKS[name], *made)


def linear_program(hindsight, run, dimension, radius):
    """The least sum of absolute or hinge losses on the box, by scipy's HiGHS."""
    features, target = (torch.cat(parts, 1)[run].numpy() for parts in zip(*hindsight._blocks(), strict=True))
    rounds, hinged = len(target), hindsight.link.name == "hinge"
    eye = np.eye(rounds)
    if hinged:  # t >= 1 - b a.x
        above, below = np.hstack([-target[:, None] * features, -eye]), -np.ones(rounds)
    else:
        above, below = np.vstack([np.hstack([features, -eye]), np.hstack([-features, -eye])]), np.r_[target, -target]
    cost = np.r_[np.zeros(dimension), np.ones(rounds)]
    limits = [(-radius, radius)] * dimension + [(0, None)] * rounds
    return optimize.linprog(cost, above, below, bounds=limits).fun


@pytest.mark.parametrize("name", ["huber", "logistic", "squared"])
@pytest.mark.parametrize("domain", [Ball(4, 0.7), Box(4, -0.4, 0.3), Simplex(4)], ids=lambda domain: domain.name)
def test_smooth_losses_against_scipy(name, domain):
    total = problem(name, 3, 40, 4)
    found = best_fixed_point(total, domain, domain.centre().expand(3, 4).clone())
    assert domain.contains(found.point).all()
    assert (found.gap <= 1e-9 * found.value.abs().clamp_min(1.0)).all()
    torch.testing.assert_close(found.value, total.value(found.point))
    limits = {"ball": [(None, None)] * 4, "box": [(-0.4, 0.3)] * 4, "simplex": [(0, 1)] * 4}[domain.name]
    constraint = {
        "ball": [{"type": "ineq", "fun": lambda u: 0.49 - u @ u}],
        "box": [],
        "simplex": [{"type": "eq", "fun": lambda u: u.sum() - 1}],
    }[domain.name]
    for run in range(3):

        def one(u, run=run):
            point = found.point.clone()
            point[run] = torch.from_numpy(u)
            value, gradient, _ = total.derivatives(point)
            return float(value[run]), gradient[run].numpy()

        best = optimize.minimize(
            one, domain.centre().numpy(), jac=True, method="SLSQP", bounds=limits, constraints=constraint,
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert float(found.value[run]) == pytest.approx(best.fun, rel=1e-8)
        assert float(found.value[run]) <= best.fun + 1e-8


@pytest.mark.parametrize("name", ["absolute", "hinge"])
@pytest.mark.parametrize("rounds", [1, 3, 30, 200])
def test_losses_with_kinks_against_a_linear_program(name, rounds):
    """The ball in one dimension is a box; a large ball holds the box's solution."""
    total = problem(name, 4, rounds, 1)
    found = best_fixed_point(total, Ball(1, 0.8), torch.zeros(4, 1, dtype=torch.float64))
    for run in range(4):
        assert float(found.value[run]) == pytest.approx(linear_program(total, run, 1, 0.8), rel=1e-8, abs=1e-8)
    total = problem(name, 4, rounds, 3)
    # Several signs can be separated by a large point: hinge losses then reach 0.
    found = best_fixed_point(total, Ball(3, 100.0), torch.zeros(4, 3, dtype=torch.float64))
    for run in range(4):
        least = linear_program(total, run, 3, 100.0 / np.sqrt(3))
        assert float(found.value[run]) <= least + 2e-9 * max(1.0, abs(least))
    assert (found.gap >= -1e-9).all()


@pytest.mark.parametrize("name", ["absolute", "hinge", "huber"])
def test_certificate_holds_everywhere(name):
    total = problem(name, 5, 50, 3)
    found = best_fixed_point(total, Ball(3, 0.5), torch.zeros(5, 3, dtype=torch.float64))
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        u = torch.randn(5, 3, generator=rng, dtype=torch.float64)
        u = u / (u * u).sum(-1, keepdim=True).sqrt().clamp_min(0.5) * 0.5
        assert (total.value(u) >= found.value - found.gap).all()


def test_portfolio_of_two_by_hand():
    """-ln(2 x) - ln(1 - x) + const is least at x = 1/2; with one asset better in each round, all of it."""
    relatives = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [3.0, 1.0]]], dtype=torch.float64)
    total = losses(logarithmic(), relatives, torch.zeros(2, 2, dtype=torch.float64))
    found = best_fixed_point(total, Simplex(2), torch.full((2, 2), 0.5, dtype=torch.float64))
    torch.testing.assert_close(found.point, torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(found.value, torch.tensor([np.log(2.0), -np.log(6.0)], dtype=torch.float64))


@pytest.mark.parametrize("name", ["absolute", "huber"])
def test_a_run_is_the_same_among_others_and_from_a_warm_start(name):
    total, ball = problem(name, 6, 60, 4), Ball(4, 0.6)
    start = torch.zeros(6, 4, dtype=torch.float64)
    found = best_fixed_point(total, ball, start)
    features, target = (torch.cat(parts, 1) for parts in zip(*total._blocks(), strict=True))
    alone = best_fixed_point(losses(LINKS[name], features[2:3], target[2:3]), ball, start[2:3])
    torch.testing.assert_close(alone.point[0], found.point[2], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(alone.value[0], found.value[2], rtol=1e-9, atol=1e-9)
    warm = best_fixed_point(total, ball, found.point)
    torch.testing.assert_close(warm.value, found.value, rtol=1e-9, atol=1e-9)


def test_refuses_what_it_cannot_do():
    total = problem("absolute", 2, 5, 2)
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="domain: expected a ball for losses with kinks"):
        best_fixed_point(total, Box(2), zeros)
    with pytest.raises(ValueError, match="domain: expected a ball, a box or the simplex"):
        best_fixed_point(problem("huber", 2, 5, 2), L1Ball(2), zeros)
    broken = problem("huber", 2, 5, 2)
    features, target = (torch.cat(parts, 1) for parts in zip(*broken._blocks(), strict=True))
    features[1, 3, 0] = torch.nan
    with pytest.raises(ArithmeticError, match="in 1 of 2 runs"):
        best_fixed_point(losses(LINKS["huber"], features, target), Ball(2), zeros)


def test_lowest_value_of_a_linear_function():
    g = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    found = [float(lowest(domain, g)) for domain in (Ball(2, 2.0), Box(2, -1.0, 3.0), Simplex(2))]
    assert found == [-10.0, -15.0, -4.0]
