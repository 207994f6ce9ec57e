"""Problems with arms by name: one line each. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.problem import Problem

__all__ = ["BANDITS"]

_CONTEXTUAL = "envs.contextual_bandit:ContextualBandit"
_MULTI_ARMED = "envs.multi_armed_bandit:MultiArmedBandit"
_ARMS = {"arms": "how many (10)", "gap": "of the last arm's mean to the others' (0.1)", "means": "of each arm (gap)"}
_TURNS = {"turns": "fractions of the horizon at which means move one arm to the left (0.5)"}

_FEATURES = {
    "arms": "how many (20)",
    "dimension": "of a feature vector (5)",
    "norm": "of the parameter (1)",
    "shared": "all runs have the same features (False)",
}
_LINEAR = {
    **_FEATURES, "noise": "standard deviation (0.1)", "fresh": "new features each round (False)",
}  # fmt: skip


def _linear(kind: str, about: str, known: Mapping[str, str] = _LINEAR, horizon: str = "") -> Problem:
    world = "envs.linear_bandit:LinearBandit"
    return Problem(f"linear-bandit-{kind}", about, world, {"kind": kind}, known, horizon, metric="regret/pseudo")


_NOISE_OF = {"noise": "standard deviation of each state's and each output's (0.01)"}
_OUTPUT = {"output_noise": "each (noise of every output, as released) or single (each)"}


def _dynamical(system: str, about: str) -> Problem:
    known = {**_NOISE_OF, **_OUTPUT}
    world = "envs.dynamical_linear_bandit:DynamicalLinearBandit"
    return Problem(f"dynamical-{system}", about, world, {"system": system}, known, metric="regret/pseudo")


BANDITS: tuple[Problem, ...] = (
    _dynamical("synthetic", "dynamical linear bandit: rewards of a hidden linear system, the paper's synthetic one"),
    _dynamical("advertising", "dynamical linear bandit: a system identified from three advertising channels"),
    Problem(
        "bandit-bernoulli",
        "arms with rewards 0 or 1, the last one better by a gap",
        _MULTI_ARMED,
        {"kind": "bernoulli"},
        _ARMS,
        metric="regret/pseudo",
    ),
    Problem(
        "bandit-gaussian",
        "arms with normal rewards, the last one better by a gap",
        _MULTI_ARMED,
        {"kind": "gaussian"},
        {**_ARMS, "noise": "standard deviation (1)"},
        metric="regret/pseudo",
    ),
    Problem(
        "bandit-worst-case",
        "bandit-bernoulli with the gap sqrt(K / T), the hardest one at its horizon",
        _MULTI_ARMED,
        {"kind": "bernoulli", "gap": None},
        {"arms": "how many (10)"},
        "the gap follows from it",
        metric="regret/pseudo",
    ),
    Problem(
        "bandit-abrupt",
        "bandit-bernoulli, the best arm changes half way (regret against the best arm of each round)",
        _MULTI_ARMED,
        {"kind": "bernoulli", "turns": 0.5},
        {**_ARMS, **_TURNS},
        "turns are shares of it",
        metric="regret/pseudo",
    ),
    Problem(
        "bandit-gaussian-abrupt",
        "bandit-gaussian, the best arm changes half way (regret against the best arm of each round)",
        _MULTI_ARMED,
        {"kind": "gaussian", "turns": 0.5},
        {**_ARMS, "noise": "standard deviation (1)", **_TURNS},
        "turns are shares of it",
        metric="regret/pseudo",
    ),
    Problem(
        "bandit-constrained",
        "stochastically constrained adversary, seen arm by arm: the gap stays, the level jumps",
        "envs.experts:Experts",
        {"kind": "stochastically-constrained", "feedback": "bandit"},
        {"arms": "how many (10)", "gap": "between the best and the others (0.1)"},
    ),
    Problem(
        "contextual-linear",
        "contexts on a sphere, each arm's mean reward linear in the context",
        _CONTEXTUAL,
        {"kind": "linear"},
        {"arms": "how many (10)", "dimension": "of a context (5)", "noise": "standard deviation (0.1)"},
        metric="regret/pseudo",
    ),
    Problem(
        "contextual-lipschitz",
        "contexts in [0, 1], rewards 0 or 1, each arm best around a centre",
        _CONTEXTUAL,
        {"kind": "lipschitz"},
        {"arms": "how many (10)", "lipschitz": "slope of the means (1)"},
        metric="regret/pseudo",
    ),
    Problem(
        "classification",
        "classification data: the right class pays 1",
        "envs.classification_bandit:ClassificationBandit",
        {},
        {
            "data": "blobs, iris, wine, breast-cancer, digits, or a path to an .npz or .csv (blobs)",
            "order": "of the rows: random or shuffled (random)",
            "label_noise": "chance of a random class (0)",
            "unit": "contexts of norm 1 (False)",
        },
        metric="regret/pseudo",
    ),
    _linear("fixed", "arms with fixed features, mean rewards linear in them"),
    _linear("contexts", "arms with new features each round, mean rewards linear in them"),
    _linear("rotating", "linear-bandit-fixed, the parameter turning once", horizon="the turn takes all rounds"),
    _linear("abrupt", "linear-bandit-fixed, the parameter reversed halfway", horizon="the change is at half of it"),
    _linear(
        "logistic",
        "arms with fixed features, rewards 0 or 1 of logistic mean",
        {**_FEATURES, "fresh": "new features each round (False)"},
    ),
)
