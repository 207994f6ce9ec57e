"""Limit cases of the stochastic learners, what they refuse, and what a configuration makes of a problem's facts."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

import bandits
from bandits import make
from tests.bandits.arm_homes import ARMS, built, play

UNBOUNDED = {"domain": ("arms", {"dimension": 4}), "arms": 4, "noise": 0.3, "horizon": 900}


@pytest.mark.parametrize("name", ["ucb1", "ucb1-tuned", "ucb-v", "kl-ucb", "moss", "greedy", "sw-ucb", "d-ucb"])
def test_each_arm_once_in_index_order(name):
    assert play(built(name, {}, 3), ARMS, 5).T.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_ties_at_random_are_uniform_and_the_lowest_otherwise():
    learner = built("ucb1", {"ties": "random"}, 4000)
    share = torch.bincount(learner.act(), minlength=5) / 4000
    assert float((share - 0.2).abs().max()) < 4.5 * math.sqrt(0.16 / 4000)
    arms = play(learner, ARMS, 5)
    assert (arms.sort(0).values == torch.arange(5)[:, None]).all()
    best = learner.best(torch.tensor([[0.0, 2.0, 1.0, 2.0, 2.0]]).expand(4000, 5))
    assert set(best.tolist()) == {1, 3, 4}
    assert built("ucb1", {}, 2).best(torch.tensor([[0.0, 2.0, 1.0, 2.0, 2.0]] * 2)).tolist() == [1, 1]
    assert built("ucb1", {"ties": "random"}, 2).best(torch.tensor([[0.0, 2.0, 3.0, 2.0, 2.0]] * 2)).tolist() == [2, 2]


def test_what_is_remembered_without_end_is_ucb():
    """A window over all rounds is UCB1 with the bonus sqrt(xi ln t / n); no discount remembers every play."""
    ucb = built("ucb1", {"scale": math.sqrt(0.5)}, 6)
    assert torch.equal(play(built("sw-ucb", {"window": 400, "xi": 1.0}, 6), ARMS, 200), play(ucb, ARMS, 200))
    learner = built("d-ucb", {"discount": 1, "xi": 0.25}, 6)
    arms = play(learner, ARMS, 30)
    counted = torch.stack([(arms == arm).sum(0) for arm in range(5)], 1).double()
    torch.testing.assert_close(learner.plays, counted, rtol=0, atol=1e-12)


def test_epsilon_greedy_at_its_ends_is_random_and_greedy():
    arms = play(built("epsilon-greedy", {"epsilon": 1.0}, 400), ARMS, 10)
    share = torch.bincount(arms.flatten(), minlength=5) / arms.numel()
    assert float((share - 0.2).abs().max()) < 4.5 * math.sqrt(0.16 / 4000)
    assert set(play(built("epsilon-greedy", {"epsilon": 0.0}, 3), {**ARMS, "reward_low": 0.1}, 40).flatten().tolist()) == {0}  # fmt: skip  # noqa: E501


def test_random_arms_are_uniform_and_the_oracle_keeps_to_its_own():
    arms = play(built("random", {}, 400), ARMS, 10)
    share = torch.bincount(arms.flatten(), minlength=5) / arms.numel()
    assert float((share - 0.2).abs().max()) < 4.5 * math.sqrt(0.16 / 4000)
    assert (play(make("oracle", {**ARMS, "best_arm": 3}, runs=2), ARMS, 5) == 3).all()
    assert (play(make("oracle", {**ARMS, "best_arm": 3}, runs=2, arm=1), ARMS, 5) == 1).all()


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_boltzmann_probabilities(temperature):
    learner = built("boltzmann", {"temperature": temperature}, 20_000)
    for arm, value in ((0, -1.0), (2, 0.5), (4, 2.0), (4, -0.4)):  # means 0, 0, 0.5, 0, 0.6
        learner.observe(torch.full((20_000,), arm), torch.full((20_000,), value, dtype=torch.float64))
    wanted = (torch.tensor([0, 0, 0.5, 0, 0.6]) / temperature).softmax(0)
    share = torch.bincount(learner.act(), minlength=5) / 20_000
    assert float((share - wanted).abs().max()) < 0.015


def test_explore_first_learns_nothing_afterwards():
    learner = built("explore-first", {"explore": 2}, 2)
    play(learner, ARMS, 10)
    kept = learner.sums.clone()
    arms = play(learner, ARMS, 20, 10)
    assert torch.equal(learner.sums, kept)
    assert (arms == arms[0]).all()


def test_elimination_compares_at_the_end_of_a_phase_only():
    learner = bandits.SuccessiveElimination(2, 1, horizon=2, scale=0.01, low=0.0, high=1.0)
    one = torch.ones(1, dtype=torch.float64)
    learner.observe(torch.tensor([0]), one)
    assert learner.active.all()  # arm 0 is far ahead, and arm 1 has not had its turn
    learner.observe(learner.act(), 0 * one)
    assert learner.active.tolist() == [[True, False]]
    for _ in range(3):
        assert learner.act().tolist() == [0]
        learner.observe(learner.act(), 0 * one)


def test_thompson_turns_rewards_into_coins():
    learner = bandits.ThompsonSampling(2, 20_000, low=-1.0, high=2.0)
    for value, mean in ((-1.0, 0.0), (2.0, 1.0), (-0.1, 0.3)):
        before = learner.sums.clone()
        learner.observe(torch.zeros(20_000).long(), torch.full((20_000,), value, dtype=torch.float64))
        coins = (learner.sums - before)[:, 0]
        assert set(coins.tolist()) <= {0.0, 1.0}
        assert float(coins.mean()) == pytest.approx(mean, abs=4.5 * math.sqrt(mean * (1 - mean) / 20_000))


def _marginal(rounds, runs):
    """How often arm 1 of two is chosen, and the brute-force chance of it."""
    learner, plays = bandits.ThompsonSampling(2, runs, low=0.0, high=1.0), ((3.0, 2.0), (5.0, 4.0))
    for arm, (n, s) in enumerate(plays):
        learner.plays[:, arm], learner.sums[:, arm] = n, s
    chosen = 0
    for t in range(rounds):
        learner.rounds = t
        chosen += int(learner.act().sum())
    first, second = (scipy.stats.beta(1 + s, 1 + n - s) for n, s in plays)
    wanted = scipy.integrate.quad(lambda x: second.pdf(x) * first.cdf(x), 0, 1, epsabs=1e-12)[0]
    return chosen / (rounds * runs), wanted


def test_thompson_chooses_as_often_as_integration_says():
    share, wanted = _marginal(20, 5000)
    assert share == pytest.approx(wanted, abs=4.5 * math.sqrt(wanted * (1 - wanted) / 1e5))


@pytest.mark.proof
def test_thompson_chooses_as_often_as_integration_says_to_a_thousandth():
    share, wanted = _marginal(400, 10_000)
    assert share == pytest.approx(wanted, abs=1e-3)


def test_gaussian_thompson_draws_from_the_posterior():
    """Of two arms the second is chosen with the chance that a normal difference is above 0."""
    learner = bandits.GaussianThompsonSampling(2, 40_000, noise=0.5, prior_mean=0.2, prior_variance=2.0)
    for arm, values in ((0, (0.3, 0.7)), (1, (0.4,))):
        for value in values:
            learner.observe(torch.full((40_000,), arm), torch.full((40_000,), value, dtype=torch.float64))
    precision = [0.5 + 2 / 0.25, 0.5 + 1 / 0.25]
    mean = [(0.1 + 1.0 / 0.25) / precision[0], (0.1 + 0.4 / 0.25) / precision[1]]
    wanted = scipy.stats.norm.cdf((mean[1] - mean[0]) / math.sqrt(1 / precision[0] + 1 / precision[1]))
    assert float(learner.act().double().mean()) == pytest.approx(wanted, abs=0.011)


def test_constants_from_the_facts():
    assert make("ucb1", UNBOUNDED).scale == 0.3
    assert make("moss", UNBOUNDED).scale == pytest.approx(0.6)
    assert (make("moss", UNBOUNDED).horizon, make("moss", UNBOUNDED, anytime=True).horizon) == (900, None)
    assert make("kl-ucb", UNBOUNDED).scale == 0.3
    assert make("kl-ucb", ARMS).scale is None
    assert make("kl-ucb", ARMS, divergence="gaussian").scale == 0.5
    assert make("explore-first", UNBOUNDED).explore == round((900 / 4) ** (2 / 3) * math.log(900) ** (1 / 3))
    assert make("successive-elimination", UNBOUNDED).factor == pytest.approx(0.3 * math.sqrt(2 * math.log(900)))
    gaussian = make("thompson-gaussian", UNBOUNDED)
    assert (gaussian.noise, gaussian.prior_mean) == (0.3, 0.0)
    gaussian = make("thompson-gaussian", ARMS)
    assert (gaussian.noise, gaussian.prior_mean) == (0.5, 0.5)
    assert make("sw-ucb", {**UNBOUNDED, "changes": 4}).window == math.ceil(2 * math.sqrt(900 * math.log(900) / 4))
    assert make("sw-ucb", UNBOUNDED, changes=9).window == math.ceil(2 * math.sqrt(900 * math.log(900) / 9))
    assert make("d-ucb", {**UNBOUNDED, "changes": 4}).discount == pytest.approx(1 - math.sqrt(4 / 900) / 4)
    assert make("bayes-ucb", ARMS, c=5.0).shift == pytest.approx(5 * math.log(math.log(400)))


@pytest.mark.parametrize("name", ["ucb1-tuned", "ucb-v", "bayes-ucb", "thompson-beta"])
def test_a_declared_range_is_needed(name):
    with pytest.raises(ValueError, match=rf"{name}: expected rewards in a declared range, got .*Fix: state low"):
        make(name, UNBOUNDED)


def test_facts_that_are_missing_are_named():
    for name in ("moss", "explore-first", "successive-elimination", "sw-ucb", "d-ucb"):
        with pytest.raises(ValueError, match=rf"{name}: expected a problem with horizon"):
            make(name, {key: value for key, value in ARMS.items() if key != "horizon"})
    with pytest.raises(ValueError, match=r"oracle: expected a problem with best_arm"):
        make("oracle", ARMS)
    with pytest.raises(ValueError, match=r"ucb1: expected a problem with noise"):
        make("ucb1", {key: value for key, value in UNBOUNDED.items() if key != "noise"})


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: bandits.UCB1(3, horizon=0), "horizon: expected at least 1 round"),
        (lambda: bandits.UCB1(3, ties="first"), "ties: expected 'lowest' or 'random'"),
        (lambda: bandits.MOSS(3, horizon=0), "horizon: expected at least 1 round"),
        (lambda: bandits.KLUCB(3, low=0.0, high=1.0, c=-1.0), "c: expected a number of at least 0"),
        (lambda: bandits.KLUCB(3), "kl-ucb: expected rewards in a declared range"),
        (lambda: bandits.BayesUCB(3, low=0.0, high=1.0, c=-1.0), "c: expected a number of at least 0"),
        (lambda: bandits.BayesUCB(3, low=0.0, high=1.0, c=1.0), "horizon: expected the number of rounds"),
        (lambda: bandits.GaussianThompsonSampling(3, noise=0.0), "noise: expected a number above 0"),
        (lambda: bandits.GaussianThompsonSampling(3, prior_variance=0.0), "prior_variance: expected a number above 0"),
        (lambda: bandits.ExploreFirst(3, explore=0), "explore: expected at least 1 play"),
        (lambda: bandits.EpsilonGreedy(3, epsilon=1.1), r"epsilon: expected a number in \[0, 1\]"),
        (lambda: bandits.SuccessiveElimination(3, horizon=0), "horizon: expected at least 1 round"),
        (lambda: bandits.Boltzmann(3, temperature=0.0), "temperature: expected a number above 0"),
        (lambda: bandits.Oracle(3, arm=3), "arm: expected 0 to 2"),
        (lambda: bandits.SlidingWindowUCB(3, window=0), "window: expected at least 1 round"),
        (lambda: bandits.SlidingWindowUCB(3, window=3, xi=0.0), "xi: expected a number above 0"),
        (lambda: bandits.DiscountedUCB(3, discount=0.0), r"discount: expected a number in \(0, 1\]"),
        (lambda: bandits.DiscountedUCB(3, discount=0.5, xi=0.0), "xi: expected a number above 0"),
    ],
)
def test_bad_arguments_are_named(build, words):
    with pytest.raises(ValueError, match=words):
        build()
