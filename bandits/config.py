"""Every named learner's hyperparameters: one frozen dataclass each, in modules that never import torch."""

from __future__ import annotations

from bandits.config_base import LearnerConfig
from bandits.multi_armed.config import ARMED
from bandits.online_config import ONLINE

__all__ = ["CONFIGS", "LearnerConfig"]

CONFIGS: dict[str, type[LearnerConfig]] = {kind.name: kind for kind in (*ONLINE, *ARMED)}
"""{name: configuration}, as `orbs list` and `orbs regret --learners` know them."""
