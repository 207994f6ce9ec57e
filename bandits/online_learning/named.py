"""The named algorithms: a few lines of composition each, from a configuration and the facts of a problem.

A builder takes (config, facts, domain, common) and returns the learner; `common` holds runs, device and the range of
losses. Bounds are path-wise: they hold for every sequence of gradients in the declared range, on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bandits import config as c
from bandits.online_learning import domains
from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Domain
from bandits.online_learning.learner import FTRL, OMD, OptimisticFTRL, OptimisticOMD
from bandits.online_learning.optimism import LastLoss
from bandits.online_learning.proximal import FTRLProximal
from bandits.online_learning.regularisers import (
    Diagonal,
    Entropy,
    Euclidean,
    LogBarrier,
    MatrixAdaptive,
    Quadratic,
    Tsallis,
)
from bandits.online_learning.steps import (
    Constant,
    GradientNorm,
    InverseSqrt,
    InverseTime,
    Mixability,
    PredictionError,
    SelfBounding,
)
from bandits.online_learning.two_layer import TwoLayer, step_pool
from orbs import reject

__all__ = ["BUILDERS", "Facts", "build", "domain_of", "expected_bound"]

Common = dict[str, Any]


class Facts:
    """The facts of a problem, asked for by name; an error says who needs what."""

    def __init__(self, name: str, facts: Mapping[str, Any]) -> None:
        self.name, self.facts = name, facts

    def __call__(self, fact: str, given: float | None = None) -> float:
        """What the configuration gives, else the fact.

        Raises:
            ValueError: neither is there.
        """
        value = self.facts.get(fact) if given is None else given
        if value is None:
            known = ", ".join(sorted(self.facts))
            reject(f"{self.name}", f"a problem with a {fact}", f"one with {known}", "choose another learner or problem")
        return float(value)

    @property
    def range(self) -> float:
        """The length of the interval of losses."""
        return self("loss_high") - self("loss_low")


_DOMAINS: dict[str, type[Domain]] = {
    "ball": domains.Ball,
    "box": domains.Box,
    "simplex": domains.Simplex,
    "l1_ball": domains.L1Ball,
    "capped_simplex": domains.CappedSimplex,
    "unconstrained": domains.Unconstrained,
}


def domain_of(facts: Mapping[str, Any]) -> Domain:
    """The domain that facts["domain"] describes: a `Domain`, or its name and parameters.

    Raises:
        ValueError: none, or another name.
    """
    given = facts.get("domain")
    if isinstance(given, Domain):
        return given
    if not (isinstance(given, tuple) and len(given) == 2 and given[0] in _DOMAINS):
        reject("facts.domain", f"a Domain, or one of {', '.join(_DOMAINS)} with its parameters", given, "give one")
    return _DOMAINS[given[0]](**given[1])


def _bounded(learner: OnlineLearner, bound: Callable[[Any], Tensor | float]) -> OnlineLearner:
    def path_wise(own: Any) -> Tensor:
        value = bound(own)
        return torch.as_tensor(value, dtype=torch.float64, device=own.device).expand(own.runs)

    learner.bound = path_wise
    return learner


def _hedge(config: c.HedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    width, log = facts.range, math.log(domain.dimension)
    if config.rate is not None:
        eta = config.rate
        return _bounded(
            FTRL(Entropy(), domain, Constant(eta), **common), lambda own: log / eta + eta * width**2 * own.rounds / 8
        )
    if config.tuning == "horizon":
        horizon = facts("horizon")
        eta = math.sqrt(8 * log / horizon) / width
        return _bounded(
            FTRL(Entropy(), domain, Constant(eta), **common), lambda own: log / eta + eta * width**2 * own.rounds / 8
        )
    step = InverseSqrt(2 * math.sqrt(log) / width)
    return _bounded(FTRL(Entropy(), domain, step, **common), lambda own: width * math.sqrt(own.rounds * log))


def _optimistic_hedge(config: c.OptimisticHedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    rate = config.rate or 1 / (4 * math.sqrt(math.log(domain.dimension))) / facts.range
    return OptimisticFTRL(Entropy(), domain, Constant(rate), **common)


def _adahedge(config: c.AdaHedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    # Regret <= 2 Delta_T on every path (lemma 3 of the paper).
    return _bounded(
        FTRL(Entropy(), domain, Mixability(domain.dimension), **common), lambda own: 2 * own.step_memory["gaps"]
    )


def _log_barrier(config: c.LogBarrierConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    rate = config.rate
    if rate is None:
        horizon = facts("horizon")
        rate = math.sqrt(domain.dimension * math.log(horizon + 1) / horizon) / facts.range
    return FTRL(LogBarrier(), domain, Constant(rate), **common)


def _tsallis(config: c.TsallisConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    scale = config.scale if config.scale is not None else 2 / facts.range
    return FTRL(Tsallis(config.alpha), domain, InverseSqrt(scale), **common)


def _ogd(config: c.OGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    if config.scale is not None:
        return OMD(Euclidean(), domain, InverseSqrt(config.scale), **common)
    diameter, bound = facts("diameter"), facts("gradient_bound")
    return _bounded(
        OMD(Euclidean(), domain, InverseSqrt(diameter / bound), **common),
        lambda own: 1.5 * diameter * bound * math.sqrt(own.rounds),
    )


def _ogd_strong(config: c.StrongOGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    strong = facts("strong_convexity", config.strong_convexity)
    learner = OMD(Euclidean(), domain, InverseTime(1 / strong), **common)
    if facts.facts.get("gradient_bound") is None:
        return learner
    bound = facts("gradient_bound")
    return _bounded(learner, lambda own: bound**2 / (2 * strong) * (1 + math.log(own.rounds)))


def _optimistic_ogd(config: c.OptimisticOGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    rate = config.rate if config.rate is not None else 1 / (8 * facts("smoothness"))
    return OptimisticOMD(Euclidean(), domain, Constant(rate), **common)


def _dual_averaging(config: c.DualAveragingConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    radius, bound, scale = _radius(domain), facts("gradient_bound"), config.scale

    def regret(own: Any) -> Tensor:
        squares = own.step_memory["squares"]
        return radius * (torch.sqrt(squares + bound**2) / (2 * scale) + scale * torch.sqrt(squares))

    return _bounded(FTRL(Euclidean(), domain, GradientNorm(scale * radius, bound), **common), regret)


def _radius(domain: Domain) -> float:
    """The largest norm of the domain's points."""
    if isinstance(domain, (domains.Ball, domains.L1Ball)):
        return float(domain.radius)
    if isinstance(domain, (domains.Simplex, domains.CappedSimplex)):
        return float(domain.total)
    if isinstance(domain, domains.Box):
        low, high = (torch.as_tensor(b, dtype=torch.float64).abs() for b in (domain.low, domain.high))
        largest = torch.maximum(low, high).expand(domain.dimension)
        return float((largest * largest).sum().sqrt())
    return reject("domain", "a bounded one", domain, "choose a ball, a box or a simplex")


def _adagrad(config: c.AdaGradConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    if config.matrix:
        scale = config.scale if config.scale is not None else domain.diameter / math.sqrt(2)
        root = MatrixAdaptive(config.epsilon or 1e-8, include_current=True)
        return OMD(root, domain, Constant(scale), **common)
    scale = config.scale if config.scale is not None else domain.infinity_diameter / math.sqrt(2)
    if config.form == "dual":
        return FTRL(Diagonal(config.epsilon), domain, Constant(scale), **common)
    learner = OMD(Diagonal(config.epsilon, include_current=True), domain, Constant(scale), **common)
    if config.scale is not None or config.epsilon:
        return learner
    wide = math.sqrt(2) * domain.infinity_diameter
    return _bounded(learner, lambda own: wide * torch.sqrt(own.memory["squares"]).sum(-1))


def _optimistic_omd(config: c.OptimisticOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    delta = config.delta
    if delta is None:
        delta = 10 * diameter**2 * facts("smoothness") ** 2
    step = PredictionError(diameter, bound, delta)
    return _bounded(OptimisticOMD(Euclidean(), domain, step, **common), lambda own: _error_bound(own, step))


def _error_bound(own: Any, step: PredictionError) -> Tensor:
    # The steps telescope to D^2 / (2 eta_T), the errors to 2 D sqrt(delta + V_T).
    inside = own.step_memory["errors"] + (step.delta + 4 * step.bound**2)
    return 2.5 * step.diameter * torch.sqrt(inside)


def expected_bound(diameter: float, bound: float, smoothness: float, variance: float, variation: float) -> float:
    """The theorem's bound on the expected regret of "optimistic-omd" in the SEA model.

    5 sqrt(10) D^2 L + 5 sqrt(5) / 2 D G + 5 sqrt(2) D sqrt(sum sigma_t^2) + 5 D sqrt(sum Sigma_t^2): Chen et al., arXiv
    2302.04552, theorem 1, with the constants of our derivation.
    """
    fixed = 5 * math.sqrt(10) * diameter**2 * smoothness + 2.5 * math.sqrt(5) * diameter * bound
    return fixed + 5 * math.sqrt(2) * diameter * math.sqrt(variance) + 5 * diameter * math.sqrt(variation)


def _strong_omd(config: c.StrongOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    strong = facts("strong_convexity", config.strong_convexity)
    learner = OptimisticOMD(Euclidean(), domain, InverseTime(2 / strong), **common)
    if facts.facts.get("gradient_bound") is None:
        return learner
    bound = facts("gradient_bound")
    return _bounded(learner, lambda own: 8 * bound**2 / strong * (1 + math.log(own.rounds)))


def _exp_concave(config: c.ExpConcaveOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    beta = 0.5 * min(1 / (4 * bound * diameter), facts("exp_concavity", config.exp_concavity))
    # The extra beta / 2 G^2 stands for the round's own gradient.
    quadratic = Quadratic(initial=1 + beta / 2 * bound**2, growth=beta / 2)
    d = domain.dimension
    first = 0.5 * (1 + beta * bound**2 / 2) * diameter**2
    return _bounded(
        OptimisticOMD(quadratic, domain, Constant(1.0), **common),
        lambda own: first + 16 * d / beta * math.log(1 + beta * bound**2 * own.rounds / (2 * d)),
    )


def _implicit(config: c.ImplicitOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    term = facts.facts.get("term")
    if term not in ("absolute", "hinge"):
        reject(config.name, "a problem of absolute or hinge losses", term, "choose optimistic-omd")
    step = PredictionError(facts("diameter", config.diameter), facts("gradient_bound", config.bound), config.delta)
    learner = OptimisticOMD(Euclidean(), domain, step, LastLoss(term), **common)
    return _bounded(learner, lambda own: _error_bound(own, step))


def _optimistic_ftrl(config: c.OptimisticFTRLConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter = config.diameter if config.diameter is not None else _radius(domain)
    nu = config.nu
    if nu is None:
        nu = facts("smoothness") * diameter**2 + diameter * facts("gradient_bound")
    learner = OptimisticFTRL(Euclidean(scale=2.0), domain, SelfBounding(diameter, nu), **common)
    if facts.facts.get("gradient_bound") is None:
        return learner
    # The paper prints 4 where its own steps give 6.
    fixed = nu + 6 * (diameter * facts("gradient_bound")) ** 2 / nu

    def regret(own: Any) -> Tensor:
        return 1.5 * math.sqrt(2) * diameter * torch.sqrt(own.step_memory["errors"]) + fixed

    return _bounded(learner, regret)


def _strong_ftrl(config: c.StrongFTRLConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    mu = facts("strong_convexity", config.strong_convexity)
    return OptimisticFTRL(Euclidean(), domain, InverseTime(1 / mu, offset=1), surrogate=mu, **common)


def _ons(config: c.ONSConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    beta = 0.5 * min(1 / (4 * bound * diameter), facts("exp_concavity", config.exp_concavity))
    quadratic = Quadratic(initial=1 / (beta * diameter) ** 2, growth=1.0, include_current=True)
    return OMD(quadratic, domain, Constant(1 / beta), **common)


def _two_layer(config: c.TwoLayerConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    smoothness = facts("smoothness", config.smoothness)
    rates = step_pool(config.pool, diameter, bound, smoothness, int(facts("horizon")))
    return TwoLayer(domain, rates, diameter, smoothness, config.penalty, config.meta_scale, config.lazy, **common)


def _proximal(config: c.ProximalConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    return FTRLProximal(domain, config.alpha, config.beta, config.l1, config.l2, **common)


BUILDERS: dict[str, Callable[[Any, Facts, Domain, Common], OnlineLearner]] = {
    "hedge": _hedge,
    "optimistic-hedge": _optimistic_hedge,
    "adahedge": _adahedge,
    "log-barrier": _log_barrier,
    "tsallis": _tsallis,
    "ogd": _ogd,
    "ogd-strong": _ogd_strong,
    "optimistic-ogd": _optimistic_ogd,
    "ftrl": _dual_averaging,
    "adagrad": _adagrad,
    "optimistic-omd": _optimistic_omd,
    "optimistic-omd-strong": _strong_omd,
    "optimistic-omd-exp": _exp_concave,
    "optimistic-omd-implicit": _implicit,
    "optimistic-ftrl": _optimistic_ftrl,
    "optimistic-ftrl-strong": _strong_ftrl,
    "ons": _ons,
    "two-layer": _two_layer,
    "ftrl-proximal": _proximal,
}


def build(config: c.LearnerConfig, facts: Mapping[str, Any], common: Common) -> OnlineLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a domain that does not fit.
    """
    ranges = {key: facts[f"loss_{key}"] for key in ("low", "high") if f"loss_{key}" in facts}
    return BUILDERS[config.name](config, Facts(config.name, facts), domain_of(facts), {**ranges, **common})
