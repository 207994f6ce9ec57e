"""Small worlds with noisy rewards, in which what pays most on average is also what varies most.

`RiskyDial` has its values in closed form. `RiskyPointMass` is the risk test of STAC's paper (Ozalp, arXiv 2601.00737).
Importing this module imports gymnasium.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from orbs import reject

__all__ = ["RiskyDial", "RiskyPointMass"]

Array = TypeVar("Array", float, np.ndarray)


class RiskyDial(gym.Env[np.ndarray, np.ndarray]):
    """A dial from safe to risky: turned up, it pays a little more on average and varies a lot more.

    Observation (3,): uniform in [-1, 1]^3, drawn anew at each step, of no effect: it is there for a critic to confuse
    with luck. Action (1,) in [-1, 1]. With u = (action + 1) / 2 the reward is normal, of mean `gain` (u - 1) and
    standard deviation `calm` + `spread` u^2. Nothing terminates, so Q(s, a) = m(a) + discount m(policy) / (1 -
    discount), m the mean reward, averaged where the policy varies: no value is above 0, and a prediction above 0
    overestimates whatever the policy.

    Whoever maximises the mean turns the dial up fully; whoever maximises mean - beta std turns it to
    u = gain / (2 beta spread), or fully where that is above 1. STAC's fixed point without entropy is the second, and
    the mean that it predicts there is below the true value by discount beta std / (1 - discount).

    Args:
        gain, calm, spread: as above, in units of reward; gain and spread above 0, calm at least 0.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, gain: float = 0.3, calm: float = 0.1, spread: float = 2.0) -> None:
        for field, value in (("gain", gain), ("spread", spread)):
            if not 0.0 < value < math.inf:
                reject(f"RiskyDial.{field}", "a finite number above 0", value, "leave it out for the default")
        if not 0.0 <= calm < math.inf:
            reject("RiskyDial.calm", "a finite number of at least 0", calm, "leave it out for the default")
        self.gain, self.calm, self.spread = float(gain), float(calm), float(spread)
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def mean_reward(self, action: Array) -> Array:
        """Mean reward at the action, of any shape."""
        return self.gain * (action - 1) / 2

    def reward_std(self, action: Array) -> Array:
        """Standard deviation of the reward at the action, of any shape."""
        return self.calm + self.spread * ((action + 1) / 2) ** 2

    def best_action(self, beta: float = 0.0) -> float:
        """The action that maximises mean - beta std, beta at least 0; at 0 that of the largest mean."""
        if 2 * beta * self.spread <= self.gain:
            return 1.0
        return self.gain / (beta * self.spread) - 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        turned = float(np.clip(np.asarray(action, np.float64).reshape(()), -1.0, 1.0))
        reward = self.mean_reward(turned) + self.reward_std(turned) * self.np_random.standard_normal()
        return self._draw(), float(reward), False, False, {}

    def _draw(self) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)


GOAL = np.zeros(2)
GOAL_RADIUS = 0.05
CENTRE, RADIUS = np.array([0.5, 0.5]), 0.3
PENALTY, HIGHEST_PROBABILITY = 10.0, 0.1
STEP_COST, STEP_LENGTH = 0.1, 0.1


class RiskyPointMass(gym.Env[np.ndarray, np.ndarray]):
    """A point that moves to a corner, with a disc on the straight way in which rare large penalties fall.

    Observation (2,): the position in [0, 1]^2. Action (2,) in [-1, 1]; position += 0.1 action + slip noise, clipped to
    the square. Everything else is judged at the position before the move: reward -(distance to (0, 0)) - 0.1; minus 10
    with probability 0.1 exp(-4 rho^2 / 0.3^2) at a distance rho < 0.3 from (0.5, 0.5), the disc; terminated below a
    distance of 0.05 from (0, 0). Registered with 200 steps at most. `info["danger"]` says whether that position lay in
    the disc.

    The penalty comes from the environment's own generator, so that a seed fixes it (the author's code draws it from
    NumPy's global one).

    Args:
        safe_starts: starts are uniform in [0.3, 1]^2 outside the disc, as the paper has it; False: inside it, too, as
            the author's code has it, whose test never rejects.
        slip: the noise is uniform in +-slip in each coordinate. 0.002 is the author's code, 0.02 the paper's text.

    Raises:
        ValueError: a slip that is negative or no number.
    """

    def __init__(self, safe_starts: bool = True, slip: float = 0.002) -> None:
        if not 0.0 <= slip < math.inf:
            reject("RiskyPointMass.slip", "a finite number of at least 0", slip, "0.002 (code) or 0.02 (paper)")
        self.safe_starts, self.slip = bool(safe_starts), float(slip)
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = np.full(2, np.nan)

    @staticmethod
    def penalty_probability(position: np.ndarray) -> np.ndarray:
        """Chance of the penalty at positions (..., 2)."""
        rho = np.linalg.norm(position - CENTRE, axis=-1)
        return np.where(rho < RADIUS, HIGHEST_PROBABILITY * np.exp(-4 * rho**2 / RADIUS**2), 0.0)

    @classmethod
    def mean_reward(cls, position: np.ndarray) -> np.ndarray:
        """Mean reward at positions (..., 2)."""
        distance = np.linalg.norm(position - GOAL, axis=-1)
        return np.asarray(-distance - STEP_COST - PENALTY * cls.penalty_probability(position))

    @classmethod
    def reward_std(cls, position: np.ndarray) -> np.ndarray:
        """Standard deviation of the reward at positions (..., 2)."""
        chance = cls.penalty_probability(position)
        return np.asarray(PENALTY * np.sqrt(chance * (1 - chance)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._position = self.np_random.uniform(0.3, 1.0, 2)
        while self.safe_starts and self._in_danger():
            self._position = self.np_random.uniform(0.3, 1.0, 2)
        return self._position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        position, danger = self._position, self._in_danger()
        distance = float(np.linalg.norm(position - GOAL))
        # Drawn at every step, in the disc or not: two policies meet the same numbers.
        struck = self.np_random.random() < self.penalty_probability(position)
        noise = self.np_random.uniform(-self.slip, self.slip, 2)
        move = STEP_LENGTH * np.clip(np.asarray(action, np.float64), -1.0, 1.0) + noise
        self._position = np.clip(position + move, 0.0, 1.0)
        reward = -distance - STEP_COST - PENALTY * float(struck)
        return self._position.astype(np.float32), reward, distance < GOAL_RADIUS, False, {"danger": danger}

    def _in_danger(self) -> bool:
        return bool(np.linalg.norm(self._position - CENTRE) < RADIUS)
