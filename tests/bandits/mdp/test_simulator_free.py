"""The learner without a simulator: epochs, exploration, splits, what it may be asked."""

import math

import pytest
import torch

from bandits.mdp.simulator_free import EpochPlan, SimulatorFreeFTRL, epoch_plan
from tests.bandits.mdp.homes import FEATURES, LOSSES, STEPS, play
from tests.bandits.mdp.test_log_barrier_ftrl import terms

W = 6


PLAN = EpochPlan(W, 0.3, 2.0)


def learner_of(plan=PLAN, runs=3, **more):
    return SimulatorFreeFTRL(FEATURES, STEPS, plan, runs=runs, **more)


def test_an_epoch_plays_one_policy_and_the_cover():
    learner = learner_of(runs=40)
    policies = play(learner, LOSSES, 4 * W + 2).transpose(0, 1)
    uniform = (policies == 1 / policies.shape[-1]).flatten(2).all(-1)
    assert uniform[:, :W].all()
    shares = uniform[:, W:].double().mean()
    assert 0.2 < shares < 0.4
    for run in range(40):
        last = policies[run, :0]
        for epoch in range(1, 4):
            own = policies[run, epoch * W : (epoch + 1) * W][~uniform[run, epoch * W : (epoch + 1) * W]]
            assert (own == own[:1]).all()
            if len(own) and len(last):
                assert not torch.equal(own[:1], last[:1])  # another one than the epoch before
            last = own


def test_nothing_is_learned_within_an_epoch():
    learner = learner_of()
    play(learner, LOSSES, W - 1)
    assert (learner.cumulative == 0).all()
    play(learner, LOSSES, 1, W - 1)
    assert (learner.cumulative != 0).any()


@pytest.mark.parametrize(("explore", "uniform"), [(0.0, False), (1.0, True)])
def test_exploring_never_or_always(explore, uniform):
    learner = learner_of(EpochPlan(W, explore, 2.0))
    policies = play(learner, LOSSES, 3 * W)[W:]
    assert (policies == 1 / policies.shape[-1]).flatten(1).all(-1).all() == uniform


def test_the_mean_of_the_estimate():
    """Of an epoch's loss: phi^T E[Sdag] Sigma theta, near Q for many episodes and a small gamma."""
    from tests.bandits.mdp.homes import ACTIONS, KERNEL, START, STATES, losses

    plan, gamma = EpochPlan(60_000, 1.0, 0.1), 1e-6
    learner = SimulatorFreeFTRL(FEATURES, STEPS, plan, 0.0, gamma)
    from bandits.mdp.occupancy import Simulator

    simulator, table = Simulator(KERNEL, START, STEPS), losses(3)
    policy = learner.uniform()
    u = torch.rand(1, 2 * STEPS * plan.epoch, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = simulator.simulate(policy, u)
    paid = table.flatten(1).gather(1, pairs[0].mT).mT.unsqueeze(0)
    learner._pairs.copy_(pairs)
    learner._to_go.copy_(paid.flip(-1).cumsum(-1).flip(-1))
    learner._learn(0)
    q = simulator.dynamic(table.flatten(1).unsqueeze(0), policy).view(1, STEPS, STATES, ACTIONS)
    torch.testing.assert_close(learner.cumulative, q, rtol=0, atol=0.12)
    assert (learner.cumulative - q).abs().mean() < 0.03


def test_bonuses_lower_what_is_cumulated_unless_states_are_unknown():
    plain, bonus = learner_of(beta=0.0), learner_of(beta=0.5)
    unknown, known = learner_of(beta=0.5, alpha=1e-9), learner_of(beta=0.5, alpha=1e9)
    for learner in (plain, bonus, unknown, known):
        play(learner, LOSSES, W)
    assert (plain.cumulative - bonus.cumulative).mean() > 0.1
    assert torch.equal(unknown.cumulative, plain.cumulative)
    assert torch.equal(known.cumulative, bonus.cumulative)


def test_plans():
    for horizon, length, epochs in ((1000, 20, 50), (4000, 32, 125), (16000, 50, 320), (1, 2, 1)):
        plan = epoch_plan(horizon)
        assert plan.epoch == length
        assert plan.explore == pytest.approx(horizon ** (-1 / 3))
        assert plan.eta == pytest.approx(3 / math.sqrt(epochs))
    assert epoch_plan(100, 10, 0.5, 0.7) == EpochPlan(10, 0.5, 0.7)


def test_bad_arguments_are_refused():
    for change, said in (
        ({"plan": EpochPlan(1, 0.3, 2.0)}, "epoch: expected at least 2 episodes"),
        ({"plan": EpochPlan(4, 1.3, 2.0)}, r"plan: expected explore in \[0, 1\]"),
        ({"plan": EpochPlan(4, 0.3, 0.0)}, "plan: expected .*eta above 0"),
        ({"gamma": 0.0}, "beta, gamma: expected"),
        ({"beta": -1.0}, "beta, gamma: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            learner_of(**change)


def test_losses_in_another_range_are_moved():
    """Losses 3 l - 1 in [-1, 2] teach the same."""
    here, there = learner_of(runs=1), learner_of(runs=1, low=-1.0, high=2.0)
    g = torch.Generator().manual_seed(4)
    for _ in range(W):
        pairs = torch.randint(0, 15, (1, STEPS), generator=g)
        losses = torch.rand(1, STEPS, dtype=torch.float64, generator=g)
        here.observe(here.act(), terms(pairs, losses))
        there.observe(there.act(), terms(pairs, 3 * losses - 1))
    assert (here.cumulative != 0).any()
    torch.testing.assert_close(here.cumulative, there.cumulative, rtol=1e-11, atol=1e-12)
