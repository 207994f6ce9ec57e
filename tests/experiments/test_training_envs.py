"""Environments to learn in: actions inside the box in its own numbers, and a replay that finds what was there."""

import gymnasium as gym
import numpy as np
import pytest

from experiments.acting import within
from experiments.evaluate import Evaluator, record_video
from experiments.training_envs import TrainingEnvs
from offline_rl import BC, algorithm
from tests.experiments.interacting import options


class Strict(gym.Env):
    """Its bounds are no float32, and it refuses whatever is beyond them; it answers in wider numbers than its space."""

    action_space = gym.spaces.Box(-0.1, 0.1, (1,), np.float64)
    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's)
    played: list = []  # noqa: RUF012 (of every copy)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=1), {}

    def step(self, action):
        assert action.dtype == np.float64
        assert self.action_space.contains(action), action
        Strict.played.append(action)
        return self.np_random.normal(size=1), 1.0, False, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


@pytest.fixture(autouse=True)
def _strict():
    if "orbs-test/Strict-v0" not in gym.registry:
        gym.register("orbs-test/Strict-v0", Strict, max_episode_steps=6)
    Strict.played = []


class Extreme:
    """Always the end of its box, in float32: beyond the environment's own."""

    runs, run_ids, obs_dim, action_dim, steps = 2, [0, 1], 1, 1, 0

    def act(self, obs):
        return np.full((2, *np.shape(obs)[-2:-1], 1), np.float32(0.1))


def test_the_end_of_a_box_in_float32_is_beyond_it_and_is_played_at_its_edge(tmp_path):
    assert np.float64(np.float32(0.1)) > 0.1
    np.testing.assert_array_equal(within(np.float32([0.1]), Strict.action_space), [0.1])
    envs = TrainingEnvs("orbs-test/Strict-v0", [0, 1], 0)
    envs.step(np.full((2, 1), np.float32(0.1)))
    envs.step(np.full((2, 1), np.float32(-0.1)))
    evaluator = Evaluator("orbs-test/Strict-v0", [0, 1], 1, 0)
    evaluator.evaluate(Extreme(), 0)
    evaluator.close()
    record_video(Extreme(), "orbs-test/Strict-v0", tmp_path / "a.gif", 0, 0)
    assert len(Strict.played) == 2 * 2 + 2 * 6 + 6
    np.testing.assert_array_equal(np.abs(np.stack(Strict.played)), 0.1)


def test_observations_in_wider_numbers_are_no_other_simulator():
    """The space's float32 is what is kept of a last observation; the environment itself answers in float64."""
    envs = TrainingEnvs("orbs-test/Strict-v0", [0, 1], 0)
    for _ in range(3):
        envs.step(np.zeros((2, 1), np.float32))
    state = envs.state()
    assert envs.obs.dtype == np.float32
    other = TrainingEnvs("orbs-test/Strict-v0", [0, 1], 0)
    assert other.restore(state) == []
    np.testing.assert_array_equal(other.obs, envs.obs)
    assert TrainingEnvs("orbs-test/Strict-v0", [0, 1], 1).restore(state) == [0, 1]


def test_a_resume_there_warns_of_nothing(tmp_path, recwarn):
    import dataclasses

    from experiments.train import train

    given = options(tmp_path, env="orbs-test/Strict-v0", steps=20, eval_every=20)
    train(given)
    train(dataclasses.replace(given, steps=40, resume=True))
    assert not [one for one in recwarn if "simulator differs" in str(one.message)]


def test_a_video_draws_anew_at_each_step(tmp_path):
    """Also of an agent whose action is an average of samples; one that learned from data is not asked for that."""
    agent = algorithm("stac")(1, 1, -0.1, 0.1, runs=2, hidden=(8,), capacity=300, evaluation_action="samples")
    calls, act = [], agent.act

    def recorded(obs, deterministic=True, draw=0):
        calls.append(draw)
        return act(obs, deterministic, draw)

    agent.act = recorded
    assert record_video(agent, "orbs-test/Strict-v0", tmp_path / "a.gif", 1, 0).stat().st_size > 0
    assert calls == list(range(6))
    learner = BC(1, 1, -0.1, 0.1, runs=2, hidden=(4,))
    assert record_video(learner, "orbs-test/Strict-v0", tmp_path / "b.gif", 1, 0).stat().st_size > 0
