"""Evaluation: one seeded episode a slot, against a plain loop; start states independent of training."""

import gymnasium as gym
import numpy as np
import pytest

from experiments.evaluate import Evaluator, episode_seed, record_video
from offline_rl import BC, algorithm
from tests.experiments import interacting


@pytest.fixture(scope="module")
def learner():
    return BC(3, 1, -2.0, 2.0, runs=2, hidden=(16,))


def test_equals_a_plain_loop_over_episodes(learner):
    evaluator = Evaluator("Pendulum-v1", learner.run_ids, episodes=2, seed=5)
    played = evaluator.evaluate(learner, step=70)
    for run in (0, 1):
        for episode in (0, 1):
            env = gym.make("Pendulum-v1")
            obs, _ = env.reset(seed=episode_seed(5, run, 70, episode))
            total, done = 0.0, False
            while not done:
                obs, reward, terminated, truncated, _ = env.step(learner.act(obs)[run])
                total += reward
                done = terminated or truncated
            assert played.returns[run, episode] == pytest.approx(total, rel=1e-5)
    assert (played.lengths == 200).all()
    np.testing.assert_array_equal(evaluator.evaluate(learner, step=70).returns, played.returns)
    assert not np.array_equal(evaluator.evaluate(learner, step=71).returns, played.returns)
    evaluator.close()


def test_early_ends_leave_the_other_slots_alone():
    """Hopper's untrained policies fall at different times; each slot's return is its own first episode's."""
    learner = BC(11, 3, runs=2, hidden=(8,))
    evaluator = Evaluator("Hopper-v4", learner.run_ids, episodes=3, seed=0)
    played = evaluator.evaluate(learner, step=0)
    assert len(np.unique(played.lengths)) > 1
    env = gym.make("Hopper-v4")
    obs, _ = env.reset(seed=episode_seed(0, 1, 0, 2))
    total, length, done = 0.0, 0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(learner.act(np.float32(obs))[1])
        total, length, done = total + reward, length + 1, terminated or truncated
    assert played.lengths[1, 2] == length
    assert played.returns[1, 2] == pytest.approx(total, rel=1e-4)
    evaluator.close()


def test_start_states_differ_by_run_step_and_episode_and_not_by_algorithm():
    seeds = {episode_seed(0, run, step, episode) for run in range(5) for step in range(5) for episode in range(5)}
    assert len(seeds) == 125


def test_skipped_runs_are_nan(learner):
    evaluator = Evaluator("Pendulum-v1", learner.run_ids, episodes=1, seed=0)
    played = evaluator.evaluate(learner, step=0, skip=[0])
    assert np.isnan(played.returns[0]).all()
    assert np.isfinite(played.returns[1]).all()
    evaluator.close()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Hopper-v4", "observations are 3 real numbers"),
        ("CartPole-v1", "observations are 3 real numbers"),
    ],
)
def test_environment_of_another_shape_is_an_error(learner, env, message):
    evaluator = Evaluator(env, learner.run_ids, episodes=1, seed=0)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(learner, step=0)
    evaluator.close()


@pytest.mark.parametrize("name", ["bc", "td3"])
def test_that_error_speaks_of_agents_without_data_too(name):
    evaluator = Evaluator("Hopper-v4", [0], episodes=1, seed=0)
    with pytest.raises(
        ValueError, match=r"as those that the policy learned from.*it learned in, or that its data come"
    ):
        evaluator.evaluate(algorithm(name)(3, 1, hidden=(4,)), step=0)
    evaluator.close()


def test_discrete_actions_are_an_error():
    evaluator = Evaluator("CartPole-v1", [0], episodes=1, seed=0)
    with pytest.raises(ValueError, match="actions are 1 real numbers"):
        evaluator.evaluate(BC(4, 1, hidden=(4,)), step=0)
    evaluator.close()


def test_video_without_a_renderer_names_the_extra(learner, tmp_path, monkeypatch):
    from gymnasium.envs.classic_control import PendulumEnv
    from gymnasium.error import DependencyNotInstalled

    def render(self):
        raise DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(PendulumEnv, "render", render)
    with pytest.raises(ImportError, match=r"orbs\[video\]"):
        record_video(learner, "Pendulum-v1", tmp_path / "a.gif", 0, 0)
    assert not list(tmp_path.iterdir())


def test_no_episode_is_an_error():
    with pytest.raises(ValueError, match="eval_episodes: expected at least 1"):
        Evaluator("Pendulum-v1", [0], 0, 0)


def test_simulator_is_named_with_its_version():
    from importlib import metadata

    for env_id, package in (("Hopper-v4", "mujoco"), ("Pendulum-v1", "gymnasium")):
        evaluator = Evaluator(env_id, [0], episodes=1, seed=0)
        assert evaluator.simulator == f"{package} {metadata.version(package)}"
        evaluator.close()


def test_equals_a_plain_loop_bit_for_bit():
    """Gymnasium's own environments as they come, stepped one by one with the actions of all slots at once."""
    learner = algorithm("bc")(11, 3, runs=2, hidden=(8,))
    evaluator = Evaluator("Hopper-v4", learner.run_ids, episodes=2, seed=3)
    played = evaluator.evaluate(learner, step=7)
    evaluator.close()
    envs = [gym.make("Hopper-v4") for _ in range(4)]
    obs = np.zeros((4, 11), np.float32)
    for slot, env in enumerate(envs):
        obs[slot] = env.reset(seed=episode_seed(3, slot // 2, 7, slot % 2))[0]
    totals, lengths, active = [0.0] * 4, [0] * 4, [0, 1, 2, 3]
    while active:
        action = np.clip(learner.act(obs.reshape(2, 2, 11)).reshape(4, 3), -1, 1)
        for slot in list(active):
            obs[slot], reward, terminated, truncated, _ = envs[slot].step(action[slot])
            totals[slot], lengths[slot] = totals[slot] + reward, lengths[slot] + 1
            if terminated or truncated:
                active.remove(slot)
    assert played.returns.reshape(-1).tolist() == totals
    assert played.lengths.reshape(-1).tolist() == lengths


def test_time_limit_is_the_environments():
    """FarLimit never ends by itself: after 5 steps the limit ends it, every time."""
    learner = algorithm("bc")(2, 1, hidden=(4,))
    interacting.register()
    evaluator = Evaluator("orbs-test/FarLimit-v0", [0], episodes=2, seed=0)
    for step in (0, 1):
        assert evaluator.evaluate(learner, step).lengths.tolist() == [[5, 5]]
    evaluator.close()


@pytest.mark.parametrize("name", ["td3bc", "sac"])
def test_every_slot_is_the_same_whichever_are_played_with_it(name):
    learner = algorithm(name)(11, 3, runs=2, hidden=(8, 8))
    whole = Evaluator("Hopper-v4", learner.run_ids, 3, 0)
    expected = whole.evaluate(learner, 4)
    for slots in ([0, 2, 4], [5], [1, 3]):
        part = Evaluator("Hopper-v4", learner.run_ids, 3, 0, slots)
        found = part.evaluate(learner, 4)
        np.testing.assert_array_equal(found.returns.reshape(-1)[slots], expected.returns.reshape(-1)[slots])
        np.testing.assert_array_equal(found.lengths.reshape(-1)[slots], expected.lengths.reshape(-1)[slots])
        assert np.isnan(found.returns).sum() == 6 - len(slots)
        part.close()
    whole.close()
