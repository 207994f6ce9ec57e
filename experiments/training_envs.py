"""The environments that agents learn in: one a run, stepped side by side, with the true successor of every step.

Episode k of run i starts from a seed that is a function of (seed, i, k) alone: of no other run, and of nothing that
the agent did. So a stopped training needs no more of an environment than the number of its episode and the actions
since its start: it is made anew, reset with that seed, and the actions are played again.
"""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.make import make_env
from experiments.acting import within
from orbs import reject

__all__ = ["SelfSeeding", "TrainingEnvs", "start_seed"]


def start_seed(seed: int, run: int, episode: int) -> int:
    """The environment seed of one training episode; a stream of its own, apart from evaluation's."""
    stream = zlib.crc32(b"training")
    return int(np.random.SeedSequence([stream, seed, run, episode]).generate_state(1)[0])


class SelfSeeding(gym.Wrapper[Any, Any, Any, Any]):
    """Seeds each reset by (seed, run, number of the episode), whoever resets, and remembers the episode's actions.

    An action that rounding put beside the box is played at its edge, and remembered so.

    A seed is given at every reset, because not every environment draws from Gymnasium's generator: the control suite
    keeps one of its own, which only a seed can restore.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int, run: int) -> None:
        super().__init__(env)
        self.seed, self.run = seed, run
        self.episode, self.actions = -1, list[np.ndarray]()
        self.total, self.ended = 0.0, list[tuple[float, int]]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.episode += 1
        self.actions, self.total = [], 0.0
        return self.env.reset(seed=start_seed(self.seed, self.run, self.episode), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        action = within(action, self.action_space)
        self.actions.append(action)
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        if terminated or truncated:
            self.ended.append((self.total, len(self.actions)))
        return obs, reward, bool(terminated), bool(truncated), info

    def replay(self, episode: int, actions: np.ndarray) -> Any:
        """Play an episode's first actions again; the last observation, or None where it ended before."""
        self.episode = episode - 1
        obs, _ = self.reset()
        for action in actions:
            obs, _, terminated, truncated, _ = self.step(action)
            if terminated or truncated:
                self.ended = []
                return None
        return obs


class TrainingEnvs:
    """One environment a run.

    Attributes:
        vector: the Gymnasium vector environment.
        obs: (runs, obs_dim), what the agents see now.

    Raises:
        ValueError, ImportError: as `envs.make.make_env`; copies whose spaces differ.
    """

    def __init__(self, env_id: str, runs: Sequence[int], seed: int) -> None:
        def make(run: int) -> gym.Env[Any, Any]:
            return SelfSeeding(make_env(env_id, disable_env_checker=True), seed, run)

        self.env_id, self.runs = env_id, list(runs)
        try:
            # The default mode would insert a false transition after each episode.
            self.vector = SyncVectorEnv(
                [functools.partial(make, run) for run in self.runs], autoreset_mode=AutoresetMode.SAME_STEP
            )
        except RuntimeError as error:
            reject(
                "env", "the same spaces in every copy", f"'{env_id}': {error}", "choose another, or train one run alone"
            )
        space: Any = self.vector.single_action_space
        self.action_dtype, self.action_dim = space.dtype, int(np.prod(space.shape))
        self.obs = np.asarray(self.vector.reset()[0])

    @property
    def copies(self) -> list[SelfSeeding]:
        return self.vector.envs  # type: ignore[return-value]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every run's step: successors (runs, obs_dim), rewards and terminals (runs,).

        Where an episode ended, the successor is its last observation, and `obs` the first one of the next episode.
        A terminal is the environment's own end; at a time limit there is none.
        """
        following, reward, terminated, truncated, info = self.vector.step(np.asarray(action, self.action_dtype))
        self.obs = np.asarray(following)
        successor = self.obs.copy()
        for slot in np.flatnonzero(terminated | truncated):
            successor[slot] = info["final_obs"][slot]
        return successor, np.asarray(reward), np.asarray(terminated)

    def ended(self) -> list[tuple[float, float] | None]:
        """Mean return and length of each run's episodes that ended since the last call; None where none did."""
        means: list[tuple[float, float] | None] = []
        for copy in self.copies:
            total, length = np.mean(copy.ended, axis=0) if copy.ended else (0.0, 0.0)
            means.append((float(total), float(length)) if copy.ended else None)
            copy.ended = []
        return means

    def state(self) -> list[dict[str, Any]]:
        """What `restore` goes on from, a plain JSON value a run."""
        return [
            {
                "episode": copy.episode,
                "actions": _packed(np.array(copy.actions, self.action_dtype)),
                "obs": _packed(obs),
            }
            for copy, obs in zip(self.copies, self.obs, strict=True)
        ]

    def restore(self, state: Sequence[dict[str, Any]]) -> list[int]:
        """Bring every environment to where it was; returns the runs that could not be brought there.

        These go on from what the replay came to (the next episode, where the old one ended on the way): the simulator
        is another one than before.
        """
        obs, strange = [], []
        for run, copy, saved in zip(self.runs, self.copies, state, strict=True):
            before = _unpacked(saved["obs"])
            found = copy.replay(int(saved["episode"]), _unpacked(saved["actions"]))
            # An environment may answer in wider numbers than its space has, in which the last one was kept.
            if found is None or not np.array_equal(np.asarray(found, before.dtype), before):
                strange.append(run)
            obs.append(copy.reset()[0] if found is None else found)
        self.obs = np.asarray(obs, self.obs.dtype)
        return strange

    def close(self) -> None:
        self.vector.close()


def _packed(array: np.ndarray) -> dict[str, Any]:
    bits = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "bits": bits}


def _unpacked(saved: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(saved["bits"]), np.dtype(saved["dtype"])).reshape(saved["shape"])
