"""Noisy rewards: their mean and spread, closed-form values, starts, ends and seeds."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.make import env_facts, make_env
from envs.risky import RiskyDial, RiskyPointMass

IDS = {"orbs/RiskyDial-v0": (3, 1, 100), "orbs/RiskyPointMass-v0": (2, 2, 200)}


@pytest.mark.parametrize("env_id", IDS)
def test_passes_gymnasiums_checker_and_states_its_shapes(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped, skip_render_check=True)
    facts, (obs_dim, action_dim, steps) = env_facts(env_id), IDS[env_id]
    assert (facts.obs_dim, len(facts.action_low), facts.max_episode_steps) == (obs_dim, action_dim, steps)
    np.testing.assert_array_equal([facts.action_low, facts.action_high], [[-1.0] * action_dim, [1.0] * action_dim])


def test_passes_stable_baselines3s_checker() -> None:
    from stable_baselines3.common.env_checker import check_env as check

    for env_id in IDS:
        check(make_env(env_id))


@pytest.mark.parametrize("env_id", IDS)
def test_a_seed_fixes_starts_rewards_and_successors(env_id: str) -> None:
    def play(seed: int, stray: int) -> list[np.ndarray]:
        np.random.seed(stray)  # noqa: NPY002  (the global generator is of no effect)
        env = gym.make(env_id)
        rows = [env.reset(seed=seed)[0]]
        for step in range(120):
            obs, reward, terminated, truncated, _ = env.step(np.full(env.action_space.shape, 0.3, np.float32))
            rows.append(np.append(obs, reward))
            if terminated or truncated:
                rows.append(env.reset()[0])
            assert truncated == (env_id == "orbs/RiskyDial-v0" and step == 99)
        return rows

    one, again, other = play(5, 0), play(5, 1), play(6, 1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


@pytest.mark.parametrize("action", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_dials_rewards_have_the_stated_mean_and_spread(action: float) -> None:
    """At 0.5, u = 0.75: mean 0.3 (0.75 - 1) = -0.075, deviation 0.1 + 2 0.5625 = 1.225."""
    dial = RiskyDial()
    dial.reset(seed=3)
    n = 10_000
    rewards = np.array([dial.step(np.float32([action]))[1] for _ in range(n)])
    u = (action + 1) / 2
    mean, std = 0.3 * (u - 1), 0.1 + 2 * u * u
    assert dial.mean_reward(action) == pytest.approx(mean)
    assert dial.reward_std(action) == pytest.approx(std)
    assert abs(rewards.mean() - mean) < 4.5 * std / math.sqrt(n)
    assert rewards.std() == pytest.approx(std, rel=0.04)
    tails = np.abs(rewards - mean) > 1.96 * std
    assert tails.mean() == pytest.approx(0.05, abs=0.01)  # normal


def test_dials_observations_are_uniform_and_tell_nothing() -> None:
    dial = RiskyDial()
    dial.reset(seed=0)
    rows = [dial.step(dial.action_space.sample()) for _ in range(5000)]
    obs, reward = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    assert obs.shape == (5000, 3)
    np.testing.assert_allclose([obs.mean(0), obs.var(0)], [[0.0] * 3, [1 / 3] * 3], atol=0.04)
    both = np.column_stack([obs[:-1], obs[1:], reward[1:]])
    assert np.abs(np.corrcoef(both.T) - np.eye(7)).max() < 0.07


def test_dials_value_of_a_policy_is_the_closed_form() -> None:
    """The action 0 for ever: m(0) / (1 - gamma) = -0.15 / 0.1 = -1.5, by play with standard error 0.009."""
    dial, discount, episodes = RiskyDial(), 0.9, 100
    dial.reset(seed=11)
    rewards = np.array([[dial.step(np.zeros(1, np.float32))[1] for _ in range(200)] for _ in range(episodes)])
    weights = discount ** np.arange(200)
    expected = dial.mean_reward(0.0) / (1 - discount)
    assert expected == pytest.approx(-1.5)
    error = dial.reward_std(0.0) * math.sqrt(1 / (1 - discount**2) / episodes)
    assert abs((rewards @ weights).mean() - expected) < 4 * error


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.0, 1.0), (0.05, 1.0), (0.075, 1.0), (0.1, 0.5), (0.25, -0.4), (0.5, -0.7)]
)
def test_dials_optimum_is_what_a_search_finds(beta: float, expected: float) -> None:
    dial, grid = RiskyDial(), np.linspace(-1, 1, 20001)
    found = grid[np.argmax(dial.mean_reward(grid) - beta * dial.reward_std(grid))]
    assert dial.best_action(beta) == pytest.approx(expected)
    assert found == pytest.approx(expected, abs=1e-3)


def test_dial_takes_its_arguments() -> None:
    dial: Any = gym.make("orbs/RiskyDial-v0", gain=1.0, calm=0.0, spread=4.0).unwrapped
    assert dial.best_action(0.25) == pytest.approx(0.0)
    assert dial.mean_reward(-1.0) == -1.0
    assert dial.reward_std(-1.0) == 0.0
    dial.reset(seed=0)
    assert dial.step(np.float32([-1.0]))[1] == -1.0


@pytest.mark.parametrize("bad", [{"gain": 0.0}, {"calm": -0.1}, {"spread": 0.0}, {"gain": math.nan}])
def test_bad_numbers_of_the_dial_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        RiskyDial(**bad)


def at(mass: RiskyPointMass, position: tuple[float, float]) -> RiskyPointMass:
    mass._position = np.array(position)
    return mass


def test_point_mass_is_penalised_at_the_stated_rate_and_only_in_the_disc() -> None:
    """At the centre 10 % of the steps cost 10; at a distance of 0.15, 10 % exp(-1); at 0.3, none."""
    mass, still = RiskyPointMass(), np.zeros(2, np.float32)
    mass.reset(seed=2)
    for offset, chance in ((0.0, 0.1), (0.15, 0.1 * math.exp(-1)), (0.301, 0.0)):
        place = (0.5 + offset, 0.5)
        n, distance = 10_000, math.hypot(*place)
        rewards = np.array([at(mass, place).step(still)[1] for _ in range(n)])
        assert set(np.round(rewards + distance + 0.1, 9)) <= {0.0, -10.0}
        assert (rewards < -5).mean() == pytest.approx(chance, abs=4.5 * math.sqrt(chance / n))
        assert RiskyPointMass.mean_reward(np.array(place)) == pytest.approx(-distance - 0.1 - 10 * chance)
        assert RiskyPointMass.reward_std(np.array(place)) == pytest.approx(10 * math.sqrt(chance * (1 - chance)))
        assert at(mass, place).step(still)[4] == {"danger": offset < 0.3}


def test_point_mass_moves_slips_and_stays_in_the_square() -> None:
    for slip in (0.002, 0.02):
        mass = RiskyPointMass(slip=slip)
        mass.reset(seed=0)
        moved = np.array([at(mass, (0.8, 0.2)).step(np.float32([-1.0, 0.5]))[0] for _ in range(2000)])
        noise = moved - np.array([0.7, 0.25])
        assert 0.98 * slip < np.abs(noise).max() <= slip + 1e-6
        assert noise.std() == pytest.approx(slip / math.sqrt(3), rel=0.05)
        corner = at(mass, (0.99, 0.99)).step(np.ones(2, np.float32))[0]
        np.testing.assert_array_equal(corner, [1.0, 1.0])


def test_point_mass_is_judged_before_the_move() -> None:
    mass = RiskyPointMass(slip=0.0)
    mass.reset(seed=0)
    obs, reward, terminated, truncated, info = at(mass, (0.06, 0.0)).step(np.float32([-1.0, 0.0]))
    np.testing.assert_array_equal(obs, [0.0, 0.0])
    assert (reward, terminated, truncated, info) == (pytest.approx(-0.16), False, False, {"danger": False})
    _, reward, terminated, _, _ = mass.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(-0.1)
    assert terminated
    assert not at(mass, (0.051, 0.0)).step(np.zeros(2, np.float32))[2]
    assert at(mass, (0.049, 0.0)).step(np.zeros(2, np.float32))[2]


@pytest.mark.parametrize("safe", [True, False])
def test_point_masses_start_outside_the_disc_unless_told_otherwise(safe: bool) -> None:
    mass = RiskyPointMass(safe_starts=safe)
    mass.reset(seed=4)
    starts = np.array([mass.reset()[0] for _ in range(3000)])
    inside = np.linalg.norm(starts - 0.5, axis=1) < 0.3
    assert starts.min() >= 0.3
    assert starts.max() <= 1.0
    if safe:
        assert not inside.any()
    else:
        # The disc's part in [0.3, 1]^2: a numerical integral.
        grid = np.stack(np.meshgrid(*[np.linspace(0.3, 1, 1001)] * 2), -1)
        assert inside.mean() == pytest.approx((np.linalg.norm(grid - 0.5, axis=-1) < 0.3).mean(), abs=0.04)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_bad_slip_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="slip"):
        RiskyPointMass(slip=bad)
