"""Regret of the stochastic learners in the world: published and reference values, rates and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bandits import make
from envs.multi_armed_bandit import MultiArmedBandit


def regrets(name, world, given=None, marks=()):
    """Mean pseudo-regret after the marked rounds and the last."""
    learner = make(name, world.facts, runs=world.run_ids, **(given or {}))
    found = []
    for t in range(1, world.horizon + 1):
        arm = learner.act()
        learner.observe(arm, world.step(arm)[4]["feedback"])
        if t in marks or t == world.horizon:
            found.append(float(world.regret()["regret/pseudo"].mean()))
    return found


@pytest.fixture(scope="module")
def nine_against_one():
    return MultiArmedBandit(10, 10_000, runs=200)


REFERENCE = [
    ("explore-first", {}, 90.0, 282.0, 0.25),
    ("epsilon-greedy", {}, 67.0, 292.0, 0.1),
    ("successive-elimination", {}, 90.0, 900.0, 0.1),
    ("ucb1", {}, 83.0, 593.0, 0.1),
    ("ucb1", {"time": "horizon"}, 84.0, 591.0, 0.1),
    ("kl-ucb", {"c": 3.0}, 78.0, 378.0, 0.1),
    ("kl-ucb", {}, 70.0, 254.0, 0.1),
    ("moss", {}, 75.0, 179.0, 0.1),
    ("thompson-beta", {}, 65.5, 165.0, 0.1),
    ("bayes-ucb", {}, 64.0, 199.0, 0.1),
]


@pytest.mark.proof
@pytest.mark.parametrize(("name", "given", "early", "late", "tolerance"), REFERENCE, ids=lambda value: str(value))
def test_reference_regret(nine_against_one, name, given, early, late, tolerance):
    found = regrets(name, nine_against_one.twin(), given, (1000,))
    if name in ("explore-first", "successive-elimination"):
        assert found[0] == pytest.approx(90.0, abs=1e-9)
    assert found[0] == pytest.approx(early, rel=0.1)
    assert found[1] == pytest.approx(late, rel=tolerance)
    if name == "successive-elimination":
        assert found[1] == pytest.approx(900.0, abs=1e-9)


TWO = (0.9, 0.8)


@pytest.mark.proof
def test_the_lower_bound_of_lai_and_robbins_is_met():
    horizon = 100_000
    world = MultiArmedBandit(horizon=horizon, runs=24, means=TWO)
    bound = 0.1 / (0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1))
    assert 0.5 <= regrets("kl-ucb", world)[0] / math.log(horizon) / bound <= 1.6


@pytest.mark.proof
def test_thompson_sampling_on_two_arms():
    """As NumPy's own beta draws have it, 1000 runs: 9.55 (0.23) after 10,000 rounds.

    After 100,000 it is 13.50 (0.26) there, 0.52 of Lai and Robbins' rate: a band that begins at 0.5 needs 1000 runs.
    """
    runs = 200
    found = regrets("thompson-beta", MultiArmedBandit(horizon=10_000, runs=runs, means=TWO))[0]
    assert found == pytest.approx(9.55, abs=4 * math.hypot(0.23, 7.3 / math.sqrt(runs)))


@pytest.mark.parametrize("horizon", [100, pytest.param(10_000, marks=pytest.mark.proof)])
def test_worst_case_bounds(horizon):
    world = MultiArmedBandit(10, horizon, runs=60, gap=None)
    assert world.gap == pytest.approx(math.sqrt(10 / horizon))
    scale = math.sqrt(10 * horizon)
    everything = world.gap * horizon
    moss, ucb = regrets("moss", world.twin())[0], regrets("ucb1", world.twin())[0]
    assert moss <= 25 * scale
    assert ucb <= 10 * scale * math.sqrt(math.log(horizon))
    # The bounds alone are met by any learner here; these two are not. MOSS is the better one.
    assert moss < 0.85 * everything
    assert moss < ucb < 0.95 * everything


@pytest.mark.proof
def test_explore_first_grows_as_two_thirds_across_horizons():
    """With a gap that the exploration resolves, the regret is that of the exploration, N gap an arm."""
    horizons = (1000, 3000, 9000)
    found = [regrets("explore-first", MultiArmedBandit(4, t, runs=20, gap=0.4))[0] for t in horizons]
    slope = np.polyfit(np.log(horizons), np.log(found), 1)[0]
    assert slope == pytest.approx(2 / 3, abs=0.07)


@pytest.mark.parametrize("name", ["ucb1", "ucb1-tuned", "kl-ucb", "moss", "thompson-beta", "thompson-gaussian", "bayes-ucb", "epsilon-greedy", "greedy", "boltzmann"])  # fmt: skip  # noqa: E501
def test_every_learner_beats_chance(name):
    world = MultiArmedBandit(3, 300, runs=30, gap=0.4)
    chance = 0.4 * 300 * 2 / 3
    assert regrets(name, world)[0] < 0.75 * chance


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_forgetting_pays_when_the_best_arm_changes(kind):
    world = MultiArmedBandit(horizon=1000, runs=20, kind=kind, means=(0.1, 0.9), noise=0.3, turns=0.5)
    found = {name: regrets(name, world.twin())[0] for name in ("ucb1", "sw-ucb", "d-ucb")}
    greedy = regrets("greedy", world.twin())[0]
    assert max(found["sw-ucb"], found["d-ucb"]) < 0.5 * greedy
    assert found["sw-ucb"] < found["ucb1"]


def test_the_oracle_has_no_regret_and_a_random_arm_has_all():
    world = MultiArmedBandit(10, 50, runs=40)
    assert regrets("oracle", world.twin()) == [0.0]
    assert regrets("random", world.twin())[0] == pytest.approx(50 * 0.09, rel=0.05)
