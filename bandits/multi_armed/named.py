"""Stochastic and adversarial bandits with K arms by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds arms, runs, seed, device and, where the
problem states one, the range of rewards (low, high).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments, noise_scale
from bandits.arm_learner import ArmLearner
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.multi_armed import config as c
from bandits.multi_armed.ucb import UCB1

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _ucb1(config: c.UCB1Config, facts: Facts, common: Common) -> ArmLearner:
    horizon = int(facts("horizon")) if config.time == "horizon" else None
    return UCB1(scale=noise_scale(facts, config.scale), horizon=horizon, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], ArmLearner]] = {"ucb1": _ucb1}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> ArmLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms.
    """
    return BUILDERS[config.name](config, Facts(config.name, facts), {**arm_arguments(config.name, facts), **common})
