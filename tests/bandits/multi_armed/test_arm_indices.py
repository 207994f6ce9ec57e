"""Index rules: golden values, and against plain numbers on 200 random histories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from bandits import KLUCB, MOSS, UCB1, UCBV, BayesUCB, DiscountedUCB, Greedy, SlidingWindowUCB, UCBTuned
from bandits.multi_armed.beta_quantile import beta_logit
from bandits.multi_armed.explore import exploration_plays
from bandits.multi_armed.kl_ucb import kl_ucb_index
from bandits.multi_armed.moss import moss_index
from bandits.multi_armed.thompson import gamma_draw
from bandits.multi_armed.ucb import ucb1_index
from orbs import Philox
from tests.bandits.multi_armed.reference_arms import indices, kl_index

RUNS, ROUNDS, ARMS = 200, 50, 4


def tensor(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_goldens():
    m, n = tensor(*[0.5] * 10), tensor(*[100.0] * 10)
    assert float(ucb1_index(m, n, math.log(1000))[0, 3]) == pytest.approx(0.871692218885, abs=1e-11)
    assert float(kl_ucb_index(m, n, math.log(1000))[0, 3]) == pytest.approx(0.679608191659, abs=1e-11)
    assert float(moss_index(m, n, 1e4)[0, 3]) == pytest.approx(0.651742712939, abs=1e-11)
    assert exploration_plays(10_000, 10) == 210
    assert exploration_plays(1, 10) == 1


UNIT = {"low": 0.0, "high": 1.0}
RULES = {
    "ucb1": (lambda **a: UCB1(ARMS, **UNIT, **a), {}),
    "ucb1-scaled": (lambda **a: UCB1(ARMS, scale=0.3, **a), {"scale": 0.3}),
    "ucb1-horizon": (lambda **a: UCB1(ARMS, horizon=50, **UNIT, **a), {"log": math.log(50)}),
    "ucb1-tuned": (lambda **a: UCBTuned(ARMS, **UNIT, **a), {}),
    "ucb-v": (lambda **a: UCBV(ARMS, **UNIT, **a), {}),
    "kl-ucb": (lambda **a: KLUCB(ARMS, **UNIT, **a), {}),
    "kl-ucb-theory": (lambda **a: KLUCB(ARMS, c=3.0, **UNIT, **a), {"c": 3.0}),
    "kl-gaussian": (lambda **a: KLUCB(ARMS, c=3.0, scale=0.7, **a), {"c": 3.0, "scale": 0.7}),
    "moss": (lambda **a: MOSS(ARMS, horizon=77, **UNIT, **a), {"horizon": 77}),
    "moss-anytime": (lambda **a: MOSS(ARMS, **UNIT, **a), {}),
    "greedy": (lambda **a: Greedy(ARMS, **UNIT, **a), {}),
    "bayes-ucb": (lambda **a: BayesUCB(ARMS, **UNIT, **a), {"c": 0.0, "horizon": 9}),
    "bayes-ucb-theory": (lambda **a: BayesUCB(ARMS, c=5.0, horizon=60, **UNIT, **a), {"c": 5.0, "horizon": 60}),
    "sw-ucb": (lambda **a: SlidingWindowUCB(ARMS, window=11, **UNIT, **a), {"window": 11}),
    "d-ucb": (lambda **a: DiscountedUCB(ARMS, discount=0.9, **UNIT, **a), {"discount": 0.9}),
}


@pytest.mark.parametrize("rule", RULES)
def test_indices_on_random_histories(rule):
    build, given = RULES[rule]
    name = next(n for n in ("kl-gaussian", "kl-ucb", "ucb1-tuned", "ucb1", "moss", "bayes-ucb", rule) if rule.startswith(n))  # fmt: skip  # noqa: E501
    learner, rng = build(runs=RUNS), np.random.default_rng(3)
    # Histories differ in how often an arm is played, and whether its rewards are 0 or 1, of some size, or all the same.
    odds = rng.dirichlet([0.5] * ARMS, RUNS)
    histories = [[] for _ in range(RUNS)]
    for t in range(ROUNDS + 1):
        if t in (0, 1, 2, 5, 12, ROUNDS):
            index = learner.quantiles if name == "bayes-ucb" else learner._index()
            wanted = [indices(name, history, ARMS, **given) for history in histories]
            np.testing.assert_allclose(index.numpy(), wanted, rtol=1e-9, atol=1e-10, err_msg=f"{rule} after {t}")
        arm = np.array([rng.choice(ARMS, p=p) for p in odds])
        reward = np.where(arm == 0, (rng.random(RUNS) < 0.3), np.where(arm == 1, 0.0, rng.random(RUNS)))
        learner.observe(torch.as_tensor(arm), torch.as_tensor(reward))
        for history, a, r in zip(histories, arm.tolist(), reward.tolist(), strict=True):
            history.append((a, r))


@pytest.mark.parametrize("level", [0.0, 0.7, 5.0, 20.0])
def test_kl_index_for_extreme_means_and_plays(level):
    rng = np.random.default_rng(0)
    n = np.floor(10 ** rng.uniform(0, 6, 400))
    m = np.concatenate([[0.0, 1.0, 1e-9, 1 - 1e-9], 10 ** rng.uniform(-9, 0, 98), 1 - 10 ** rng.uniform(-9, 0, 98), rng.random(200)])  # fmt: skip  # noqa: E501
    got = kl_ucb_index(torch.as_tensor(m)[None], torch.as_tensor(n)[None], level)[0].numpy()
    assert ((got >= m - 1e-12) & (got <= 1)).all()
    if level:
        wanted = [kl_index(*pair, level) for pair in zip(m.tolist(), n.tolist(), strict=True)]
        np.testing.assert_allclose(got, wanted, atol=1e-10)
    else:
        np.testing.assert_allclose(got, m, atol=1.1e-12)


@pytest.mark.parametrize("tail", [0.5, 0.3, 0.01, 1e-4, 1e-6, 1e-12])
def test_beta_quantiles_are_scipys(tail):
    rng = np.random.default_rng(1)
    a = 1 + np.floor(10 ** rng.uniform(0, 5, 600)) * rng.random(600)
    b = 1 + np.floor(10 ** rng.uniform(0, 5, 600)) * rng.random(600)
    a[:50], b[50:100], a[:5], b[:5] = 1, 1, 1, 1
    wanted = 1 - scipy.special.betaincinv(b, a, tail)
    got = beta_logit(torch.as_tensor(a), torch.as_tensor(b), math.log(tail)).sigmoid().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-10)
    guess = torch.as_tensor(rng.normal(size=600) * 3)
    warm = beta_logit(torch.as_tensor(a), torch.as_tensor(b), math.log(tail), guess).sigmoid().numpy()
    np.testing.assert_allclose(warm[guess.sigmoid().numpy() < wanted], wanted[guess.sigmoid().numpy() < wanted], atol=1e-10)  # fmt: skip  # noqa: E501


def test_bayes_ucb_quantiles_after_many_rounds():
    """Steps of arms that are not played add up to nothing, also after hundreds of rounds."""
    learner, rng = BayesUCB(4, 20, **UNIT), np.random.default_rng(0)
    for _ in range(500):
        arm = torch.as_tensor(rng.choice(4, 20, p=[0.95, 0.04, 0.0095, 0.0005]))
        learner.observe(arm, torch.as_tensor(rng.random(20) < 0.7).double())
    s, n = learner.sums.numpy(), learner.plays.numpy()
    np.testing.assert_allclose(
        learner.quantiles.numpy(), 1 - scipy.special.betaincinv(1 + n - s, 1 + s, 1 / 501), atol=1e-11
    )


@pytest.mark.parametrize("shape", [1.0, 1.5, 20.0, 3e4])
def test_gamma_numbers_have_their_distribution(shape):
    philox, count = Philox(4, [0]), 100_000
    normal = philox.normal("tests/normal", 0, 1, 6 * count, torch.float64).view(1, 6, count)
    uniform = philox.uniform("tests/uniform", 0, 1, 6 * count, torch.float64).view(1, 6, count)
    shapes = torch.full((1, count), shape, dtype=torch.float64)
    found = gamma_draw(shapes, normal, uniform)[0].numpy()
    assert scipy.stats.kstest(found, "gamma", (shape,)).pvalue > 1e-3
    failed = (gamma_draw(shapes, normal[:, :1], uniform[:, :1]) == shape - 1 / 3).double().mean()
    assert float(failed) < (0.0495 if shape == 1 else 0.03)
    if shape == 1:
        assert float(failed) ** 6 == pytest.approx(1.27e-8, rel=0.15)
