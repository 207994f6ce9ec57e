"""DynLin-UCB and the baselines of its experiments by name, from a configuration and a problem's facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments
from bandits.base import Learner
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.linear import dynamical_config as c
from bandits.linear.ar2 import AR2
from bandits.linear.dyn_lin_ucb import DynLinUCB
from bandits.linear.dynamical_exp3 import BatchExp3, DynamicalExp3
from bandits.linear.dynamical_lin_ucb import DynamicalDLinUCB, DynamicalLinUCB, ExperimentFacts
from bandits.linear.dynamics import Dynamics
from bandits.linear.fixed_plan import FixedPlan
from orbs import reject

__all__ = ["BUILDERS", "build", "dynamics_of"]

Common = dict[str, Any]


def dynamics_of(facts: Facts) -> Dynamics:
    """The bounds on the system.

    Raises:
        ValueError: a fact is missing.
    """
    return Dynamics(**{field.name: facts(field.name) for field in dataclasses.fields(Dynamics)})


def _features(facts: Facts) -> Any:
    if facts.facts.get("features") is None:
        there = ", ".join(sorted(facts.facts))
        reject(facts.name, "a problem with features of its arms", f"one with {there}", "choose another problem")
    return facts.facts["features"]


def _linear(common: Common) -> Common:
    return {key: value for key, value in common.items() if key != "arms"}


def _experiment(facts: Facts) -> ExperimentFacts:
    return ExperimentFacts(dynamics_of(facts), int(facts("horizon")), facts("budget"))


def _dyn_lin_ucb(config: c.DynLinUCBConfig, facts: Facts, common: Common) -> Learner:
    return DynLinUCB(
        _features(facts), dynamics_of(facts), int(facts("horizon")), **dataclasses.asdict(config), **_linear(common)
    )


def _lin_ucb(config: c.DynamicalLinUCBConfig, facts: Facts, common: Common) -> Learner:
    return DynamicalLinUCB(_features(facts), _experiment(facts), tuning=config.tuning, **_linear(common))


def _d_lin_ucb(config: c.DynamicalDLinUCBConfig, facts: Facts, common: Common) -> Learner:
    return DynamicalDLinUCB(_features(facts), _experiment(facts), **dataclasses.asdict(config), **_linear(common))


def _exp3(config: c.DynamicalExp3Config, facts: Facts, common: Common) -> Learner:
    return DynamicalExp3(dynamics=dynamics_of(facts), horizon=int(facts("horizon")), **common)


def _batch_exp3(config: c.BatchExp3Config, facts: Facts, common: Common) -> Learner:
    batch = {} if config.batch is None else {"batch": config.batch}
    misaligned = config.replicate_misalignment
    known, horizon = dynamics_of(facts), int(facts("horizon"))
    return BatchExp3(dynamics=known, horizon=horizon, replicate_misalignment=misaligned, **batch, **common)


def _ar2(config: c.AR2Config, facts: Facts, common: Common) -> Learner:
    correlation, noise = facts("spectral_radius", config.correlation), facts("noise")
    return AR2(correlation=correlation, noise=noise, replicate_quirks=config.replicate_quirks, **common)


def _expert(config: c.ExpertConfig, facts: Facts, common: Common) -> Learner:
    if facts.facts.get("expert") is None:
        reject("expert", "a problem with a human planner", "one without", "choose dynamical-advertising")
    return FixedPlan(facts.facts["expert"], common["runs"], common["device"])


BUILDERS: dict[str, Callable[[Any, Facts, Common], Learner]] = {
    "dyn-lin-ucb": _dyn_lin_ucb,
    "dynamical-lin-ucb": _lin_ucb,
    "dynamical-d-lin-ucb": _d_lin_ucb,
    "dynamical-exp3": _exp3,
    "batch-exp3": _batch_exp3,
    "ar2": _ar2,
    "expert": _expert,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> Learner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms.
    """
    return BUILDERS[config.name](config, Facts(config.name, facts), {**arm_arguments(config.name, facts), **common})
