"""Gymnasium's Ant-v4 with the observation of D4RL's ant (v2).

Importing this module imports gymnasium and MuJoCo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.ant_v4 import AntEnv

__all__ = ["Ant"]

_CONTACT_FORCES = 84


class Ant(AntEnv):
    """Observation (111,): positions (13) and velocities (14) as in Ant-v4, and 84 zeros.

    The zeros stand for the external contact forces, which mujoco-py 2 never filled in. Reward and end are those of
    Ant-v4 and of v2, whose contact cost was 0 for the same reason.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.observation_space = spaces.Box(-np.inf, np.inf, (27 + _CONTACT_FORCES,), np.float64)

    def _get_obs(self) -> np.ndarray:
        return np.concatenate([super()._get_obs(), np.zeros(_CONTACT_FORCES)])  # type: ignore[no-untyped-call]
