"""Episodes of a policy, several environments at a time, always the same ones for the same seed.

Episode e of a seed has its own generator, from which its start and all its noise come; it does not depend on which
environments run beside it. The policy is always called on a batch of `num_envs` rows, whatever is running, because
the last bits of a matrix product depend on the batch's height.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl

from envs.make import env_facts, make_env
from orbs import reject

__all__ = ["Episode", "Policy", "episodes", "returns", "uniform_policy"]

# (obs (n, obs_dim) float32, noise (n, action_dim) float32) -> actions (n, action_dim) float32
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Episode:
    """One whole episode of T steps.

    Attributes:
        obs: (T, obs_dim) float32.
        action: (T, action_dim) float32.
        reward: (T,) float32.
        terminal: whether the environment itself ended it; else the step limit did.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminal: bool

    def __len__(self) -> int:
        return len(self.reward)


class _Slot:
    """One environment and the episode that it plays."""

    def __init__(self, env: Any, limit: int, action_dim: int, uniform: bool) -> None:
        self.env, self.limit, self.action_dim, self.uniform = env, limit, action_dim, uniform

    def start(self, seed: int, index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, index])
        obs, _ = self.env.reset(seed=int(rng.integers(2**31)))
        shape = (self.limit, self.action_dim)
        self.noise = rng.random(shape, np.float32) if self.uniform else rng.standard_normal(shape, np.float32)
        self.index, self.steps = index, 0
        self.obs = np.empty((self.limit, len(obs)), np.float32)
        self.action = np.empty(shape, np.float32)
        self.reward = np.empty(self.limit, np.float32)
        return np.asarray(obs)


def episodes(
    env_id: str, policy: Policy, seed: int, num_envs: int = 16, first: int = 0, last: int | None = None,
    uniform: bool = False,
) -> Iterator[Episode]:  # fmt: skip
    """Whole episodes number first, first + 1, ... in order, up to `last` (excluded) or without end.

    Args:
        num_envs: environments that play at once, in this process.
        uniform: give the policy noise uniform on [0, 1) instead of standard normal.

    Raises:
        ValueError: fewer than one environment; a negative seed; an environment without a step limit, or that
            `env_facts` refuses.
    """
    if seed < 0:
        reject("seed", "0 or more", seed, "choose another seed")
    if num_envs < 1:
        reject("num_envs", "at least 1", num_envs, "ask for one environment or more")
    facts = env_facts(env_id)
    if facts.max_episode_steps is None:
        reject("env", "an environment with a step limit", f"'{env_id}'", "register it with max_episode_steps")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # -v4 ids are what D4RL's successors are measured on
        envs = [make_env(env_id, disable_env_checker=True) for _ in range(num_envs)]
    width = len(facts.action_low)
    blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
    slots = [_Slot(env, facts.max_episode_steps, width, uniform) for env in envs]
    obs, noise = np.zeros((num_envs, facts.obs_dim), np.float32), np.zeros((num_envs, width), np.float32)
    waiting, running, finished, due = first, dict[int, _Slot](), dict[int, Episode](), first
    try:
        for place, slot in enumerate(slots):
            if last is None or waiting < last:
                obs[place] = slot.start(seed, waiting)
                running[place] = slot
                waiting += 1
        while running:
            for place, slot in running.items():
                noise[place] = slot.noise[slot.steps]
            with blas.limit(limits=1):  # threads split a wide matrix product, and change its last bits
                actions = policy(obs, noise)
            for place, slot in list(running.items()):
                step = slot.steps
                slot.obs[step], slot.action[step] = obs[place], actions[place]
                following, reward, terminated, truncated, _ = slot.env.step(actions[place])
                slot.reward[step] = reward
                slot.steps = step + 1
                if not (terminated or truncated):
                    obs[place] = following
                    continue
                size = slot.steps
                finished[slot.index] = Episode(
                    slot.obs[:size], slot.action[:size], slot.reward[:size], bool(terminated)
                )
                if last is None or waiting < last:
                    obs[place] = slot.start(seed, waiting)
                    waiting += 1
                else:
                    del running[place]
            while due in finished:
                yield finished.pop(due)
                due += 1
    finally:
        for env in envs:
            env.close()


def uniform_policy(env_id: str) -> Policy:
    """Uniformly random actions; to be called with `uniform=True`."""
    facts = env_facts(env_id)
    low, span = facts.action_low, facts.action_high - facts.action_low
    return lambda obs, noise: np.asarray(low + noise * span, np.float32)


def returns(
    env_id: str, policy: Policy, count: int, seed: int, num_envs: int = 10, uniform: bool = False
) -> np.ndarray:
    """(count,) float64 undiscounted returns of episodes 0 .. count - 1.

    Raises:
        ValueError: fewer than one episode, and as `episodes`.
    """
    if count < 1:
        reject("episodes", "at least 1", count, "ask for more episodes")
    found = episodes(env_id, policy, seed, min(num_envs, count), last=count, uniform=uniform)
    return np.array([episode.reward.sum(dtype=np.float64) for episode in found])
