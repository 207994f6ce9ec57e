"""Stochastic bandits with K arms by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds arms, runs, seed, device and, where the
problem states one, the range of rewards (low, high).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from bandits.arm_facts import arm_arguments, noise_scale, ranged
from bandits.arm_learner import ArmLearner
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.multi_armed import config as c
from bandits.multi_armed.arm_means import IndexLearner
from bandits.multi_armed.baselines import Oracle, RandomArm
from bandits.multi_armed.bayes_ucb import BayesUCB
from bandits.multi_armed.discounted import DiscountedUCB, SlidingWindowUCB
from bandits.multi_armed.explore import (
    Boltzmann,
    EpsilonGreedy,
    ExploreFirst,
    Greedy,
    SuccessiveElimination,
    exploration_plays,
)
from bandits.multi_armed.kl_ucb import KLUCB
from bandits.multi_armed.moss import MOSS
from bandits.multi_armed.thompson import GaussianThompsonSampling, ThompsonSampling
from bandits.multi_armed.ucb import UCB1, UCBV, UCBTuned

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _index(kind: Callable[..., IndexLearner]) -> Callable[[Any, Facts, Common], ArmLearner]:
    """Of an index without constants."""
    return lambda config, facts, common: kind(ties=config.ties, **common)


def _ucb1(config: c.UCB1Config, facts: Facts, common: Common) -> ArmLearner:
    horizon = int(facts("horizon")) if config.time == "horizon" else None
    return UCB1(scale=noise_scale(facts, config.scale), horizon=horizon, ties=config.ties, **common)


def _kl_ucb(config: c.KLUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    bernoulli = ranged(facts.facts) if config.divergence == "auto" else config.divergence == "bernoulli"
    # Of rewards moved into [0, 1] the deviation is at most 1/2.
    scale = (
        None if bernoulli else (0.5 if config.scale is None and ranged(facts.facts) else facts("noise", config.scale))
    )
    return KLUCB(c=config.c, scale=scale, ties=config.ties, **common)


def _moss(config: c.MOSSConfig, facts: Facts, common: Common) -> ArmLearner:
    scale = config.scale
    if scale is None:
        scale = 1.0 if ranged(facts.facts) else 2.0 * facts("noise")
    horizon = None if config.anytime else int(facts("horizon"))
    return MOSS(scale=scale, horizon=horizon, ties=config.ties, **common)


def _thompson_beta(config: c.ThompsonBetaConfig, facts: Facts, common: Common) -> ArmLearner:
    return ThompsonSampling(**common)


def _thompson_gaussian(config: c.ThompsonGaussianConfig, facts: Facts, common: Common) -> ArmLearner:
    moved = ranged(facts.facts)
    noise = 0.5 if config.noise is None and moved else facts("noise", config.noise)
    mean = (0.5 if moved else 0.0) if config.prior_mean is None else config.prior_mean
    return GaussianThompsonSampling(noise=noise, prior_mean=mean, prior_variance=config.prior_variance, **common)


def _bayes_ucb(config: c.BayesUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    horizon = int(facts("horizon")) if config.c > 0 else None
    return BayesUCB(c=config.c, horizon=horizon, ties=config.ties, **common)


def _explore_first(config: c.ExploreFirstConfig, facts: Facts, common: Common) -> ArmLearner:
    plays = config.explore or exploration_plays(int(facts("horizon")), common["arms"])
    return ExploreFirst(explore=plays, ties=config.ties, **common)


def _epsilon_greedy(config: c.EpsilonGreedyConfig, facts: Facts, common: Common) -> ArmLearner:
    return EpsilonGreedy(epsilon=config.epsilon, ties=config.ties, **common)


def _elimination(config: c.SuccessiveEliminationConfig, facts: Facts, common: Common) -> ArmLearner:
    scale = noise_scale(facts, config.scale)
    return SuccessiveElimination(horizon=int(facts("horizon")), scale=scale, **common)


def _boltzmann(config: c.BoltzmannConfig, facts: Facts, common: Common) -> ArmLearner:
    return Boltzmann(temperature=config.temperature, **common)


def _random(config: c.RandomConfig, facts: Facts, common: Common) -> ArmLearner:
    return RandomArm(**common)


def _oracle(config: c.OracleConfig, facts: Facts, common: Common) -> ArmLearner:
    return Oracle(arm=int(facts("best_arm", config.arm)), **common)


def _changes(facts: Facts, given: int | None) -> int:
    """How often means change; at least 1, so that a window or a discount follows."""
    return given or max(1, int(facts.facts.get("changes") or 1))


def _sliding_window(config: c.SlidingWindowUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    window = config.window
    if window is None:
        horizon = int(facts("horizon"))
        found = 2.0 * math.sqrt(horizon * math.log(horizon) / _changes(facts, config.changes))
        window = min(horizon, max(1, math.ceil(found)))
    scale = noise_scale(facts, config.scale)
    return SlidingWindowUCB(window=window, xi=config.xi, scale=scale, ties=config.ties, **common)


def _discounted(config: c.DiscountedUCBConfig, facts: Facts, common: Common) -> ArmLearner:
    discount = config.discount
    if discount is None:
        # More changes than rounds are as many as rounds.
        discount = 1.0 - 0.25 * math.sqrt(min(1.0, _changes(facts, config.changes) / facts("horizon")))
    scale = noise_scale(facts, config.scale)
    return DiscountedUCB(discount=discount, xi=config.xi, scale=scale, ties=config.ties, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], ArmLearner]] = {
    "ucb1": _ucb1,
    "ucb1-tuned": _index(UCBTuned),
    "ucb-v": _index(UCBV),
    "kl-ucb": _kl_ucb,
    "moss": _moss,
    "thompson-beta": _thompson_beta,
    "thompson-gaussian": _thompson_gaussian,
    "bayes-ucb": _bayes_ucb,
    "explore-first": _explore_first,
    "epsilon-greedy": _epsilon_greedy,
    "successive-elimination": _elimination,
    "boltzmann": _boltzmann,
    "greedy": _index(Greedy),
    "random": _random,
    "oracle": _oracle,
    "sw-ucb": _sliding_window,
    "d-ucb": _discounted,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> ArmLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem without arms.
    """
    return BUILDERS[config.name](config, Facts(config.name, facts), {**arm_arguments(config.name, facts), **common})
