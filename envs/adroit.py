"""D4RL's rules for the Adroit hand tasks on top of gymnasium-robotics (Rajeswaran et al. 2018; Fu et al. 2020).

What differs from D4RL's `hand_manipulation_suite` in gymnasium-robotics up to 1.4.2 (dense rewards only):

- door, hammer, relocate: the reward ADDS 0.1 x the distance from palm to object where D4RL and the recorded
  demonstrations subtract it (a slip of a refactoring; Gymnasium-Robotics pull request 220). All else agrees.
- pen: the reward agrees. But D4RL ends the episode when the pen falls (height under 0.075 m) and after 100 steps;
  here nothing ends it and the limit is 200, so a fallen pen costs 5 a step to the end.

Importing this module imports gymnasium; `envs.make` does so at use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

__all__ = ["PEN_STEPS", "AdroitPenEnd", "AdroitRewardMend", "distance_weight", "with_d4rl_rules"]

PEN_STEPS = 100

# Where the observation holds what the reward's first term measures: palm minus handle (door), palm and hammer
# (hammer), palm minus ball (relocate). Both are written from the same simulator state.
_PALM_TO_OBJECT: dict[str, Callable[[Any], Any]] = {
    "AdroitHandDoorEnv": lambda obs: obs[35:38],
    "AdroitHandHammerEnv": lambda obs: obs[33:36] - obs[36:39],
    "AdroitHandRelocateEnv": lambda obs: obs[30:33],
}
_D4RL_WEIGHT = -0.1


def with_d4rl_rules(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """`env`, wrapped where it is a dense Adroit task that departs from D4RL's rules; any other comes back as it is.

    Raises:
        RuntimeError: this gymnasium-robotics weighs the distance in a third way.
    """
    base = env.unwrapped
    task = type(base).__name__
    if getattr(base, "sparse_reward", True):
        return env
    if task == "AdroitHandPenEnv":
        return AdroitPenEnd(env)
    if task not in _PALM_TO_OBJECT:
        return env
    kind: Any = type(base)
    weight = distance_weight(kind)
    if np.isclose(weight, _D4RL_WEIGHT, atol=1e-6):
        return env
    if not np.isclose(weight, -_D4RL_WEIGHT, atol=1e-6):
        raise RuntimeError(
            f"{task}: expected a reward with {_D4RL_WEIGHT} (or, with a known slip, {-_D4RL_WEIGHT}) x the distance "
            f"from palm to object, got {weight:.4g}. Fix: install gymnasium-robotics 1.4.2, or pass d4rl_rules=False."
        )
    return AdroitRewardMend(env)


@functools.cache
def distance_weight(kind: type[Any]) -> float:
    """The measured weight of the distance from palm to object in the dense reward of an Adroit task.

    Takes the same first step twice, the second time with the palm's marker moved. The marker has no mass, so only
    the distance changes, and the reward by weight x that.
    """
    probe = kind(reward_type="dense")
    try:
        distances, rewards = [], []
        for shift in (0.0, 0.2):
            probe.model.site("S_grasp").pos[2] += shift
            probe.reset(seed=0)
            obs, reward, *_ = probe.step(np.zeros(probe.action_space.shape, np.float32))
            distances.append(float(np.linalg.norm(_PALM_TO_OBJECT[kind.__name__](obs))))
            rewards.append(float(reward))
    finally:
        probe.close()
    return (rewards[1] - rewards[0]) / (distances[1] - distances[0])


class AdroitRewardMend(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Subtracts 0.1 x the distance from palm to object where the wrapped task adds it: D4RL's reward.

    `env.get_wrapper_attr("mended")` and the wrappers in `env.spec` say that it is at work.
    """

    mended = "reward: -0.1 x distance from palm to object, as in D4RL (gymnasium-robotics adds it)"

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._palm_to_object = _PALM_TO_OBJECT[type(env.unwrapped).__name__]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        distance = float(np.linalg.norm(self._palm_to_object(obs)))
        return obs, float(reward) + 2.0 * _D4RL_WEIGHT * distance, terminated, truncated, info


class AdroitPenEnd(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Ends the pen task when the pen falls, as in D4RL: `terminated` once its height is under 0.075 m."""

    mended = "end: terminated when the pen falls, as in D4RL (gymnasium-robotics goes on)"

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, float(reward), terminated or bool(obs[26] < 0.075), truncated, info
