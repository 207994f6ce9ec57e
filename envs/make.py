"""Gymnasium environments for evaluation and online learning, made by id.

Gymnasium is imported at use: importing this module costs nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from orbs import reject

if TYPE_CHECKING:
    import gymnasium as gym

__all__ = ["EnvFacts", "env_facts", "make_env", "make_vec", "missing_extra"]

# Names of gymnasium-robotics' families; their ids exist only once that package is registered.
_ROBOTICS = ("AdroitHand", "Fetch", "HandReach", "HandManipulate", "AntMaze", "PointMaze", "FrankaKitchen")
# This package's own environments that are made of gymnasium-robotics' parts.
_OF_ROBOTICS = ("orbs/maze2d-", "orbs/antmaze-", "orbs/kitchen-")
_DM_CONTROL = "dm_control/"
_DM_CONTROL_STEPS = 1000  # the control suite's own limit, which it does not tell Gymnasium
# The packages that an extra brings, as they are imported.
_EXTRAS = {"robotics": ("gymnasium_robotics",), "dm-control": ("shimmy", "dm_control")}


@dataclasses.dataclass(frozen=True)
class EnvFacts:
    """What a dataset is checked against.

    Attributes:
        obs_dim: width of the observation.
        action_low, action_high: (action_dim,) float32, read-only.
        max_episode_steps: the step limit, or None.
    """

    obs_dim: int
    action_low: np.ndarray
    action_high: np.ndarray
    max_episode_steps: int | None


def make_env(env_id: str, *, d4rl_rules: bool = True, **kwargs: Any) -> gym.Env[Any, Any]:
    """`gymnasium.make(env_id, **kwargs)`, after registering gymnasium-robotics or dm_control where the id needs it.

    Observations that are dictionaries of vectors and numbers (goal environments, the control suite) come flat, in the
    order of the sorted keys, which is `gymnasium.wrappers.FlattenObservation`'s: achieved_goal, desired_goal,
    observation. The control suite ("dm_control/cheetah-run-v0") gets its limit of 1000 steps.

    Args:
        d4rl_rules: mend what sets the dense Adroit tasks apart from D4RL's (see `envs.adroit`): the sign of the
            distance in the rewards of door, hammer and relocate; the pen's end when it falls and after 100 steps.

    Raises:
        ValueError: no such environment, or it cannot be made; names the nearest id.
        ImportError: a package is missing; names the extra.
    """
    import gymnasium as gym

    robotics = env_id.startswith(_ROBOTICS)
    if robotics or env_id.startswith(_OF_ROBOTICS):
        _register(env_id, "robotics", gymnasium_own=robotics)
    if env_id.startswith(_DM_CONTROL):
        _register(env_id, "dm-control", gymnasium_own=True)
        kwargs.setdefault("max_episode_steps", _DM_CONTROL_STEPS)
    if robotics and d4rl_rules and env_id.startswith("AdroitHandPen-"):
        from envs.adroit import PEN_STEPS

        kwargs.setdefault("max_episode_steps", PEN_STEPS)
    try:
        with warnings.catch_warnings():
            # Wanted: these come closest to what D4RL's data were recorded in.
            warnings.filterwarnings("ignore", r".*The environment \S+-v4 is out of date")
            env = gym.make(env_id, **kwargs)
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        name = env_id.rpartition("-v")[0]
        newer = [other for other in (f"{name}-v5", f"{name}-v4") if other in gym.registry and other != env_id]
        if newer and env_id.endswith(("-v2", "-v3")):  # these need mujoco-py, which no longer installs
            fix = f"name another version of the task: {' or '.join(newer)}"
            reject("env", "an environment that can be made here", f"'{env_id}' ({error.args[0]})", fix)
        raise ImportError(
            f"env: expected an environment that can be made here, got '{env_id}' ({error}). Fix: install the package "
            "that it needs."
        ) from error
    except gym.error.Error as error:
        near = difflib.get_close_matches(env_id, list(gym.registry), n=1)
        fix = f"did you mean '{near[0]}'?" if near else "see gymnasium.pprint_registry() for what there is"
        reject("env", "the id of a registered Gymnasium environment", f"'{env_id}' ({error})", fix)
    if _is_dict_of_vectors(env.observation_space):
        env = gym.wrappers.FlattenObservation(env)
    if robotics and d4rl_rules and env_id.startswith("AdroitHand"):
        from envs.adroit import with_d4rl_rules

        return with_d4rl_rules(env)
    return env


def make_vec(
    env_id: str, num_envs: int, *, autoreset: str = "SameStep", **kwargs: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """`num_envs` copies of `make_env(env_id, **kwargs)`, stepped one after the other in this process.

    Args:
        autoreset: "SameStep" (the last observation of an episode is in info["final_obs"]; for learning), "NextStep"
            or "Disabled" (the caller resets; for evaluation).

    Raises:
        ValueError, ImportError: as `make_env`; fewer than one environment; an unknown autoreset mode.
    """
    import gymnasium as gym

    if num_envs < 1:
        reject("num_envs", "at least 1", num_envs, "ask for one environment or more")
    modes = {mode.value: mode for mode in gym.vector.AutoresetMode}
    if autoreset not in modes:
        reject("autoreset", f"one of {', '.join(modes)}", f"'{autoreset}'", "choose one of these")
    make = functools.partial(make_env, env_id, **kwargs)
    return gym.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=modes[autoreset])


@functools.cache
def env_facts(env_id: str) -> EnvFacts:
    """Widths, action bounds and step limit of an environment, which is made once for this and closed.

    Raises:
        ValueError, ImportError: as `make_env`; spaces that are not flat boxes; discrete or unbounded actions.
    """
    from gymnasium import spaces

    env = make_env(env_id)
    try:
        obs, action = env.observation_space, env.action_space
        limit = env.spec.max_episode_steps if env.spec is not None else None
    finally:
        env.close()
    if isinstance(action, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        fix = "choose an environment with continuous actions"
        reject("env", "continuous actions", f"'{env_id}' with {action}: discrete actions are unsupported", fix)
    for field, space in (("observations", obs), ("actions", action)):
        if not isinstance(space, spaces.Box) or space.shape is None or len(space.shape) != 1:
            reject("env", f"{field} in a flat box", f"'{env_id}' with {space}", "wrap or choose another environment")
    assert isinstance(obs, spaces.Box)
    assert isinstance(action, spaces.Box)
    if not action.is_bounded():
        reject("env", "bounded actions", f"'{env_id}' with {action}", "choose another environment")
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    low.setflags(write=False)
    high.setflags(write=False)
    return EnvFacts(int(obs.shape[0]), low, high, limit)


def missing_extra(env_id: str) -> str | None:
    """The extra of this package that must be installed before `env_id` can be made, or None if none is missing."""
    if env_id.startswith((*_ROBOTICS, *_OF_ROBOTICS)):
        extra = "robotics"
    elif env_id.startswith(_DM_CONTROL):
        extra = "dm-control"
    else:
        return None
    return extra if any(importlib.util.find_spec(name) is None for name in _EXTRAS[extra]) else None


def _is_dict_of_vectors(space: Any) -> bool:
    """Whether `space` is a dictionary, maybe of dictionaries, of boxes with one axis or none."""
    from gymnasium import spaces

    def vectors(part: Any) -> bool:
        if isinstance(part, spaces.Dict):
            return all(vectors(inner) for inner in part.spaces.values())
        return isinstance(part, spaces.Box) and len(part.shape) <= 1

    return isinstance(space, spaces.Dict) and vectors(space)


def _register(env_id: str, extra: str, *, gymnasium_own: bool) -> None:
    """Import what the id needs; `gymnasium_own`: the id itself is that package's, so register it where it is not."""
    import gymnasium as gym

    try:
        package, *_ = [importlib.import_module(name) for name in _EXTRAS[extra]]
    except ImportError as error:
        names = " and ".join(name.replace("_", "-") for name in _EXTRAS[extra])
        raise ImportError(
            f"env: expected {names}, which '{env_id}' needs, got {error}. Fix: install the extra: "
            f'pip install "orbs[{extra}]".'
        ) from error
    if gymnasium_own and env_id not in gym.registry:
        gym.register_envs(package)
