"""The dataset that ships with the suite: its facts, checked against the Pendulum equations."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from envs.datasets import Dataset, load

NAME = "local/pendulum-medium-replay-v0"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(NAME)


def test_rows_and_episodes(data: Dataset) -> None:
    assert len(data) == 24_000
    assert data.episode_lengths().tolist() == [200] * 120
    assert not data.terminal.any()
    assert len(data.transitions()) == 24_000 - 120
    assert data.env_id == "Pendulum-v1"
    assert data.action_low.tolist() == [-2.0]
    assert data.action_high.tolist() == [2.0]
    assert data.path.stat().st_size < 600_000


def test_rewards_and_next_states_obey_the_equations(data: Dataset) -> None:
    """gymnasium's pendulum.py: g = 10, m = l = 1, dt = 0.05; float32 rows bound the agreement."""
    cos, sin, speed = data.obs.astype(np.float64).T
    torque = data.action[:, 0].astype(np.float64)
    angle = np.arctan2(sin, cos)
    np.testing.assert_allclose(data.reward, -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2), atol=3e-6)
    new_speed = np.clip(speed + (15.0 * sin + 3.0 * torque) * 0.05, -8.0, 8.0)
    new_angle = angle + new_speed * 0.05
    inner = ~data.timeout[:-1]
    wanted = np.stack((np.cos(new_angle), np.sin(new_angle), new_speed), axis=1)[:-1][inner]
    np.testing.assert_allclose(data.obs[1:][inner], wanted, atol=3e-6)


def test_returns_rise_from_poor_to_good(data: Dataset) -> None:
    returns = data.episode_returns()
    assert -900 < returns.mean() < -700
    assert returns[:20].mean() < -1000
    assert returns[-20:].mean() > -300
    score = data.normalized_score(returns)
    assert score.shape == (120,)
    assert 20 < score.mean() < 60
    assert data.score_source is not None
    assert "1000 episodes" in data.score_source
    assert NAME in data.summary()


def test_file_says_how_it_was_made(data: Dataset) -> None:
    with h5py.File(data.path) as file:
        attributes = dict(file.attrs)
    assert attributes["command"].startswith("python -m envs.collect replay --env Pendulum-v1 --steps 24000 --seed 0")
    assert {"python", "gymnasium", "stable-baselines3", "torch", "numpy"} <= set(json.loads(attributes["versions"]))


def test_environment_may_be_named_too() -> None:
    assert load(NAME, env="Pendulum-v1").min_score == load(NAME).min_score
