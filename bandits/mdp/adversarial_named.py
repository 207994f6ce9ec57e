"""Learners of adversarial MDPs by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds runs, seed, device and the range of
losses (low, high). Those with a simulator need the facts kernel and start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.mdp import adversarial_config as c
from bandits.mdp.base import PolicyLearner
from bandits.mdp.cfpo import CFPO, cfpo_rates
from bandits.mdp.facts import features_of, mdp_arguments
from bandits.mdp.ftrl_base import DilatedFTRL, Rates, fresh_trajectories
from bandits.mdp.log_barrier_ftrl import LogBarrierFTRL, log_barrier_rates
from bandits.mdp.magnitude_reduced import MagnitudeReducedFTRL, magnitude_reduced_rates
from bandits.mdp.pol_opt import FullInformationFTRL, PolOpt, full_information_rate, pol_opt_rates
from bandits.mdp.simulator_free import SimulatorFreeFTRL, epoch_plan
from orbs import reject

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _model(facts: Facts) -> Common:
    """The kernel and the start."""
    found = {}
    for fact in ("kernel", "start"):
        if facts.facts.get(fact) is None:
            there = ", ".join(sorted(facts.facts))
            fix = "choose a learner that needs no simulator (cfpo, simulator-free-ftrl)"
            reject(facts.name, f"a problem with a simulator ({fact})", f"one with {there}", fix)
        found[fact] = torch.as_tensor(facts.facts[fact])
    return found


def _revealed(facts: Facts) -> None:
    """Raise ValueError for a problem that says that it does not reveal whole losses."""
    if facts.facts.get("feedback", "full") != "full":
        given = f"feedback={facts.facts['feedback']}"
        reject(
            facts.name, "a problem that reveals its losses (feedback=full)", given, "set it, or choose another learner"
        )


def _features(facts: Facts, common: Common) -> Tensor:
    return features_of(facts.name, facts.facts, common["device"])


def _sizes(facts: Facts, dimension: int) -> tuple[int, int, int, int]:
    """A, d, H, K."""
    known = facts.facts
    return int(known["actions"]), dimension, int(known["episode_length"]), int(facts("horizon"))


def _given(rates: Any, config: Any, *fields: str) -> Any:
    """The rates, with those that the configuration gives."""
    changes = {name: getattr(config, name) for name in fields if getattr(config, name) is not None}
    return dataclasses.replace(rates, **changes)


def _dilated(
    config: c.DilatedConfig, facts: Facts, common: Common, kind: type[DilatedFTRL], tuned: Callable[..., Rates]
) -> DilatedFTRL:
    features = _features(facts, common)
    sizes = _sizes(facts, features.shape[-1])
    rates = _given(tuned(config.tuning, *sizes, config.c, config.scale), config, "eta", "beta", "gamma")
    more: Common = {}
    if isinstance(config, c.MagnitudeReducedFTRLConfig) and config.correction == "sample":
        more["samples"] = config.samples or fresh_trajectories(sizes[1], sizes[2], sizes[3], rates.gamma)
    return kind(
        **_model(facts), features=features, steps=sizes[2], rates=rates, bonus=config.bonus,
        covariance=config.covariance, trajectories=config.trajectories, chains=config.chains, length=config.length,
        **more, **common,
    )  # fmt: skip


def _pol_opt(config: c.PolOptConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _dilated(config, facts, common, PolOpt, pol_opt_rates)


def _log_barrier(config: c.LogBarrierFTRLConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _dilated(config, facts, common, LogBarrierFTRL, log_barrier_rates)


def _magnitude_reduced(config: c.MagnitudeReducedFTRLConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _dilated(config, facts, common, MagnitudeReducedFTRL, magnitude_reduced_rates)


def _full_information(config: c.FullInformationFTRLConfig, facts: Facts, common: Common) -> PolicyLearner:
    _revealed(facts)
    features, known = facts.facts.get("features"), facts.facts
    dimension = int(known["states"]) * int(known["actions"]) if features is None else int(features.shape[-1])
    eta = config.eta
    if eta is None:
        eta = full_information_rate(config.tuning, *_sizes(facts, dimension), config.c)
    return FullInformationFTRL(**_model(facts), steps=int(known["episode_length"]), eta=eta, **common)


def _simulator_free(config: c.SimulatorFreeFTRLConfig, facts: Facts, common: Common) -> PolicyLearner:
    return SimulatorFreeFTRL(
        features=_features(facts, common), steps=int(facts.facts["episode_length"]),
        plan=epoch_plan(int(facts("horizon")), config.epoch, config.explore, config.eta), beta=config.beta,
        gamma=config.gamma, alpha=config.alpha, **common,
    )  # fmt: skip


def _cfpo(config: c.CFPOConfig, facts: Facts, common: Common) -> PolicyLearner:
    told = facts.facts.get("feedback") if config.information == "auto" else config.information
    features, full = _features(facts, common), told == "full"
    if full:
        _revealed(facts)
    sizes = _sizes(facts, features.shape[-1])
    rates = _given(cfpo_rates(config.tuning, *sizes, config.delta, full), config, "eta", "bonus", "contraction")
    return CFPO(features=features, steps=sizes[2], rates=rates, full=full, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], PolicyLearner]] = {
    "pol-opt": _pol_opt,
    "log-barrier-ftrl": _log_barrier,
    "magnitude-reduced-ftrl": _magnitude_reduced,
    "full-information-ftrl": _full_information,
    "simulator-free-ftrl": _simulator_free,
    "cfpo": _cfpo,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> PolicyLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem that is no MDP or has no range of losses.
    """
    known = Facts(config.name, facts)
    mdp_arguments(config.name, facts)
    low = known.range and known("loss_low")
    return BUILDERS[config.name](config, known, {**common, "low": low, "high": known("loss_high")})
