"""Problems with arms by name: one line each. Imports no torch."""

from __future__ import annotations

from experiments.problem import Problem

__all__ = ["BANDITS"]

_MULTI_ARMED = "envs.multi_armed_bandit:MultiArmedBandit"
_ARMS = {"arms": "how many (10)", "gap": "of the last arm's mean to the others' (0.1)", "means": "of each arm (gap)"}

BANDITS: tuple[Problem, ...] = (
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
        "bandit-constrained",
        "stochastically constrained adversary, seen arm by arm: the gap stays, the level jumps",
        "envs.experts:Experts",
        {"kind": "stochastically-constrained", "feedback": "bandit"},
        {"arms": "how many (10)", "gap": "between the best and the others (0.1)"},
    ),
)
