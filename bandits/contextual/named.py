"""Contextual bandits by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds arms, dimension, runs, seed, device and,
where the problem states one, the range of rewards (low, high).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments, noise_scale
from bandits.arm_learner import ArmLearner
from bandits.config_base import LearnerConfig
from bandits.contextual import config as c
from bandits.contextual.disjoint import DisjointLinUCB
from bandits.contextual.epoch_greedy import EpochGreedy
from bandits.contextual.explore import ContextualEpsilonGreedy, ContextualExploreFirst, exploration
from bandits.contextual.mesh import MeshUCB, cells_per_axis
from bandits.contextual.policies import log_policies
from bandits.contextual.square_cb import SquareCB, learning_rate, regression_regret
from bandits.facts import Facts

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _first(given: float | None, facts: Facts, fact: str, otherwise: float) -> float:
    """What the configuration gives, else the fact, else a default."""
    known = facts.facts.get(fact) if given is None else given
    return float(otherwise if known is None else known)


def _disjoint(config: c.DisjointLinUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    return DisjointLinUCB(alpha=config.alpha, ridge=config.ridge, **common)


def _epoch_greedy(config: c.EpochGreedyConfig, facts: Facts, common: Common) -> ArmLearner:
    size = log_policies(config.policies, common["arms"], common["dimension"])
    return EpochGreedy(
        log_policies=size, delta=config.delta, oracle=config.oracle, ridge=config.ridge, **common
    )  # fmt: skip


def _epsilon_greedy(config: c.ContextualEpsilonGreedyConfig, facts: Facts, common: Common) -> ArmLearner:
    return ContextualEpsilonGreedy(epsilon=config.epsilon, oracle=config.oracle, ridge=config.ridge, **common)


def _explore_first(config: c.ContextualExploreFirstConfig, facts: Facts, common: Common) -> ArmLearner:
    rounds = config.explore
    if rounds is None:
        size = log_policies(config.policies, common["arms"], common["dimension"])
        rounds = exploration(int(facts("horizon")), common["arms"], size)
    return ContextualExploreFirst(explore=rounds, oracle=config.oracle, ridge=config.ridge, **common)


def _square_cb(config: c.SquareCBConfig, facts: Facts, common: Common) -> ArmLearner:
    radius = _first(config.radius, facts, "parameter_bound", 1.0)
    bound = _first(None, facts, "feature_bound", 1.0)
    arms, dimension = common["arms"], common["dimension"]

    def rate(rounds: float) -> float:
        if config.gamma is not None:
            return config.scale * config.gamma
        regret = config.regret
        if regret is None:
            regret = regression_regret(config.oracle, rounds, arms, dimension, radius, bound, config.ridge)
        return config.scale * learning_rate(rounds, arms, regret, config.delta)

    # A given number needs no horizon.
    gamma = rate if config.anytime or config.gamma is not None else rate(facts("horizon"))
    return SquareCB(gamma=gamma, oracle=config.oracle, ridge=config.ridge, radius=radius, **common)


def _mesh_ucb(config: c.MeshUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    box = _first(config.low, facts, "context_low", 0.0), _first(config.high, facts, "context_high", 1.0)
    cells = config.cells
    if cells is None:
        lipschitz, side = _first(config.lipschitz, facts, "lipschitz", 1.0), max(box[1] - box[0], 0.0)
        cells = cells_per_axis(int(facts("horizon")), common["arms"], lipschitz, common["dimension"], side)
    horizon = int(facts("horizon")) if config.time == "horizon" else None
    return MeshUCB(cells=cells, box=box, scale=noise_scale(facts, config.scale), horizon=horizon, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], ArmLearner]] = {
    "disjoint-lin-ucb": _disjoint,
    "epoch-greedy": _epoch_greedy,
    "contextual-epsilon-greedy": _epsilon_greedy,
    "contextual-explore-first": _explore_first,
    "square-cb": _square_cb,
    "mesh-ucb": _mesh_ucb,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> ArmLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms or without contexts.
    """
    known = Facts(config.name, facts)
    arguments = arm_arguments(config.name, facts)
    arguments["dimension"] = int(known("context_dimension"))
    return BUILDERS[config.name](config, known, {**arguments, **common})
