"""Problems of regret by name. Imports no torch, so that lists are quick."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.bandit_problems import BANDITS
from experiments.mdp_problems import MDPS
from experiments.problem import Problem, fail, near

__all__ = ["PROBLEMS", "Problem", "find", "label", "settings"]


def find(name: str) -> Problem:
    """The problem of that name.

    Raises:
        ValueError: there is none; the nearest is suggested.
    """
    if name not in PROBLEMS:
        fail("--problem", f"one of {', '.join(PROBLEMS)}", f"'{name}'", near(name, PROBLEMS))
    return PROBLEMS[name]


def settings(given: Sequence[str]) -> dict[str, Any]:
    """{"dial": 0.5} from ["dial=0.5"]; values are Python literals, or words.

    Raises:
        ValueError: another form, or a setting given twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            fail("--problem-set", "NAME=VALUE", f"'{text}'", "e.g. --problem-set dimension=5")
        if name in found:
            fail("--problem-set", "each setting once", f"{name} twice", "leave one out")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return found


def label(problem: Problem, given: Mapping[str, Any]) -> str:
    """What the problem is called in the table: with other settings it is another problem."""
    return ",".join([problem.name, *(f"{key}={given[key]}" for key in sorted(given))])


_DIMENSION = {"dimension": "coordinates (5)"}
_NOISE = {"noise": "distance of the centres from their mean (0.5)"}


def _sea(kind: str, about: str, known: Mapping[str, str] = {}, horizon: str = "") -> Problem:
    return Problem(f"sea-{kind}", about, "envs.sea:SEA", {"kind": kind}, {**_DIMENSION, **known}, horizon)


def _experts(name: str, about: str, known: Mapping[str, str] = {}, kind: str = "", horizon: str = "") -> Problem:
    settings = {"arms": "experts (10)", "gap": "between the best and the others (0.1)", **known}
    return Problem(f"experts-{name}", about, "envs.experts:Experts", {"kind": kind or name}, settings, horizon)


def _regression(
    kind: str, about: str, noise: str, known: Mapping[str, str] = {}, dimension: Mapping[str, str] = _DIMENSION,
    horizon: str = "",
) -> Problem:  # fmt: skip
    settings = {**dimension, **({"noise": noise} if noise else {}), **known}
    world = "envs.online_regression:OnlineRegression"
    return Problem(f"regression-{kind}", about, world, {"kind": kind}, settings, horizon)


_DOMAIN = {"dimension": "coordinates (5)", "domain": "ball, box or simplex (ball)"}


def _linear(kind: str, about: str, known: Mapping[str, str], horizon: str = "") -> Problem:
    own = {} if kind == "ftl-killer" else {**_DIMENSION, **known}
    return Problem(f"linear-{kind}", about, "envs.linear_losses:LinearLosses", {"kind": kind}, own, horizon)


_ALL = (
    _sea("iid", "quadratic losses around i.i.d. centres", _NOISE),
    _sea("adversarial", "quadratic losses whose centre jumps to and fro each round", {"noise": "as sea-iid's (0)"}),
    _sea("corrupted", "sea-iid, the mean flipped in sqrt(T) random rounds", _NOISE, "it sets how many are flipped"),
    _sea("drift", "sea-iid, the mean on its way around a circle", _NOISE, "the circle takes all rounds"),
    _sea(
        "random-order",
        "quadratic losses around fixed centres in a random order",
        {"noise": "distance of the centres from their middle, at most 0.5 (0.5)", "passes": "over all of them (1)"},
        "it is the number of centres",
    ),
    _sea(
        "switching",
        "sea-iid in stages, each around a mean of its own (dynamic regret)",
        {**_NOISE, "stages": "equally long ones (10)"},
        "the stages fill it",
    ),
    _sea("dial", "from sea-iid to sea-adversarial", {"dial": "0 i.i.d. to 1 adversarial (0)", **_NOISE}),
    _experts(
        "bernoulli", "experts with Bernoulli losses, one better by a gap", {"means": "of each expert's loss (gap)"}
    ),
    _experts(
        "switching",
        "the second-best expert overtakes the best after two thirds",
        kind="second-best-overtakes",
        horizon="the change is at half of it",
    ),
    _experts(
        "constrained",
        "stochastically constrained adversary: the gap stays, the level jumps",
        kind="stochastically-constrained",
    ),
    _regression("squared", "online linear regression, squared loss", "standard deviation of targets (0.1)"),
    _regression("absolute", "online linear regression, absolute loss", "scale of the targets' Laplace noise (0.1)"),
    _regression(
        "huber",
        "online linear regression, Huber's loss, ten stages (dynamic regret)",
        "standard deviation of targets (0.05)",
        {"stages": "equally long ones (10)", "threshold": "up to 2 (2)"},
        {**_DIMENSION, "dimension": "coordinates (10)"},
        "the stages fill it",
    ),
    _regression("logistic", "online logistic regression", ""),
    _regression("hinge", "online classification, hinge loss", "chance of a flipped label (0.1)"),
    Problem(
        "portfolio", "online portfolio selection, i.i.d. price relatives", "envs.portfolio:Portfolio", {}, _DIMENSION
    ),
    _linear("rademacher", "linear losses, random signs", _DOMAIN),
    _linear("gaussian", "linear losses, normal coordinates", _DOMAIN),
    _linear("rotating", "linear losses, a turning direction", {**_DOMAIN, "speed": "radians a round (0.1)"}),
    _linear("ftl-killer", "one coordinate: 0.5, -1, +1, -1, ..", {}),
    _linear(
        "drifting-best",
        "each coordinate is the best one once",
        {"domain": "ball, box or simplex (simplex)"},
        "the turn takes all rounds",
    ),
)

# Against moving means a fixed point is beaten easily: regret against it is negative.
_MOVING = ("sea-drift", "sea-switching", "regression-huber", "linear-rotating", "linear-drifting-best")

PROBLEMS: dict[str, Problem] = {
    problem.name: replace(problem, metric="regret/dynamic") if problem.name in _MOVING else problem
    for problem in (*_ALL, *BANDITS, *MDPS)
}
"""{name: problem}, as `orbs list --problems` and `orbs regret --problem` know them."""
