"""Linear bandits on their worlds: regret in order, ellipsoids that hold; the long ones are the proof."""

import math

import pytest
import torch

from bandits import LinUCB, make
from envs.linear_bandit import LinearBandit


def regrets(world, name, marks, **given):
    """Mean pseudo-regret after each of the marks."""
    own = world.twin()
    learner, found = make(name, own.facts, runs=own.num_envs, **given), []
    for t in range(marks[-1]):
        arm = learner.act(own.context())
        learner.observe(arm, own.step(arm)[4]["feedback"])
        if t + 1 in marks:
            found.append(float(own.regret()["regret/pseudo"].mean()))
    return found


@pytest.mark.parametrize(
    ("kind", "learners", "share"),
    [
        ("fixed", ("lin-ucb", "lin-ts"), 0.15),
        ("contexts", ("lin-ucb", "lin-ts"), 0.1),
        ("logistic", ("glm-ucb",), 0.8),
        ("fixed", ("d-lin-ucb", "sw-lin-ucb", "restart-lin-ucb"), 0.3),
    ],
)
def test_learners_learn(kind, learners, share):
    """Against what uniform play costs."""
    world = LinearBandit(arms=10, horizon=400, runs=20, kind=kind, dimension=2, norm=2.0 if kind == "logistic" else 1.0)
    costs = 0.0
    for t in range(20):
        means = world.means(t, world.tape.round(t)[1] if world.fresh else None)
        costs += float((means.amax(-1) - means.mean(-1)).mean()) / 20
    for name in learners:
        assert regrets(world, name, [400])[0] < share * 400 * costs, name


@pytest.mark.proof
def test_forgetting_pays_after_a_change_and_costs_less_than_twice_before_it():
    world = LinearBandit(arms=50, horizon=10_000, runs=10, kind="abrupt", dimension=2)
    marks = [5000, 10_000]
    before, whole = regrets(world, "lin-ucb", marks)
    for name, given in (("sw-lin-ucb", {"window": 2000}), ("d-lin-ucb", {"discount": 0.999})):
        first, both = regrets(world, name, marks, **given)
        assert first < 2.0 * before, name
        assert both - first < 0.5 * (whole - before), name


@pytest.mark.proof
def test_forgetting_follows_a_turning_parameter():
    world = LinearBandit(arms=50, horizon=3000, runs=10, kind="rotating", dimension=2)
    (whole,) = regrets(world, "lin-ucb", [3000])
    for name in ("sw-lin-ucb", "d-lin-ucb", "restart-lin-ucb"):
        assert regrets(world, name, [3000])[0] < 0.3 * whole, name


@pytest.mark.proof
@pytest.mark.parametrize("radius", ["determinant", "trace"])
def test_ellipsoids_hold_the_parameter(radius):
    """||theta_hat - theta||_V <= beta in every round of a fraction 1 - delta of the runs; 0.4 beta would not do."""
    runs, delta = 1000, 0.1
    world = LinearBandit(arms=10, horizon=400, runs=runs, kind="contexts", dimension=3, noise=1.0)
    learner = LinUCB(None, arms=10, dimension=3, runs=runs, noise=1.0, bound=1.0, delta=delta, radius=radius)
    theta = world.parameter(0).mT
    inside, narrow = torch.ones(runs, dtype=torch.bool), torch.ones(runs, dtype=torch.bool)
    for _ in range(400):
        arm = learner.act(world.context())
        learner.observe(arm, world.step(arm)[4]["feedback"])
        error = learner.changing.theta - theta
        distance = (error * (learner.changing.matrix * error).sum(1)).sum(0).sqrt()
        beta = torch.as_tensor(learner.confidence())
        inside &= distance <= beta
        narrow &= distance <= 0.4 * beta
    outside = float((~inside).double().mean())
    assert outside <= delta + 4 * math.sqrt(delta * (1 - delta) / runs)
    assert float(narrow.double().mean()) < 0.9
