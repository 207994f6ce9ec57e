"""Linear bandits by name: a builder each, from a configuration and a problem's facts.

The facts hold features (K, d) or (R, K, d), or feature_dimension where they are shown each round; noise or a range of
rewards; parameter_bound and feature_bound; variation, the length of the parameter's way, where it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments
from bandits.arm_learner import ArmLearner
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.linear import config as c
from bandits.linear.forgetting import DLinUCB, SWLinUCB, discount_of, window_of
from bandits.linear.glm_ucb import GLMUCB
from bandits.linear.lin_ts import LinTS
from bandits.linear.lin_ucb import LinUCB, RestartLinUCB
from orbs import reject

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _dimension(facts: Facts) -> int:
    features = facts.facts.get("features")
    return int(facts("feature_dimension")) if features is None else int(features.shape[-1])


def _linear(config: c.LinearConfig, facts: Facts, common: Common, unit: bool = False) -> Common:
    """The arguments that all share; `unit`: rewards are moved into [0, 1]."""
    features, known, dimension = facts.facts.get("features"), facts.facts, _dimension(facts)
    noise = config.noise
    if unit:
        noise = 0.5 if noise is None else noise
    elif noise is None and known.get("noise") is None and known.get("reward_low") is not None:
        noise = (facts("reward_high") - facts("reward_low")) / 2
    largest = config.feature_bound
    if largest is None and (features is None or known.get("feature_bound") is not None):
        largest = facts("feature_bound")
    return {
        "features": features, "dimension": dimension, "lam": config.lam,
        "noise": facts("noise", noise), "bound": facts("parameter_bound", config.bound), "feature_bound": largest,
        "delta": config.delta, "horizon": int(facts("horizon")), "beta": config.beta, **common,
    }  # fmt: skip


def _variation(given: float | None, facts: Facts) -> float:
    known = facts.facts.get("variation") if given is None else given
    return 1.0 if known is None else float(known)


def _window(config: c.SWLinUCBConfig | c.RestartLinUCBConfig, facts: Facts) -> int:
    if config.window is not None:
        return config.window
    return window_of(_dimension(facts), int(facts("horizon")), _variation(config.variation, facts))


def _lin_ucb(config: c.LinUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    return LinUCB(radius=config.radius, **_linear(config, facts, common))


def _restart(config: c.RestartLinUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    return RestartLinUCB(radius=config.radius, window=_window(config, facts), **_linear(config, facts, common))


def _sliding(config: c.SWLinUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    return SWLinUCB(window=_window(config, facts), **_linear(config, facts, common))


def _discounted(config: c.DLinUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    discount = config.discount
    if discount is None:
        discount = discount_of(_dimension(facts), int(facts("horizon")), _variation(config.variation, facts))
    return DLinUCB(discount=discount, **_linear(config, facts, common))


def _thompson(config: c.LinTSConfig, facts: Facts, common: Common) -> ArmLearner:
    return LinTS(scale=config.scale, **_linear(config, facts, common))


def _glm(config: c.GLMUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    if "low" not in common:
        expected = "a problem with a range of rewards (reward_low, reward_high)"
        reject(config.name, expected, f"one with {', '.join(sorted(facts.facts))}", "choose another learner or problem")
    return GLMUCB(kappa=config.kappa, **_linear(config, facts, common, unit=True))


BUILDERS: dict[str, Callable[[Any, Facts, Common], ArmLearner]] = {
    "lin-ucb": _lin_ucb,
    "lin-ts": _thompson,
    "d-lin-ucb": _discounted,
    "sw-lin-ucb": _sliding,
    "restart-lin-ucb": _restart,
    "glm-ucb": _glm,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> ArmLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms.
    """
    return BUILDERS[config.name](config, Facts(config.name, facts), {**arm_arguments(config.name, facts), **common})
