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

from bandits import online_config as c
from bandits.config_base import LearnerConfig
from bandits.facts import Facts
from bandits.online_learning import domains
from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Domain
from bandits.online_learning.learner import FTRL, OMD, OptimisticFTRL, OptimisticOMD
from bandits.online_learning.named_experts import BUILDERS as EXPERTS
from bandits.online_learning.named_experts import RANDOM
from bandits.online_learning.optimism import LastLoss
from bandits.online_learning.proximal import FTRLProximal
from bandits.online_learning.regularisers import (
    Diagonal,
    Entropy,
    Euclidean,
    LogBarrier,
    MatrixAdaptive,
    Quadratic,
    Regulariser,
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

__all__ = ["BUILDERS", "build", "domain_of", "expected_bound"]

Common = dict[str, Any]


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


def _bounded(facts: Facts, learner: OnlineLearner, bound: Callable[[Any], Tensor | float]) -> OnlineLearner:
    """With the bound, where the facts that it rests on are the problem's."""
    if not facts.trusted:
        return learner

    def path_wise(own: Any) -> Tensor:
        value = bound(own)
        return torch.as_tensor(value, dtype=torch.float64, device=own.device).expand(own.runs)

    learner.bound = path_wise
    return learner


def _choices(domain: Domain, regulariser: Regulariser) -> float:
    """ln K, after a check that there is something to choose by such weights."""
    regulariser.check(domain)
    if domain.dimension < 2:
        reject("domain", "at least two coordinates to weigh", domain, "add some")
    return math.log(domain.dimension)


def _hedge(config: c.HedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    log, width = _choices(domain, Entropy()), facts.range
    eta = config.rate
    if eta is None and config.tuning == "horizon":
        eta = math.sqrt(8 * log / facts("horizon")) / width
    step = InverseSqrt(2 * math.sqrt(log) / width) if eta is None else Constant(eta)
    learner = FTRL(Entropy(), domain, step, **common)
    if not isinstance(domain, domains.Simplex):
        return learner
    total = domain.total
    if eta is None:
        return _bounded(facts, learner, lambda own: total * width * math.sqrt(own.rounds * log))
    return _bounded(facts, learner, lambda own: total * (log / eta + eta * width**2 * own.rounds / 8))


def _optimistic_hedge(config: c.OptimisticHedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    rate = 1 / (4 * math.sqrt(_choices(domain, Entropy()))) / facts.range if config.rate is None else config.rate
    return OptimisticFTRL(Entropy(), domain, Constant(rate), **common)


def _adahedge(config: c.AdaHedgeConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    _choices(domain, Entropy())
    if not isinstance(domain, domains.Simplex) or domain.total != 1.0:
        reject(f"{config.name}: domain", "a simplex of total 1", domain, "choose hedge")
    # Regret <= 2 Delta_T on every path (lemma 3 of the paper).
    return _bounded(
        facts, FTRL(Entropy(), domain, Mixability(domain.dimension), **common), lambda own: 2 * own.step_memory["gaps"]
    )


def _log_barrier(config: c.LogBarrierConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    _choices(domain, LogBarrier())
    rate = config.rate
    if rate is None:
        horizon = facts("horizon")
        rate = math.sqrt(domain.dimension * math.log(horizon + 1) / horizon) / facts.range
    return FTRL(LogBarrier(), domain, Constant(rate), **common)


def _tsallis(config: c.TsallisConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    _choices(domain, Tsallis(config.alpha))
    scale = config.scale if config.scale is not None else 2 / facts.range
    return FTRL(Tsallis(config.alpha), domain, InverseSqrt(scale), **common)


def _ogd(config: c.OGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    if config.scale is not None:
        return OMD(Euclidean(), domain, InverseSqrt(config.scale), **common)
    diameter, bound = facts("diameter"), facts("gradient_bound")
    return _bounded(
        facts,
        OMD(Euclidean(), domain, InverseSqrt(diameter / bound), **common),
        lambda own: 1.5 * diameter * bound * math.sqrt(own.rounds),
    )


def _ogd_strong(config: c.StrongOGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    strong = facts("strong_convexity", config.strong_convexity)
    learner = OMD(Euclidean(), domain, InverseTime(1 / strong), **common)
    if facts.facts.get("gradient_bound") is None:
        return learner
    bound = facts("gradient_bound")
    return _bounded(facts, learner, lambda own: bound**2 / (2 * strong) * (1 + math.log(own.rounds)))


def _optimistic_ogd(config: c.OptimisticOGDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    rate = config.rate if config.rate is not None else 1 / (8 * facts("smoothness", above_zero=True))
    return OptimisticOMD(Euclidean(), domain, Constant(rate), **common)


def _dual_averaging(config: c.DualAveragingConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    radius, bound, scale = _radius(domain), facts("gradient_bound"), config.scale

    def regret(own: Any) -> Tensor:
        squares = own.step_memory["squares"]
        return radius * (torch.sqrt(squares + bound**2) / (2 * scale) + scale * torch.sqrt(squares))

    return _bounded(facts, FTRL(Euclidean(), domain, GradientNorm(scale * radius, bound), **common), regret)


def _radius(domain: Domain) -> float:
    """The largest norm of the domain's points."""
    if isinstance(domain, (domains.Ball, domains.L1Ball)):
        return float(domain.radius)
    if isinstance(domain, domains.Simplex):
        return float(domain.total)
    if isinstance(domain, domains.CappedSimplex):
        # At a vertex: as many coordinates at the cap as there is room for, the rest of the total in one more.
        span = domain.cap - domain.floor
        room = domain.total - domain.dimension * domain.floor
        full = min(domain.dimension, int(room / span)) if span > 0 else 0
        vertex = [domain.cap] * full + [domain.floor] * (domain.dimension - full)
        if full < domain.dimension:
            vertex[full] += room - full * span
        return math.sqrt(sum(x * x for x in vertex))
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
    return _bounded(facts, learner, lambda own: wide * torch.sqrt(own.memory["squares"]).sum(-1))


def _optimistic_omd(config: c.OptimisticOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    delta = config.delta
    if delta is None:
        delta = 10 * diameter**2 * facts("smoothness") ** 2
    step = PredictionError(diameter, bound, delta)
    return _bounded(facts, OptimisticOMD(Euclidean(), domain, step, **common), lambda own: _error_bound(own, step))


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
    return _bounded(facts, learner, lambda own: 8 * bound**2 / strong * (1 + math.log(own.rounds)))


def _exp_concave(config: c.ExpConcaveOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter, bound = facts("diameter", config.diameter), facts("gradient_bound", config.bound)
    beta = 0.5 * min(1 / (4 * bound * diameter), facts("exp_concavity", config.exp_concavity))
    # The extra beta / 2 G^2 stands for the round's own gradient.
    quadratic = Quadratic(initial=1 + beta / 2 * bound**2, growth=beta / 2)
    d = domain.dimension
    first = 0.5 * (1 + beta * bound**2 / 2) * diameter**2
    return _bounded(
        facts,
        OptimisticOMD(quadratic, domain, Constant(1.0), **common),
        lambda own: first + 16 * d / beta * math.log(1 + beta * bound**2 * own.rounds / (2 * d)),
    )


def _implicit(config: c.ImplicitOMDConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    term = facts.facts.get("term")
    if term not in ("absolute", "hinge"):
        reject(config.name, "a problem of absolute or hinge losses", term, "choose optimistic-omd")
    step = PredictionError(facts("diameter", config.diameter), facts("gradient_bound", config.bound), config.delta)
    learner = OptimisticOMD(Euclidean(), domain, step, LastLoss(term), **common)
    return _bounded(facts, learner, lambda own: _error_bound(own, step))


def _optimistic_ftrl(config: c.OptimisticFTRLConfig, facts: Facts, domain: Domain, common: Common) -> OnlineLearner:
    diameter = _radius(domain) if config.diameter is None else config.diameter
    if diameter < _radius(domain):
        facts.trusted = False
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

    return _bounded(facts, learner, regret)


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
    smoothness = facts("smoothness", config.smoothness, above_zero=True)
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
    **EXPERTS,
}


def build(config: LearnerConfig, facts: Mapping[str, Any], common: Common) -> OnlineLearner:
    """The learner of a configuration for a problem.

    Raises:
        ValueError: a fact that it needs is neither given nor known; a domain that does not fit.
    """
    domain = domain_of(facts)
    if domain.diameter == 0:
        reject(f"{config.name}: domain", "more than one point", domain, "give it more coordinates, or a size")
    ranges = {key: facts[f"loss_{key}"] for key in ("low", "high") if f"loss_{key}" in facts}
    if config.name not in RANDOM:
        common = {key: value for key, value in common.items() if key != "seed"}
    return BUILDERS[config.name](config, Facts(config.name, facts), domain, {**ranges, **common})
