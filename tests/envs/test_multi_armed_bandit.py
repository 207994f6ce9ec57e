"""Arms with Bernoulli or Gaussian rewards: means of each stage, rewards that have them, regrets, facts, checkers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from envs.multi_armed_bandit import MultiArmedBandit
from experiments.problems import find


def played(world: MultiArmedBandit, arms: np.ndarray) -> np.ndarray:
    """Rewards (rounds, R) of arms (rounds,)."""
    return np.array([world.step(torch.full((world.num_envs,), int(arm)))[4]["feedback"].reward.numpy() for arm in arms])


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_rewards_have_the_stated_means_and_are_independent(kind: str) -> None:
    world = MultiArmedBandit(horizon=12, runs=8000, kind=kind, means=(0.2, 0.7), noise=0.3)
    arms = np.array([0, 1] * 6)
    rewards, mean = played(world, arms), np.where(arms == 0, 0.2, 0.7)
    spread = np.sqrt(mean * (1 - mean)) if kind == "bernoulli" else np.full(12, 0.3)
    np.testing.assert_allclose(rewards.mean(1), mean, atol=4.5 * 0.5 / np.sqrt(8000))
    np.testing.assert_allclose(rewards.std(1), spread, atol=0.015)
    if kind == "bernoulli":
        assert set(np.unique(rewards)) == {0.0, 1.0}
    products = np.corrcoef(rewards)
    assert np.abs(products - np.eye(12)).max() < 5 / np.sqrt(8000)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_regrets_are_those_of_the_definition(kind: str) -> None:
    world = MultiArmedBandit(3, 30, runs=4, kind=kind, gap=0.3, turns=(0.25, 0.5))
    arms, means = np.random.default_rng(0).integers(0, 3, 30), world.mean_rewards(0, 30)
    rewards = played(world, arms)
    best = means.max(1).sum()
    found = world.regret()
    np.testing.assert_allclose(found["regret/pseudo"].numpy(), best - means[np.arange(30), arms].sum(), atol=1e-12)
    np.testing.assert_allclose(found["regret/realised"].numpy(), best - rewards.sum(0), atol=1e-12)


def test_means_of_the_stages() -> None:
    world = MultiArmedBandit(3, 8, gap=0.2)
    np.testing.assert_allclose(world.mean_rewards(0, 8), [[0.5, 0.5, 0.7]] * 8)
    moved = MultiArmedBandit(3, 8, gap=0.2, turns=(0.25, 0.55)).mean_rewards(0, 8)
    wanted = [[0.5, 0.5, 0.7]] * 2 + [[0.5, 0.7, 0.5]] * 3 + [[0.7, 0.5, 0.5]] * 3
    np.testing.assert_allclose(moved, wanted)
    rows = MultiArmedBandit(horizon=10, means=[[0.1, 0.2], [0.9, 0.3]], turns=0.3)
    np.testing.assert_allclose(rows.mean_rewards(2, 2), [[0.1, 0.2], [0.9, 0.3]])
    assert rows.arms == 2
    assert MultiArmedBandit(10, 1000, gap=None).gap == pytest.approx(0.1)
    assert MultiArmedBandit(10, 4, gap=None).gap == 0.5


def test_rewards_follow_the_stage_of_their_round() -> None:
    world = MultiArmedBandit(horizon=10, runs=3, means=[[0.0, 1.0], [1.0, 0.0]], turns=0.3)
    np.testing.assert_array_equal(played(world, np.zeros(10))[:, 0], [0] * 3 + [1] * 7)


def test_facts_of_a_world() -> None:
    common = {"arms": 3, "dimension": 3, "domain": ("arms", {"dimension": 3}), "horizon": 7}
    world = MultiArmedBandit(3, 7)
    assert world.facts == {**common, "reward_low": 0.0, "reward_high": 1.0, "best_arm": 2}
    world = MultiArmedBandit(horizon=7, kind="gaussian", means=(0.0, 5.0, -2.0), noise=0.4)
    assert world.facts == {**common, "noise": 0.4, "best_arm": 1}
    facts = MultiArmedBandit(3, 7, turns=(0.2, 0.99)).facts
    assert facts["changes"] == 1  # the second turn comes after the last round
    assert "best_arm" not in facts
    assert MultiArmedBandit(horizon=7, means=[[0.1, 0.2], [0.3, 0.9]], turns=0.5).facts["best_arm"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arms=0), "MultiArmedBandit.arms: expected an integer of at least 1"),
        (dict(horizon=0), "horizon: expected an integer of at least 1"),
        (dict(kind="bernouli"), "did you mean 'bernoulli'"),
        (dict(gap=0.6), "MultiArmedBandit.gap: expected a number from 0 to 0.5"),
        (dict(gap=-0.1, kind="gaussian"), "MultiArmedBandit.gap: expected a finite number of at least 0"),
        (dict(noise=-1.0), "MultiArmedBandit.noise: expected a finite number of at least 0"),
        (dict(means=(0.5, 1.1)), r"MultiArmedBandit.means: expected numbers in \[0, 1\]"),
        (dict(means=(0.5, np.nan), kind="gaussian"), "MultiArmedBandit.means: expected finite numbers"),
        (dict(means="many"), r"MultiArmedBandit.means: expected numbers in \[0, 1\]"),
        (dict(means=[[0.5, 0.6], [0.5]]), r"MultiArmedBandit.means: expected numbers in \[0, 1\]"),
        (dict(means=()), r"MultiArmedBandit.means: expected numbers in \[0, 1\]"),
        (dict(means=[[0.5, 0.6]], turns=0.5), "MultiArmedBandit.means: expected 2 rows, one more than turns, got 1"),
        (dict(turns=1.0), "MultiArmedBandit.turns: expected growing fractions"),
        (dict(turns=(0.5, 0.2)), "MultiArmedBandit.turns: expected growing fractions"),
        (dict(turns="half"), "MultiArmedBandit.turns: expected growing fractions"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiArmedBandit(**options)


@pytest.mark.parametrize("options", [{}, {"kind": "gaussian", "turns": 0.5}])
def test_the_single_environment_passes_both_checkers(options: dict[str, Any]) -> None:
    from stable_baselines3.common.env_checker import check_env as check

    env = gym.make("orbs/MultiArmedBandit-v0", arms=3, horizon=30, **options).unwrapped
    check_env(env, skip_render_check=True)
    check(env)


@pytest.mark.parametrize("name", ["bandit-bernoulli", "bandit-gaussian", "bandit-worst-case", "bandit-abrupt", "bandit-gaussian-abrupt"])  # fmt: skip  # noqa: E501
def test_problems_by_name(name: str) -> None:
    problem = find(name)
    world = problem.make({}, 40, 3)
    assert world.facts["arms"] == 10
    assert problem.metric in world.regret()
    for key in problem.known:
        assert hasattr(world, key)
    first, again = (played(problem.make({"arms": 4}, 40, 3), np.arange(40) % 4) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_saved_world_goes_on_to_the_same_bits_across_a_turn() -> None:
    arms = np.arange(20) % 3
    whole = played(MultiArmedBandit(3, 20, runs=5, gap=0.5, turns=0.5), arms)
    first, second = (MultiArmedBandit(3, 20, runs=5, gap=0.5, turns=0.5) for _ in range(2))
    played(first, arms[:8])
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(played(second, arms[8:]), whole[8:])
