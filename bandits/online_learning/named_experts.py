"""Named learners of Slivkins' book (arXiv 1904.07272) for expert advice, as in `named`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bandits import online_config as c
from bandits.facts import Facts
from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Domain, Simplex
from bandits.online_learning.learner import FTRL
from bandits.online_learning.perturbed_leader import FPL
from bandits.online_learning.regularisers import Entropy
from bandits.online_learning.steps import Constant
from orbs import reject

__all__ = ["BUILDERS", "RANDOM", "weighted_majority"]

Common = dict[str, Any]

RANDOM = ("fpl",)
"""The learners that draw numbers of their own, and so take a seed."""


def weighted_majority(domain: Domain, epsilon: float, width: float = 1.0, **common: Any) -> FTRL:
    """Weights times (1 - eps)^c for losses c in units of `width`: Hedge of rate -ln(1 - eps) / width.

    Raises:
        ValueError: eps outside (0, 1).
    """
    if not 0 < epsilon < 1:
        reject("epsilon", "a number in (0, 1)", epsilon, "mend it")
    return FTRL(Entropy(), domain, Constant(-math.log1p(-epsilon) / width), **common)


def _plain_simplex(name: str, domain: Domain) -> Simplex:
    if not isinstance(domain, Simplex) or domain.total != 1.0:
        reject(f"{name}: domain", "a simplex of total 1", domain, "choose hedge, or another problem")
    return domain


def _weighted_majority(config: c.WeightedMajorityConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    log, width = math.log(_plain_simplex(config.name, domain).dimension), facts.range
    epsilon = config.epsilon
    if epsilon is None:
        epsilon = min(0.5, math.sqrt(log / (3 * facts("horizon"))))
    learner = weighted_majority(domain, epsilon, width, **common)
    if not facts.trusted:
        return learner
    rate = -math.log1p(-epsilon)

    def bound(own: Any) -> Tensor:
        value = width * (log / rate + rate * own.rounds / 8)
        return torch.as_tensor(value, dtype=torch.float64, device=own.device).expand(own.runs)

    learner.bound = bound
    return learner


def _fpl(config: c.FPLConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    simplex, epsilon = _plain_simplex(config.name, domain), config.epsilon
    if epsilon is None:
        epsilon = 2 / (facts.range * math.sqrt(simplex.dimension * facts("horizon")))
    return FPL(simplex, epsilon, config.draw, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Domain, Common], OnlineLearner]] = {
    "weighted-majority": _weighted_majority,
    "fpl": _fpl,
}
