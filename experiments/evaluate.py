"""Evaluation in the real environment: every run and every episode at once, one seeded episode a slot.

Start states depend on (seed, run, step, episode) alone: not on training, not on the algorithm, so algorithms are
compared on the same starts and runs are independent. Actions come from one product over all slots, also where only
some of them are played: products of other shapes may differ in the last bits, and episodes then go apart.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.acting import Player, within
from experiments.value_error import Step
from orbs import atomic_path, reject

if TYPE_CHECKING:
    from experiments.cpu import Kernels
    from offline_rl import OfflineLearner

__all__ = ["Episodes", "Evaluator", "Played", "episode_seed", "play"]


def episode_seed(seed: int, run: int, step: int, episode: int) -> int:
    """The environment seed of one evaluation episode; a stream of its own, apart from training's."""
    stream = zlib.crc32(b"evaluation")
    return int(np.random.SeedSequence([stream, seed, run, step, episode]).generate_state(1)[0])


@dataclasses.dataclass(frozen=True)
class Episodes:
    """returns (runs, episodes), undiscounted; lengths (runs, episodes) in steps.

    Where they were asked for: steps, a list of each slot's, and last_obs (runs * episodes, obs_dim) after them.
    """

    returns: np.ndarray
    lengths: np.ndarray
    steps: list[list[Step]] | None = None
    last_obs: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Played:
    """returns, lengths as of `Episodes`; value_error (runs,) where it was asked for and an episode was played."""

    returns: np.ndarray
    lengths: np.ndarray
    value_error: np.ndarray | None = None


def play(
    evaluator: Evaluator,
    learner: Any,
    step: int,
    skip: Sequence[int],
    valued: bool,
    matmul: Kernels = "float32",
) -> Played:
    """One evaluation, by one thread of any process; `valued` also judges the critic, which takes every slot."""
    from experiments.cpu import cpu_settings

    with cpu_settings(matmul, 1):
        played = evaluator.evaluate(learner, step, skip=skip, keep_steps=valued)
        if played.steps is None or played.last_obs is None or not any(played.steps):
            return Played(played.returns, played.lengths)
        from experiments.value_error import value_error

        return Played(played.returns, played.lengths, value_error(learner, played.steps, played.last_obs))


class Evaluator:
    """Keeps runs x episodes environments open, from the first evaluation on, and plays them side by side.

    Args:
        env_id: a gymnasium id.
        runs: ids of the runs, one row of slots each.
        episodes: episodes per run.
        seed: the experiment's seed.
        slots: which of the slots 0 .. runs * episodes - 1, run by run, are played here; all by default.

    Attributes:
        simulator: what the environment runs on, with its version: "mujoco 3.10.0" (the control suite: with that of
            dm-control before it), or Gymnasium's own where it has no MuJoCo model.

    Raises:
        ValueError: fewer than one episode, or an environment that cannot be made.
    """

    def __init__(
        self, env_id: str, runs: Sequence[int], episodes: int, seed: int, slots: Sequence[int] | None = None
    ) -> None:
        if episodes < 1:
            reject("eval_episodes", "at least 1", episodes, "ask for one or more episodes")
        from envs.make import make_env

        self.run_ids, self.episodes, self.seed, self.env_id = list(runs), episodes, seed, env_id
        self.slots = list(range(len(self.run_ids) * episodes)) if slots is None else list(slots)
        self.envs = [make_env(env_id, disable_env_checker=True)]
        limit = self.envs[0].spec.max_episode_steps if self.envs[0].spec else None
        if limit is None:
            self.close()
            reject("env", "an environment with a step limit", env_id, "wrap it in gymnasium.wrappers.TimeLimit")
        model = getattr(self.envs[0].unwrapped, "model", None)
        packages = ["mujoco"] if type(model).__module__.startswith("mujoco") else ["gymnasium"]
        if env_id.startswith("dm_control/"):
            packages = ["dm-control", "mujoco"]
        self.simulator = ", ".join(f"{package} {metadata.version(package)}" for package in packages)

    def check(self, learner: OfflineLearner) -> None:
        """Raise ValueError if the learner does not fit the environment."""
        _check_fit(self.envs[0], self.env_id, learner)

    def evaluate(
        self, learner: OfflineLearner, step: int, skip: Sequence[int] = (), keep_steps: bool = False
    ) -> Episodes:
        """Play one episode in every slot with the deterministic policy.

        Where that averages samples, those of a step are a function of (seed, run, training step, step of the episode).

        Args:
            learner: its run_ids are this evaluator's.
            step: training step, part of the seeds.
            skip: ids of runs not to play (diverged); their returns are NaN.
            keep_steps: also return every step, with its entropy bonus.

        Raises:
            ValueError: the learner does not fit the environment.
        """
        self.check(learner)
        self._open()
        player, space = Player(learner), self.envs[0].action_space
        runs, per_run = len(self.run_ids), self.episodes
        slots = runs * per_run
        obs = np.zeros((slots, learner.obs_dim), np.float32)
        returns, lengths = [float("nan")] * slots, np.zeros(slots, np.int64)
        steps: list[list[Step]] | None = [[] for _ in range(slots)] if keep_steps else None
        active = []
        for slot, env in zip(self.slots, self.envs, strict=True):
            run, episode = self.run_ids[slot // per_run], slot % per_run
            if run not in skip:
                obs[slot], _ = env.reset(seed=episode_seed(self.seed, run, step, episode))
                returns[slot] = 0.0
                active.append((slot, *_stepped(env)))
        number = 0
        while active:
            rows = obs.reshape(runs, per_run, -1)
            action = within(player.act(rows, number).reshape(slots, -1), space)
            before = obs.copy() if steps is not None else obs
            bonus = player.bonus(rows, number).reshape(slots) if steps is not None else np.empty(0)
            number += 1
            going = []
            for one in active:
                slot, advance, limit = one
                obs[slot], reward, terminated, truncated, _ = advance(action[slot])
                returns[slot] += float(reward)
                if steps is not None:
                    played = Step(before[slot], action[slot], float(reward), bool(terminated), float(bonus[slot]))
                    steps[slot].append(played)
                if terminated or truncated or number == limit:
                    lengths[slot] = number
                else:
                    going.append(one)
            active = going
        shape = (runs, per_run)
        last_obs = obs if steps is not None else None
        return Episodes(np.array(returns).reshape(shape), lengths.reshape(shape), steps, last_obs)

    def _open(self) -> None:
        """Every slot's environment; the first one is there from the start."""
        from envs.make import make_env

        while len(self.envs) < len(self.slots):
            self.envs.append(make_env(self.env_id, disable_env_checker=True))

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _stepped(env: Any) -> tuple[Callable[[Any], Any], int]:
    """What steps the environment, and after how many steps the caller ends an episode (0: never).

    A time limit around an environment that enforces the order of calls, as `gymnasium.make` wraps it, is counted by the
    caller: the environment itself answers the same, without two calls a step.
    """
    from gymnasium.wrappers import OrderEnforcing, TimeLimit

    inner = getattr(env, "env", None)
    if type(env) is TimeLimit and type(inner) is OrderEnforcing:
        return inner.env.step, int(env._max_episode_steps)
    return env.step, 0


def _check_fit(env: Any, env_id: str, learner: OfflineLearner) -> None:
    for field, space, width in (
        ("observations", env.observation_space, learner.obs_dim),
        ("actions", env.action_space, learner.action_dim),
    ):
        discrete = field == "actions" and not np.issubdtype(space.dtype, np.floating)
        if space.shape != (width,) or discrete:
            expected = f"an environment whose {field} are {width} real numbers, as those that the policy learned from"
            fix = "name the environment that it learned in, or that its data come from"
            reject("env", expected, f"'{env_id}' with {space}", fix)


def record_video(learner: OfflineLearner, env_id: str, path: Path, run: int, seed: int) -> Path:
    """Play one episode of one run and write it as an animated GIF, atomically.

    Raises:
        ImportError: the environment's renderer is not installed; names what is missing.
        ValueError: the learner does not fit the environment.
    """
    import imageio.v3 as imageio
    from gymnasium.error import DependencyNotInstalled

    from envs.make import make_env

    env: Any = make_env(env_id, render_mode="rgb_array", disable_env_checker=True)
    try:
        _check_fit(env, env_id, learner)
        obs, _ = env.reset(seed=episode_seed(seed, run, learner.steps, 0))
        frames, done = list[np.ndarray](), False
        player, slot = Player(learner), learner.run_ids.index(run)
        while not done:
            every = player.act(np.asarray(obs, np.float32)[None], len(frames))
            frames.append(np.asarray(env.render()))
            action = every[slot, 0] if learner.runs > 1 else every[0]
            obs, _, terminated, truncated, _ = env.step(within(action, env.action_space))
            done = bool(terminated or truncated)
    except (ImportError, DependencyNotInstalled) as error:
        raise ImportError(f'video: expected a renderer, got {error}. Fix: pip install "orbs[video]".') from error
    finally:
        env.close()
    fps = float(env.metadata.get("render_fps") or 30)
    with atomic_path(path) as temporary:
        imageio.imwrite(temporary, np.stack(frames[::2]), extension=".gif", duration=2000.0 / fps, loop=0)
    return path
