"""Learners of robust linear MDPs by name: a builder each, from a configuration and a problem's facts.

A builder takes (config, facts, common) and returns the learner; `common` holds runs, seed and device. Planners need
the facts features (unit vectors without) and, for theory's beta, horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.mdp import robust_config as c
from bandits.mdp.base import PolicyLearner
from bandits.mdp.dr_rpo import DRLSVIUCB, DRRPO
from bandits.mdp.facts import features_of, mdp_arguments
from bandits.mdp.fixed_policy import FixedPolicy
from bandits.mdp.lsvi_ucb import LSVIUCB
from bandits.mdp.r2pvi import R2PVI
from bandits.mdp.transition_model import theory_beta
from orbs import reject

__all__ = ["BUILDERS", "build"]

Common = dict[str, Any]


def _problem(facts: Facts, common: Common) -> Common:
    """What every planner takes from the problem."""
    known = facts.facts
    found = {
        "features": features_of(facts.name, known, common["device"]), "steps": int(known["episode_length"]),
        "fail": tuple(known.get("fail") or ()), "value_cap": known.get("value_cap"),
    }  # fmt: skip
    if known.get("rewards") is not None:
        found["rewards"] = torch.as_tensor(known["rewards"])
    return found


def _nature(config: c.RobustConfig, facts: Facts) -> Common:
    """The uncertainty set: what the configuration says, else the problem's, else none."""
    known = facts.facts.get("uncertainty") or {}
    divergence = known.get("divergence", "off") if config.divergence == "problem" else config.divergence
    if divergence == "off":
        return {"divergence": None}
    form, level = known.get("form", "constrained") if config.form == "problem" else config.form, config.level
    if level is None:
        if (divergence, form) != (known.get("divergence"), known.get("form")):
            wanted = f"the level of the {form} {divergence} set, which the problem does not have"
            reject(f"{facts.name}.level", wanted, "None", "set it, e.g. level=0.3")
        level = known["level"]
    return {"divergence": divergence, "form": form, "level": level}


def _beta(config: Any, facts: Facts, problem: Common, nature: Common, logs: int | None = None) -> float:
    """The bonus's factor; `logs`: episodes that an offline learner plans from."""
    if config.beta is not None:
        return float(config.beta)
    if config.tuning == "practical":
        return 1.0 if logs is None else 0.1
    level = torch.as_tensor(nature.get("level", 1.0), dtype=torch.float64)
    size = int(problem["features"].shape[-1]), problem["steps"], int(facts("horizon")) if logs is None else logs
    form = nature.get("form", "constrained")
    return theory_beta(nature["divergence"], form, *size, float(level.min()), config.delta, logs is not None)


def _planner(
    kind: type[DRRPO], config: c.LinearPlannerConfig, facts: Facts, common: Common, nature: Common, **more: Any
) -> DRRPO:
    problem = _problem(facts, common)
    beta, regress = _beta(config, facts, problem, nature), config.rewards == "regressed"
    chosen: Common = {"beta": beta, "bonus": config.bonus, "ridge": config.ridge, "regress": regress}
    return kind(**problem, **nature, **chosen, **more, **common)


def _dr_rpo(config: c.DRRPOConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _planner(
        DRRPO, config, facts, common, _nature(config, facts), temperature=config.temperature, weights=config.weights,
        eps=config.eps, step_size=config.step_size, switching=config.switching,
    )  # fmt: skip


def _dr_lsvi_ucb(config: c.DRLSVIUCBConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _planner(
        DRLSVIUCB, config, facts, common, _nature(config, facts), weights=config.weights, eps=config.eps,
        switching=config.switching,
    )  # fmt: skip


def _rpo(config: c.RPOConfig, facts: Facts, common: Common) -> PolicyLearner:
    return _planner(
        DRRPO, config, facts, common, {"divergence": None}, temperature=config.temperature, step_size=config.step_size,
        switching=config.switching,
    )  # fmt: skip


def _lsvi_ucb(config: c.LSVIUCBConfig, facts: Facts, common: Common) -> PolicyLearner:
    problem = _problem(facts, common)
    beta = _beta(config, facts, problem, {"divergence": None})
    return LSVIUCB(**problem, beta=beta, ridge=config.ridge, temperature=config.temperature, **common)


def _r2pvi(config: c.R2PVIConfig, facts: Facts, common: Common) -> PolicyLearner:
    nature, problem = _nature(config, facts), _problem(facts, common)
    explore = config.explore
    if explore is None:
        explore = min(max(int(facts("horizon")) // 10, 1), 100)
    beta = _beta(config, facts, problem, nature, explore)
    return R2PVI(
        **problem, **nature, explore=explore, beta=beta, bonus=config.bonus, ridge=config.ridge,
        weights=config.weights, eps=config.eps, regress=config.rewards == "regressed", **common,
    )  # fmt: skip


def _reference(config: c.ReferencePolicyConfig, facts: Facts, common: Common) -> PolicyLearner:
    return FixedPolicy(**mdp_arguments(config.name, facts.facts), **common)


def _oracle(config: c.BestPolicyConfig, facts: Facts, common: Common) -> PolicyLearner:
    best = facts.facts.get("best_policy")
    if best is None:
        there = ", ".join(sorted(facts.facts))
        reject(config.name, "a problem with best_policy", f"one with {there}", "choose another learner or problem")
    return FixedPolicy(**mdp_arguments(config.name, facts.facts), policy=best, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Common], PolicyLearner]] = {
    "dr-rpo": _dr_rpo,
    "dr-lsvi-ucb": _dr_lsvi_ucb,
    "rpo": _rpo,
    "lsvi-ucb": _lsvi_ucb,
    "r2pvi": _r2pvi,
    "reference-policy": _reference,
    "best-policy": _oracle,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> PolicyLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a problem that is no MDP.
    """
    known = Facts(config.name, facts)
    mdp_arguments(config.name, facts)
    return BUILDERS[config.name](config, known, common)
