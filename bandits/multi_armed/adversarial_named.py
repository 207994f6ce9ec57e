"""Adversarial bandits with K arms by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds arms, runs, seed, device and the range
of rewards (low, high), which all of them need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.multi_armed import adversarial_config as c
from bandits.multi_armed.exp3 import Exp3, Exp3Auer, Exp3IX, Exp3P, Exp3S, Rexp3
from bandits.multi_armed.exp4 import Exp4
from bandits.multi_armed.tsallis_inf import TsallisINF
from bandits.multi_armed.weighted_arms import WeightedArms
from orbs import reject

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _horizon(facts: Facts) -> int:
    return int(facts("horizon"))


def _exp3(config: c.Exp3Config, facts: Facts, common: Common) -> WeightedArms:
    fixed = config.rate is None and config.tuning == "horizon"
    return Exp3(horizon=_horizon(facts) if fixed else None, rate=config.rate, **common)


def _exp3_auer(config: c.Exp3AuerConfig, facts: Facts, common: Common) -> WeightedArms:
    horizon = _horizon(facts) if config.exploration is None else None
    return Exp3Auer(horizon=horizon, exploration=config.exploration, **common)


def _exp3_ix(config: c.Exp3IXConfig, facts: Facts, common: Common) -> WeightedArms:
    fixed = config.rate is None and config.tuning == "horizon"
    return Exp3IX(horizon=_horizon(facts) if fixed else None, rate=config.rate, **common)


def _exp3_p(config: c.Exp3PConfig, facts: Facts, common: Common) -> WeightedArms:
    return Exp3P(horizon=_horizon(facts), delta=config.delta, **common)


def _exp3_s(config: c.Exp3SConfig, facts: Facts, common: Common) -> WeightedArms:
    return Exp3S(horizon=_horizon(facts), segments=config.segments, **common)


def _rexp3(config: c.Rexp3Config, facts: Facts, common: Common) -> WeightedArms:
    return Rexp3(horizon=_horizon(facts), variation=config.variation, **common)


def _exp4(config: c.Exp4Config, facts: Facts, common: Common) -> WeightedArms:
    advice, experts = facts.facts.get("advice"), facts.facts.get("experts")
    if advice is None and experts is None:
        expected = "a problem with advice on arms (advice, or a number of experts who show theirs each round)"
        there = ", ".join(sorted(facts.facts))
        reject(config.name, expected, f"one with {there}", "choose another learner, or bandits.Exp4 with your advice")
    return Exp4(
        advice=advice,
        experts=None if experts is None else int(experts),
        horizon=_horizon(facts) if config.tuning == "horizon" else None,
        exploration=config.exploration,
        **common,
    )


def _tsallis_inf(config: c.TsallisINFConfig, facts: Facts, common: Common) -> WeightedArms:
    return TsallisINF(variant=config.variant, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], WeightedArms]] = {
    "exp3": _exp3,
    "exp3-auer": _exp3_auer,
    "exp3-ix": _exp3_ix,
    "exp3-p": _exp3_p,
    "exp3-s": _exp3_s,
    "rexp3": _rexp3,
    "exp4": _exp4,
    "tsallis-inf": _tsallis_inf,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> WeightedArms:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms, or without a range.
    """
    arguments = arm_arguments(config.name, facts)
    if "low" not in arguments:
        given = ", ".join(sorted(facts))
        expected = "a problem whose rewards have a range (reward_low, reward_high)"
        reject(config.name, expected, f"one with {given}", "choose another learner or problem")
    return BUILDERS[config.name](config, Facts(config.name, facts), {**arguments, **common})
