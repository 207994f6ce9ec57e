"""Episodes of a policy: what a row holds, and that an episode depends on its seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest

from envs.behaviours import load
from envs.make import make_env
from envs.rollouts import episodes, returns, uniform_policy

ENV = "Hopper-v4"  # episodes of different lengths, ended by terminals

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")


def some(num_envs: int, count: int = 7, first: int = 0) -> list[object]:
    return list(episodes(ENV, uniform_policy(ENV), 3, num_envs, first=first, last=first + count, uniform=True))


def test_rows_are_what_the_environment_gave() -> None:
    episode = next(iter(episodes(ENV, uniform_policy(ENV), 3, 4, uniform=True)))
    env = make_env(ENV)
    rng = np.random.default_rng([3, 0])
    obs, _ = env.reset(seed=int(rng.integers(2**31)))
    for step in range(len(episode)):
        np.testing.assert_array_equal(episode.obs[step], np.float32(obs))
        obs, reward, terminated, truncated, _ = env.step(episode.action[step])
        assert episode.reward[step] == np.float32(reward)
        assert (terminated or truncated) == (step == len(episode) - 1)
    assert terminated
    assert episode.terminal


@pytest.mark.parametrize("num_envs", [1, 3, 16])
def test_an_episode_does_not_depend_on_its_neighbours(num_envs: int) -> None:
    """The uniform policy has no matrix product, so here the bits are the same too."""
    for one, other in zip(some(5), some(num_envs), strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(one.reward, other.reward)  # type: ignore[attr-defined]
    later = some(2, count=3, first=4)
    np.testing.assert_array_equal(some(5)[4].obs, later[0].obs)  # type: ignore[attr-defined]


def test_seeds_and_episodes_differ() -> None:
    first = some(2)
    other = list(episodes(ENV, uniform_policy(ENV), 4, 2, last=7, uniform=True))
    starts = {tuple(np.asarray(episode.obs[0]).tolist()) for episode in [*first, *other]}  # type: ignore[attr-defined]
    assert len(starts) == 14


def test_time_limit_is_no_terminal() -> None:
    found = list(episodes("Pendulum-v1", uniform_policy("Pendulum-v1"), 0, 2, last=3, uniform=True))
    assert [len(episode) for episode in found] == [200, 200, 200]
    assert not any(episode.terminal for episode in found)


def test_policy_is_always_called_on_the_same_number_of_rows() -> None:
    heights = set()

    def policy(obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        heights.add((len(obs), len(noise)))
        return noise * np.float32(0.1)

    list(episodes(ENV, policy, 0, 6, last=8))
    assert heights == {(6, 6)}


def test_returns_of_a_shipped_policy() -> None:
    policy = load("pendulum-expert")
    good = returns("Pendulum-v1", policy.act, 20, seed=0)
    bad = returns("Pendulum-v1", uniform_policy("Pendulum-v1"), 20, seed=0, uniform=True)
    assert good.mean() > -250 > -900 > bad.mean()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="num_envs: expected at least 1"):
        next(iter(episodes(ENV, uniform_policy(ENV), 0, 0)))
    with pytest.raises(ValueError, match="episodes: expected at least 1"):
        returns(ENV, uniform_policy(ENV), 0, 0)
    with pytest.raises(ValueError, match="discrete actions are unsupported"):
        next(iter(episodes("CartPole-v1", lambda obs, noise: noise, 0)))
