"""Every named learner's hyperparameters: one frozen dataclass each, in modules that never import torch."""

from __future__ import annotations

from bandits.config_base import LearnerConfig
from bandits.contextual.config import CONTEXTUAL
from bandits.linear.config import LINEAR
from bandits.linear.dynamical_config import DYNAMICAL
from bandits.mdp.adversarial_config import ADVERSARIAL_MDP
from bandits.mdp.robust_config import ROBUST
from bandits.multi_armed.adversarial_config import ADVERSARIAL
from bandits.multi_armed.config import ARMED
from bandits.online_config import ONLINE

__all__ = ["CONFIGS", "LearnerConfig"]

CONFIGS: dict[str, type[LearnerConfig]] = {
    kind.name: kind
    for kind in (*ONLINE, *LINEAR, *DYNAMICAL, *CONTEXTUAL, *ARMED, *ADVERSARIAL, *ROBUST, *ADVERSARIAL_MDP)
}
"""{name: configuration}, as `orbs list` and `orbs regret --learners` know them."""
