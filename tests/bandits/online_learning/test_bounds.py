"""Path-wise bounds and the per-round inequality of two-step mirror descent: on every run of every sequence."""

import math

import pytest
import torch

from bandits.online_learning.domains import Ball
from bandits.online_learning.learner import OptimisticOMD
from bandits.online_learning.regularisers import Euclidean
from bandits.online_learning.steps import PredictionError
from tests.bandits.online_learning.problems import BALL, HOMES, VARIANTS, built, generator, play, sequence

ROUNDS, RUNS = 400, 8
RADIUS, LAMBDA = BALL["domain"][1]["radius"], BALL["strong_convexity"]
KINDS = ("random", "adversarial", "alternating", "burst")


def best_fixed(total, name):
    """(R, d) the point of the domain with the smallest <total, u>."""
    kind = HOMES[name]["domain"][0]
    if kind == "simplex":
        return torch.nn.functional.one_hot(total.argmin(-1), total.shape[-1]).double()
    if kind == "box":
        return -torch.sign(total)
    return -RADIUS * total / total.norm(dim=-1, keepdim=True).clamp_min(1e-300)


CURVED = ("optimistic-omd-strong", "ogd-strong", "optimistic-omd-exp")  # their bounds speak of curved losses
BOUNDED = [(name, given) for name, given in VARIANTS if name not in CURVED and built(name, given).bound is not None]


def test_which_learners_have_a_bound():
    assert {name for name, _ in BOUNDED} == {
        "hedge",
        "adahedge",
        "ogd",
        "ftrl",
        "adagrad",
        "optimistic-omd",
        "optimistic-omd-implicit",
        "optimistic-ftrl",
        "weighted-majority",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "given"), BOUNDED, ids=lambda value: str(value))
def test_linear_regret_is_below_the_bound(name, given, kind):
    """Against the best fixed point, after each of these numbers of rounds, on every run."""
    rounds = ROUNDS if given.get("tuning") == "horizon" else 200
    learner = built(name, given, RUNS)
    gradients = sequence(kind, HOMES[name], rounds, RUNS)
    total = torch.zeros(RUNS, learner.domain.dimension, dtype=torch.float64)
    paid = torch.zeros(RUNS, dtype=torch.float64)
    for t in range(rounds):
        points, seen = play(learner, gradients, 1, t)
        total += seen[0]
        paid += (points[0] * seen[0]).sum(-1)
        if t + 1 in (1, 2, 10, 100, rounds) and not (given.get("tuning") == "horizon" and t + 1 < rounds):
            regret = paid - (total * best_fixed(total, name)).sum(-1)
            bound = learner.regret_bound()
            assert (regret <= bound + 1e-9).all(), (t + 1, regret.max(), bound.min())
            assert torch.isfinite(bound).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["optimistic-omd-strong", "ogd-strong"])
def test_strongly_convex_bound(name, kind):
    """sum <g, x - u> - lambda / 2 ||x - u||^2 <= the bound, for random u of the domain."""
    learner = built(name, {}, RUNS)
    points, seen = play(learner, sequence(kind, HOMES[name], ROUNDS, RUNS), ROUNDS)
    bound = learner.regret_bound()
    for u in 2 * torch.rand(50, 3, generator=generator(1), dtype=torch.float64) - 1:
        u = RADIUS * u / u.norm().clamp_min(1.0)
        off = points - u
        regret = ((seen * off).sum(-1) - LAMBDA / 2 * (off * off).sum(-1)).sum(0)
        assert (regret <= bound + 1e-9).all()
        if name == "optimistic-omd-strong":
            changes = torch.cat([seen[:1], seen[1:] - seen[:-1]])
            t = torch.arange(1, ROUNDS + 1, dtype=torch.float64).view(-1, 1)
            assert (regret <= (2 / (LAMBDA * t) * (changes * changes).sum(-1)).sum(0) + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_exp_concave_bound(kind):
    learner = built("optimistic-omd-exp", {}, RUNS)
    points, seen = play(learner, sequence(kind, HOMES["optimistic-omd-exp"], ROUNDS, RUNS), ROUNDS)
    beta = 0.5 * min(1 / (4 * 2.0 * 2 * RADIUS), 0.5)
    changes = torch.cat([seen[:1], seen[1:] - seen[:-1]])
    matrix = (1 + beta / 2 * 4) * torch.eye(3, dtype=torch.float64).expand(RUNS, 3, 3).clone()
    spent = torch.zeros(RUNS, dtype=torch.float64)
    for g, change in zip(seen, changes, strict=True):
        spent += (change * torch.linalg.solve(matrix, change)).sum(-1)
        matrix += beta / 2 * g.unsqueeze(-1) * g.unsqueeze(-2)
    for u in 2 * torch.rand(50, 3, generator=generator(1), dtype=torch.float64) - 1:
        u = RADIUS * u / u.norm().clamp_min(1.0)
        slope = (seen * (points - u)).sum(-1)
        regret = (slope - beta / 2 * slope * slope).sum(0)
        tight = 0.5 * (1 + beta * 2) * float(u @ u) + 2 * spent
        assert (regret <= tight + 1e-9).all()
        assert (regret <= learner.regret_bound() + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_per_round_inequality(kind):
    """<g, x - u> <= <g - M, x - h'> + (|u - h|^2 - |u - h'|^2 - |h' - x|^2 - |x - h|^2) / (2 eta), h = hat x."""
    learner = OptimisticOMD(Euclidean(), Ball(3), PredictionError(2.0, 2.0), runs=RUNS)
    gradients = sequence(kind, HOMES["optimistic-omd"], ROUNDS, RUNS)
    last = torch.zeros(RUNS, 3, dtype=torch.float64)
    u = 2 * torch.rand(50, 1, 3, generator=generator(2), dtype=torch.float64) - 1
    u = u / u.norm(dim=-1, keepdim=True).clamp_min(1.0)

    def square(x):
        return (x * x).sum(-1)

    for t in range(ROUNDS):
        x, before, eta = learner.act().clone(), learner.secondary.clone(), learner._eta.clone()
        g = gradients(t, x)
        learner.observe(x, g)
        after = learner.secondary
        left = (g * (x - u)).sum(-1)
        distances = square(u - before) - square(u - after) - square(after - x) - square(x - before)
        right = ((g - last) * (x - after)).sum(-1) + distances / (2 * eta)
        assert (right - left >= -1e-10).all()
        assert ((x - after).norm(dim=-1) <= eta * (g - last).norm(dim=-1) + 1e-12).all()
        last = g


def test_smoothness_is_paid_for():
    """The bound of the convex case keeps sqrt(delta) / (4 D) times the squared moves."""
    for kind in KINDS:
        learner = built("optimistic-omd", {}, RUNS)
        points, seen = play(learner, sequence(kind, HOMES["optimistic-omd"], ROUNDS, RUNS), ROUNDS)
        total = seen.sum(0)
        regret = (points * seen).sum((0, 2)) - (total * best_fixed(total, "optimistic-omd")).sum(-1)
        moves = (points[1:] - points[:-1]).square().sum((0, 2))
        assert (regret <= learner.regret_bound() - math.sqrt(10 * 9 * 16) / 12 * moves + 1e-9).all()


def test_a_bound_can_be_missed():
    """Were the rate ten times too large, the adversary would break AdaGrad's bound: the test above is no formality."""
    learner = built("adagrad", {"scale": 30.0}, RUNS)
    points, seen = play(learner, sequence("alternating", HOMES["adagrad"], ROUNDS, RUNS), ROUNDS)
    total = seen.sum(0)
    regret = (points * seen).sum((0, 2)) - (total * best_fixed(total, "adagrad")).sum(-1)
    assert (regret > math.sqrt(2) * 2 * torch.sqrt(learner.memory["squares"]).sum(-1)).all()
