"""Pessimistic planning from logs against a plain second version; policies that never change."""

import numpy as np
import pytest
import torch

from bandits.mdp.fixed_policy import FixedPolicy
from bandits.mdp.r2pvi import R2PVI
from tests.bandits.mdp import plain_planner as p
from tests.bandits.mdp.plain_planner import FAIL, FEATURES, REWARDS, RUNS, STEPS, PlainPlanner

SETS = {
    "tv": dict(divergence="tv", level=0.2),
    "kl": dict(divergence="kl", level=0.2, weights="projected"),
    "chi2": dict(divergence="chi2", level=0.3, weights="projected"),
    "tv weight": dict(divergence="tv", form="regularised", level=0.6),
    "kl weight": dict(divergence="kl", form="regularised", level=0.5, weights="signed"),
    "chi2 weight": dict(divergence="chi2", form="regularised", level=0.4),
    "none": dict(divergence=None),
}
GIVEN = dict(beta=0.1, ridge=0.5, fail=FAIL)


def made(**more):
    return R2PVI(
        torch.as_tensor(FEATURES), STEPS, **{"rewards": torch.as_tensor(REWARDS), "runs": RUNS, **GIVEN, **more}
    )


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("temperature", [0.0, 0.15])
def test_a_second_version_plans_the_same(name, temperature):
    explore, more = 12, {"temperature": temperature, **SETS[name]}
    behaviour = np.random.default_rng(1).dirichlet(np.ones(p.ACTIONS), (STEPS, p.STATES))
    learner = made(explore=explore, behaviour=torch.as_tensor(behaviour), **more)
    plain = [
        PlainPlanner(FEATURES, STEPS, REWARDS, sign=-1.0, run=r, **{"weights": "signed", **GIVEN, **more})
        for r in range(RUNS)
    ]
    log = p.logs(RUNS, explore + 4)
    for k in range(explore + 4):
        policy = learner.act()
        assert learner.ready == (k >= explore)
        for r, second in enumerate(plain):
            wanted = behaviour if k < explore else second.plan(0)
            torch.testing.assert_close(policy[r], torch.as_tensor(wanted), rtol=0, atol=1e-7)
            if k < explore:
                second.learn(*(part[k, r].tolist() for part in log))
        learner.observe(policy, p.told(log, k))
    fitted = made(explore=explore, **more)
    before = fitted.act()
    fitted.fit(*(part[:explore].transpose(0, 1) for part in log))
    torch.testing.assert_close(before, fitted.uniform())
    torch.testing.assert_close(fitted.act(), learner.act(), rtol=0, atol=1e-9)
    other = made(explore=explore, **more)
    other.load_state_dict(fitted.state_dict())
    assert other.ready
    assert torch.equal(other.act(), fitted.act())


def test_pessimism_is_below_optimism():
    log = p.logs(RUNS, 30)
    values = []
    for beta in (0.3, 0.0):
        learner = made(beta=beta, divergence="tv", level=0.2)
        learner.fit(*(part.transpose(0, 1) for part in log))
        values.append(learner.estimate()[1])
    assert (values[0] <= values[1] + 1e-12).all()
    assert (values[0][:, 0, :-1] < values[1][:, 0, :-1]).all()


def test_rewards_may_be_regressed_from_logs():
    log = p.logs(RUNS, 40)
    learner = made(rewards=None, divergence=None)
    learner.fit(*(part.transpose(0, 1) for part in log))
    second = PlainPlanner(FEATURES, STEPS, sign=-1.0, temperature=0.0, **GIVEN)
    for k in range(40):
        second.learn(*(part[k, 0].tolist() for part in log))
    torch.testing.assert_close(learner.act()[0], torch.as_tensor(second.plan(0)), rtol=0, atol=1e-9)
    torch.testing.assert_close(learner.estimate()[1][0], torch.as_tensor(second.values), rtol=0, atol=1e-9)


def test_bad_logs_and_arguments_are_refused():
    states, actions, rewards = (part.transpose(0, 1) for part in p.logs(RUNS, 5))
    for wrong, said in (
        ((states[:, :, 1:], actions, rewards), r"logs.states: expected shape \(2, 5, 4\)"),
        ((states, actions.double(), rewards), "logs.actions: expected shape .* got torch.float64"),
        ((states, actions, rewards[:1]), r"logs.rewards: expected shape \(2, 5, 3\)"),
        ((states + 5, actions, rewards), "logs.states: expected 0 to 4, got "),
        ((states[:, :0], actions[:, :0], rewards[:, :0]), "logs.states: expected .* at least one episode"),
        ((states, actions - 1, rewards), "logs.actions: expected 0 to 2, got -1 to "),
        ((states, actions, rewards * np.nan), "logs.rewards: expected finite numbers, got a NaN or inf"),
    ):
        learner = made()
        with pytest.raises(ValueError, match=said):
            learner.fit(*wrong)
        assert not learner.ready
    for wrong, said in (
        (dict(explore=-1), "explore: expected a whole number of at least 0, got -1"),
        (dict(step_size=1.0), "step_size: expected none, got 1.0"),
        (dict(switching=True), "switching: expected none, got True"),
        (dict(behaviour=torch.ones(4, 3)), r"behaviour: expected shape \(5, 3\)"),
        (dict(behaviour=torch.ones(5, 3)), "behaviour: expected rows of chances, .*got a least one of 1, sums from 3"),
        (dict(beta=-1.0), "beta: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            made(**wrong)


def test_a_fixed_policy_stays():
    rng = np.random.default_rng(2)
    for shape in ((p.STATES,), (STEPS, p.STATES), (RUNS, STEPS, p.STATES)):
        policy = torch.as_tensor(rng.dirichlet(np.ones(p.ACTIONS), shape))
        learner, log = FixedPolicy(p.STATES, p.ACTIONS, STEPS, policy, runs=RUNS), p.logs(RUNS, 3)
        for k in range(3):
            assert torch.equal(learner.act(), policy.expand(RUNS, STEPS, p.STATES, p.ACTIONS))
            learner.observe(learner.act(), p.told(log, k))
    assert (FixedPolicy(p.STATES, p.ACTIONS, STEPS).act() == 1 / p.ACTIONS).all()
    for wrong in (torch.ones(5, 3), torch.full((5, 2), 0.5), torch.tensor([[2.0, -1.0, 0.0]]).expand(5, 3)):
        with pytest.raises(ValueError, match="policy: expected"):
            FixedPolicy(p.STATES, p.ACTIONS, STEPS, wrong)
