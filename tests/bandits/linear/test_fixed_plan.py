"""The plan that never changes: its points, its verbs, bad input."""

import pytest
import torch

from bandits import FixedPlan, make
from tests.bandits.arm_homes import DYNAMICAL


def test_it_plays_its_plan_for_ever():
    learner = FixedPlan([0.2, 0.3, 1.0], runs=4)
    for _ in range(3):
        points = learner.act()
        assert points.tolist() == [[0.2, 0.3, 1.0]] * 4
        learner.observe(points, torch.ones(4))
    learner.skip(1000)
    assert learner.rounds == 1003
    other = FixedPlan([0.2, 0.3, 1.0], runs=4)
    other.load_state_dict(learner.state_dict())
    assert other.rounds == 1003
    assert learner.finite().all()


def test_by_name():
    plan = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert make("expert", {**DYNAMICAL, "expert": plan}, runs=2).act().tolist() == [[0.1, 0.2, 0.3]] * 2
    with pytest.raises(ValueError, match=r"expert: expected a problem with a human planner, got one without"):
        make("expert", DYNAMICAL)


@pytest.mark.parametrize("plan", [[0.1, float("nan")], 0.3, [[0.1]]])
def test_bad_plans(plan):
    with pytest.raises(ValueError, match=r"plan: expected finite numbers \(d,\)"):
        FixedPlan(plan)
