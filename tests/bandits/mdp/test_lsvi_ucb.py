"""LSVI-UCB and its soft form against a plain second version, whose regression is joint."""

import numpy as np
import pytest
import torch

from bandits.mdp.lsvi_ucb import LSVIUCB
from tests.bandits.mdp import plain_planner as p
from tests.bandits.mdp.plain_planner import FAIL, FEATURES, RUNS, STEPS, PlainPlanner, agree


class Joint(PlainPlanner):
    """Regresses r + V(s') at once."""

    def estimates(self, h, v):
        d = self.features.shape[-1]
        gram, target = self.ridge * np.eye(d), np.zeros(d)
        for states, actions, rewards in self.history:
            phi = self.features[h, states[h], actions[h]]
            gram = gram + np.outer(phi, phi)
            target = target + phi * (rewards[h] + v[states[h + 1]])
        inverse = np.linalg.inv(gram)
        return inverse, np.zeros(d), inverse @ target


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_a_second_version_plans_the_same(temperature):
    learner = LSVIUCB(
        torch.as_tensor(FEATURES), STEPS, temperature=temperature, beta=0.3, ridge=0.4, fail=FAIL, runs=RUNS, seed=5
    )  # fmt: skip
    given = dict(temperature=temperature, beta=0.3, ridge=0.4, fail=FAIL, bonus="elliptical", seed=5)
    agree(learner, [Joint(FEATURES, STEPS, run=r, **given) for r in range(RUNS)], 30, 1e-8)


def test_what_has_no_features_pays_what_is_known():
    """Pairs of one action without features, as the exercise of an option; the others are regressed."""
    features, rewards = FEATURES.copy(), torch.as_tensor(p.REWARDS)
    features[:, 1] = 0.0
    given = dict(temperature=0.2, beta=0.3, ridge=0.4, fail=FAIL, bonus="elliptical")
    learner = LSVIUCB(torch.as_tensor(features), STEPS, rewards, runs=RUNS, **given)
    bare = LSVIUCB(torch.as_tensor(features), STEPS, runs=RUNS, **given)
    log = p.logs(RUNS, 12)
    for k in range(12):
        learner.observe(learner.act(), p.told(log, k))
        bare.observe(bare.act(), p.told(log, k))
    q = learner.estimate()[0]
    torch.testing.assert_close(q[:, :, :-1, 1], rewards[:, :-1, 1].expand(RUNS, -1, -1))
    assert (bare.estimate()[0][..., 1] == 0).all()
    torch.testing.assert_close(q[:, -1, :, [0, 2]], bare.estimate()[0][:, -1, :, [0, 2]])


def test_it_is_greedy_elliptical_and_regresses_rewards():
    learner = LSVIUCB(torch.as_tensor(FEATURES), STEPS, torch.as_tensor(p.REWARDS))
    assert (learner.temperature, learner.bonus, learner.divergence) == (0.0, "elliptical", None)
    assert learner.model.pays is not None
    assert (learner.estimate()[0][:, :, :-1] > 0).all()
    log, other = p.logs(1, 5), LSVIUCB(torch.as_tensor(FEATURES), STEPS)
    for k in range(5):
        learner.observe(learner.act(), p.told(log, k))
        other.observe(other.act(), p.told(log, k))
    assert torch.equal(learner.estimate()[0], other.estimate()[0])
