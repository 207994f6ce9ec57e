"""Log-barrier FTRL and exponential weights over policies: golden vectors, path-wise inequalities, estimates, limits."""

import math

import numpy as np
import pytest
import torch

from bandits.mdp.ftrl_base import Rates
from bandits.mdp.log_barrier_ftrl import LogBarrierFTRL, log_barrier_rates
from bandits.mdp.pol_opt import FullInformationFTRL, PolOpt, full_information_rate, pol_opt_rates
from bandits.online_learning.simplex_solvers import log_barrier, soft_weights
from orbs import Feedback
from tests.bandits.mdp.test_dilated_bonus import A, H, S, kernel_of, model

BOTH = pytest.mark.parametrize("kind", [PolOpt, LogBarrierFTRL], ids=["entropy", "barrier"])


PLAIN = Rates(0.5, 0.0, 0.02)


def learner_of(kind, runs=1, rates=PLAIN, one_hot=False, seed=0, **more):
    simulator, phi, policy = model(seed)
    phi = torch.eye(S * A, dtype=torch.float64).view(S, A, -1) if one_hot else phi
    learner = kind(torch.as_tensor(kernel_of(simulator)), simulator.start, phi, H, rates, runs=runs, **more)
    return learner, policy


def terms(pairs, losses, states=None):
    """Feedback of pairs (R, H), losses (R, H)."""
    at = torch.cat((pairs // A, torch.zeros_like(pairs[:, :1])), 1) if states is None else states
    return Feedback(None, None, {"states": at, "actions": pairs % A, "rewards": -losses})


GOLDEN = [
    ((0, 1, 3), 0.5, (0.4080134148, 0.3388796859, 0.2531068993)),
    ((0, 1, 3), 5.0, (0.7794264634, 0.1591597721, 0.0614137645)),
    ((-2, 0, 0, 7), 0.1, (0.2701304221, 0.2562843805, 0.2562843805, 0.2173008169)),
]


@pytest.mark.parametrize(("losses", "eta", "expected"), GOLDEN, ids=["first", "second", "third"])
def test_golden_policies(losses, eta, expected):
    learner, _ = learner_of(LogBarrierFTRL, rates=Rates(eta, 0.0, 0.1))
    cumulative = torch.tensor(losses, dtype=torch.float64).expand(2, 3, 5, -1)
    found = learner.policy_of(cumulative)
    assert found.shape == cumulative.shape
    np.testing.assert_allclose(found[1, 2, 4], expected, atol=6e-11)
    level = 1 / (eta * found) - cumulative  # stationarity
    torch.testing.assert_close(level, level[..., :1].expand_as(level), rtol=1e-12, atol=1e-12)


def weights_of(kind, losses, eta):
    """(K, A): the policies of FTRL on losses (K, A)."""
    before = torch.cat((torch.zeros_like(losses[:1]), losses[:-1].cumsum(0)))
    return log_barrier(before, eta)[0] if kind == "barrier" else soft_weights(before, eta)


def sides(kind, losses, eta, comparator):
    """Regret to a point of the simplex, and the path-wise bound."""
    p, arms = weights_of(kind, losses, eta), losses.shape[1]
    stability = eta * (p * losses**2).sum()
    size = -comparator.log().sum() - arms * math.log(arms) if kind == "barrier" else math.log(arms)
    return float(((p - comparator) * losses).sum()), float(size / eta + stability)


def test_the_inequality_of_the_log_barrier_needs_no_lower_bound_on_losses():
    """On heavy-tailed sequences it holds; exponential weights break theirs where an arm once wins a lot back."""
    rng, margins, broken = np.random.default_rng(8), [], 0.0
    for case in range(200):
        arms, rounds, eta = 2 + case % 5, 200, 10.0 ** rng.uniform(-2, 1)
        losses = rng.standard_t(1.5, size=(rounds, arms)) * 10 ** rng.uniform(0, 2)
        if case % 2:  # a drift up, and rare steep falls
            losses[:, 0], falls = 0.0, rng.uniform(size=(rounds, arms - 1)) < 0.02
            losses[:, 1:] = (
                0.5 * rng.uniform(size=falls.shape) - 10 * falls * (1 + rng.pareto(1.2, falls.shape))
            ) / eta
        losses = torch.as_tensor(losses)
        best = int(losses.sum(0).argmin())
        u = torch.full((arms,), 1 / rounds, dtype=torch.float64)
        u[best] += 1 - arms / rounds
        left, right = sides("barrier", losses, eta, u)
        margins.append(right - left)
        vertex = torch.nn.functional.one_hot(torch.tensor(best), arms).double()
        left, right = sides("entropy", losses, eta, vertex)
        broken = max(broken, left - right)
    assert min(margins) > 0
    assert broken > 10


def test_the_counter_example():
    """Arm 2 loses 14/eta in small steps and then wins 30/eta back: too late for exponential weights."""
    eta = 0.1
    losses = torch.zeros(1401, 2, dtype=torch.float64)
    losses[:1400, 1], losses[1400, 1] = 0.1, -300.0
    left, right = sides("entropy", losses, eta, torch.tensor([0.0, 1.0], dtype=torch.float64))
    # 160 + 0.1 sum_k 1/(1 + e^(k/100)) - 300/(1 + e^14).
    assert (left, right) == pytest.approx((166.9562, 7.0085), abs=1e-4)
    left, right = sides("barrier", losses, eta, torch.tensor([0.001, 0.999], dtype=torch.float64))
    assert (left, right) == pytest.approx((163.197, 652.628), abs=1e-3)


def expected_estimate(learner, policy, losses):
    """Q (1, H, S A) and phi^T Sdag Sigma theta (1, H, S A), exactly."""
    features, simulator = learner.features, learner.simulator
    q = simulator.dynamic(losses, policy)
    theta = torch.linalg.lstsq(features.table.expand(H, -1, -1), q[0].unsqueeze(-1)).solution
    weights = simulator.weights(policy)
    inverse, _ = learner.inverse(policy, 0, weights)
    sigma = features.covariance(weights)
    return q, features.linear((inverse @ sigma @ theta)[..., 0])


def estimates(learner, policy, losses):
    """(R, H, S A) of episodes of the policy in all runs."""
    runs = learner.runs
    u = torch.rand(runs, 2 * H, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    given = policy.expand(runs, -1, -1, -1).contiguous()
    pairs = learner.simulator.simulate(given, u)[:, 0]
    met = losses[0].gather(1, pairs.mT).mT
    learner.act()
    learner.observe(given, terms(pairs, met))
    return learner.cumulative.flatten(2)


@pytest.mark.parametrize("gamma", [1e-7, 0.05])
def test_the_estimate_is_unbiased(gamma):
    runs = 40_000
    learner, policy = learner_of(PolOpt, runs, Rates(0.1, 0.0, gamma))
    losses = torch.einsum("pi,hi->hp", learner.features.table, torch.rand(H, 3, dtype=torch.float64))[None]
    found = estimates(learner, policy, losses)
    one, _ = learner_of(PolOpt, 1, Rates(0.1, 0.0, gamma))
    q, expected = expected_estimate(one, policy, losses)
    error = (found.mean(0) - expected[0]) / (found.std(0) / runs**0.5)
    assert error.abs().max() < 4.5
    if gamma < 1e-6:
        torch.testing.assert_close(expected, q, rtol=1e-4, atol=1e-4)
    else:
        assert (expected - q).abs().max() > 0.02


def test_one_hot_features_give_importance_weights():
    learner, policy = learner_of(LogBarrierFTRL, rates=Rates(0.5, 0.0, 1e-13), one_hot=True)
    pairs, losses = torch.tensor([[4, 7, 2]]), torch.tensor([[0.3, 0.9, 0.2]], dtype=torch.float64)
    learner.act()
    learner.observe(policy, terms(pairs, losses))
    weights, found = learner.simulator.weights(policy), learner.cumulative.flatten(2)
    for h, to_go in enumerate((1.4, 1.1, 0.2)):
        expected = torch.zeros(S * A, dtype=torch.float64)
        expected[pairs[0, h]] = to_go / weights[0, h, pairs[0, h]]
        torch.testing.assert_close(found[0, h], expected, rtol=1e-9, atol=1e-9)


@BOTH
def test_the_limits_of_the_learning_rate(kind):
    for eta, one in ((1e-12, None), (1e12, 1.0), (math.inf, 1.0)):
        learner, _ = learner_of(kind, rates=Rates(eta, 0.1, 0.05))
        for k in range(5):
            learner.observe(learner.act(), terms(torch.tensor([[k, 2 * k, k + 3]]), torch.full((1, H), 0.7).double()))
        found = learner.act()
        assert torch.isfinite(found).all()
        if one is None:
            torch.testing.assert_close(found, learner.uniform(), rtol=0, atol=1e-6)
        else:
            leader = torch.nn.functional.one_hot(learner.cumulative.argmin(-1), A).double()
            torch.testing.assert_close(found, leader, rtol=0, atol=1e-6)
    assert learner_of(kind, rates=Rates(0.0, 0.1, 0.05))[0].act().eq(1 / A).all()


@BOTH
def test_a_bonus_is_subtracted(kind):
    plain, policy = learner_of(kind, rates=Rates(0.5, 0.0, 0.05))
    other, _ = learner_of(kind, rates=Rates(0.5, 0.2, 0.05))
    without, _ = learner_of(kind, rates=Rates(0.5, 0.2, 0.05), bonus="off")
    feedback = terms(torch.tensor([[1, 5, 9]]), torch.full((1, H), 0.4).double())
    for learner in (plain, other, without):
        learner.act()
        learner.observe(policy, feedback)
    assert (plain.cumulative - other.cumulative).min() > 0
    assert torch.equal(plain.cumulative, without.cumulative)


def test_rates():
    """By hand, for A = 4, d = 5, H = 3, K = 1000."""
    root = math.sqrt(math.log(4) / 5000)
    barrier = math.sqrt(4 * math.log(1000) / 5000)
    for rates, expected in (
        (pol_opt_rates("practical", 4, 5, 3, 1000), (4 * root, 0.02 * 3 / 16 * 4 * root, 3 * root / 16)),
        (pol_opt_rates("practical", 4, 5, 3, 1000, 2.0, 1.0), (2 * root, 0.06 * 2 * root, 3 * root)),
        (pol_opt_rates("theory", 4, 5, 3, 1000),
         (min(5000 ** (-2 / 3) / 6, 3 * 3 * 5000 ** (-1 / 3) / 72), 3 * 5000 ** (-1 / 3), 5000 ** (-2 / 3))),
        (log_barrier_rates("practical", 4, 5, 3, 1000),
         (32 * barrier / 3, 0.02 * 3 / 16 * 32 * barrier / 3, 3 * root / 16)),
        (log_barrier_rates("theory", 4, 5, 3, 1000), (barrier / 9, 8 * barrier, 12 * barrier * 8 * barrier)),
    ):  # fmt: skip
        assert (rates.eta, rates.beta, rates.gamma) == pytest.approx(expected, rel=1e-12)
    assert full_information_rate("practical", 4, 5, 3, 1000) == pytest.approx(4 * root)
    assert full_information_rate("theory", 4, 5, 3, 1000) == pytest.approx(math.sqrt(8 * math.log(4) / 1000) / 3)


@BOTH
def test_bad_arguments_are_refused(kind):
    for change, said in (
        ({"rates": Rates(-1.0, 0.1, 0.1)}, "eta: expected a number of at least 0"),
        ({"rates": Rates(1.0, math.inf, 0.1)}, "beta: expected"),
        ({"rates": Rates(1.0, 0.1, 0.0)}, "gamma: expected"),
        ({"rates": Rates(1.0, 0.1, math.nan)}, "gamma: expected"),
        ({"bonus": "some"}, "bonus: expected 'exact' or 'sample' or 'off', got 'some'"),
        ({"covariance": "some"}, "covariance: expected 'exact' or 'direct' or 'mgr'"),
        ({"low": 1.0}, r"loss range: expected finite low < high, got \[1.0, 1.0\]"),
    ):
        with pytest.raises(ValueError, match=said):
            learner_of(kind, **change)


def test_a_loss_that_is_not_revealed_is_asked_for():
    simulator, _, _ = model(0)
    learner = FullInformationFTRL(torch.as_tensor(kernel_of(simulator)), simulator.start, H, 0.5)
    feedback = terms(torch.zeros(1, H, dtype=torch.int64), torch.zeros(1, H).double())
    with pytest.raises(ValueError, match=r"loss_table.*expected the episode's whole loss .*got states, actions, rew"):
        learner.observe(learner.act(), feedback)
    wrong = Feedback(None, None, {**feedback.terms, "loss_table": torch.zeros(1, H, S, A + 1).double()})
    with pytest.raises(ValueError, match=r"loss_table.*expected shape \(1 or 1, 3, 4, 3\)"):
        learner.observe(learner.act(), wrong)
