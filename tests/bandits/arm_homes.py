"""Problems that the tests of bandits share: each named learner of arms joins the contract by a line in HOMES."""

from __future__ import annotations

import functools

import torch

import bandits
from orbs import Philox

BLOCK = 64  # rounds whose numbers are drawn at a time

# No constant is 1 where that would hide a factor; the range of rewards is not [0, 1].
ARMS = {"domain": ("arms", {"dimension": 5}), "arms": 5, "reward_low": -1.0, "reward_high": 2.0, "horizon": 400}

# Three experts for the five arms: one sure of an arm, one of a few, one of none.
ADVICE = torch.tensor([[0, 0, 0, 0, 1], [0.5, 0, 0.3, 0.2, 0], [0.2] * 5], dtype=torch.float64)

CONTEXTUAL = {**ARMS, "context_dimension": 3, "feature_bound": 0.7, "context_low": -0.7, "context_high": 0.7}

# Each with noise, and arms whose features differ in length: fixed ones, or new ones each round.
_FEATURES = [[0.7, 0.1, 0.0], [0.0, 0.6, 0.2], [-0.3, 0.0, 0.5], [0.1, -0.2, 0.6], [0.3, 0.3, 0.4]]
LINEAR = {
    **ARMS, "noise": 0.3, "parameter_bound": 1.3, "feature_bound": 0.75,
    "features": torch.tensor(_FEATURES, dtype=torch.float64),
}  # fmt: skip
LINEAR_SHOWN = {**LINEAR, "features": None, "feature_dimension": 3}

# The bounds of no system in particular, features of differing lengths.
DYNAMICAL = {
    "domain": ("arms", {"dimension": 5}), "arms": 5, "horizon": 400, "noise": 0.3, "budget": 1.2,
    "features": torch.tensor(_FEATURES, dtype=torch.float64), "spectral_radius": 0.4, "transient": 1.7,
    "state_weight": 0.6, "action_weight": 0.8, "input_norm": 0.5, "action_norm": 0.75,
}  # fmt: skip

# "name@what" is the learner of that name at another home.
HOMES = {
    "dyn-lin-ucb": DYNAMICAL,
    "dynamical-lin-ucb": DYNAMICAL,
    "dynamical-d-lin-ucb": DYNAMICAL,
    "dynamical-exp3": DYNAMICAL,
    "batch-exp3": DYNAMICAL,
    "ar2": DYNAMICAL,
    "lin-ucb": LINEAR,
    "lin-ucb@contexts": LINEAR_SHOWN,
    "lin-ts": LINEAR,
    "lin-ts@contexts": LINEAR_SHOWN,
    "d-lin-ucb": LINEAR,
    "d-lin-ucb@contexts": LINEAR_SHOWN,
    "sw-lin-ucb": LINEAR,
    "sw-lin-ucb@contexts": LINEAR_SHOWN,
    "restart-lin-ucb": LINEAR,
    "restart-lin-ucb@contexts": LINEAR_SHOWN,
    "glm-ucb": LINEAR,
    "glm-ucb@contexts": LINEAR_SHOWN,
    "disjoint-lin-ucb": CONTEXTUAL,
    "epoch-greedy": CONTEXTUAL,
    "contextual-epsilon-greedy": CONTEXTUAL,
    "contextual-explore-first": CONTEXTUAL,
    "square-cb": CONTEXTUAL,
    "mesh-ucb": CONTEXTUAL,
    "ucb1": ARMS,
    "ucb1-tuned": ARMS,
    "ucb-v": ARMS,
    "kl-ucb": ARMS,
    "moss": ARMS,
    "thompson-beta": ARMS,
    "thompson-gaussian": ARMS,
    "bayes-ucb": ARMS,
    "explore-first": ARMS,
    "epsilon-greedy": ARMS,
    "successive-elimination": ARMS,
    "boltzmann": ARMS,
    "greedy": ARMS,
    "random": ARMS,
    "sw-ucb": ARMS,
    "d-ucb": ARMS,
    "oracle": {**ARMS, "best_arm": 0},
    "exp3": ARMS,
    "exp3-auer": ARMS,
    "exp3-ix": ARMS,
    "exp3-p": ARMS,
    "exp3-s": ARMS,
    "rexp3": ARMS,
    "exp4": {**ARMS, "advice": ADVICE},
    "tsallis-inf": ARMS,
}
VARIANTS = [
    *((name, {}) for name in HOMES),
    ("dyn-lin-ucb", {"ridge": 0.7, "replicate_offset": True}),
    ("dyn-lin-ucb", {"spectral_radius": 0.0}),
    ("dynamical-lin-ucb", {"tuning": "one"}),
    ("dynamical-d-lin-ucb", {"tuning": "one", "discount": 0.97}),
    ("batch-exp3", {"replicate_misalignment": True}),
    ("ar2", {"replicate_quirks": True}),
    ("lin-ucb", {"radius": "trace", "lam": 0.3}),
    ("lin-ucb@contexts", {"beta": 0.5}),
    ("lin-ts", {"scale": "theory"}),
    ("d-lin-ucb", {"discount": 0.9, "delta": 0.05}),
    ("sw-lin-ucb", {"window": 7}),
    ("sw-lin-ucb@contexts", {"window": 50, "lam": 1e-4}),
    ("restart-lin-ucb@contexts", {"window": 11, "radius": "trace"}),
    ("glm-ucb", {"kappa": 0.2, "noise": 0.3}),
    ("disjoint-lin-ucb", {"alpha": 0.3, "ridge": 0.5}),
    ("epoch-greedy", {"policies": 1.0, "oracle": "dr"}),
    ("contextual-epsilon-greedy", {"epsilon": None, "oracle": "ips"}),
    ("contextual-epsilon-greedy", {"oracle": "dr"}),
    ("contextual-explore-first", {"explore": 20, "oracle": "dr"}),
    ("square-cb", {"oracle": "ogd", "anytime": True}),
    ("square-cb", {"gamma": 20.0}),
    ("mesh-ucb", {"time": "horizon", "cells": 2}),
    ("exp3", {"tuning": "horizon"}),
    ("exp3", {"rate": 0.3}),
    ("exp3-ix", {"tuning": "anytime"}),
    ("exp3-s", {"segments": 3}),
    ("rexp3", {"variation": 40.0}),
    ("exp4", {"exploration": 0.1, "tuning": "anytime"}),
    ("tsallis-inf", {"variant": "iw"}),
    ("ucb1", {"time": "horizon"}),
    ("ucb1", {"ties": "random"}),
    ("kl-ucb", {"c": 3.0, "ties": "random"}),
    ("kl-ucb", {"divergence": "gaussian"}),
    ("moss", {"anytime": True}),
    ("bayes-ucb", {"c": 5.0}),
    ("explore-first", {"explore": 7, "ties": "random"}),
    ("epsilon-greedy", {"epsilon": 0.2}),
    ("sw-ucb", {"window": 1}),
    ("sw-ucb", {"window": 13}),
    ("d-ucb", {"discount": 0.7}),
    ("oracle", {"arm": 3}),
]


def make(name, facts, **arguments):
    """`bandits.make`, of what precedes the @."""
    return bandits.make(name.partition("@")[0], facts, **arguments)


def built(name, hyperparameters=None, runs=1, **changes):
    """A named learner at home."""
    return make(name, {**HOMES[name], **changes}, runs=runs, **(hyperparameters or {}))


@functools.cache
def _drawn(what, block, runs, count):
    """(R, BLOCK, count) normal numbers for contexts, uniform ones for rewards."""
    philox = Philox({"contexts": 11, "rewards": 12}[what], runs)
    draw = philox.normal if what == "contexts" else philox.uniform
    return draw(f"tests/{what}", block * BLOCK, BLOCK, count, torch.float64)


def contexts(facts, round, runs):
    """What is shown before a round, as the facts say: (R, d), (R, K, d) or None. A function of (run id, round)."""
    d = facts.get("context_dimension") or facts.get("feature_dimension")
    if d is None:
        return None
    count = d if facts.get("context_dimension") else facts["arms"] * d
    numbers = _drawn("contexts", round // BLOCK, tuple(runs), count)[:, round % BLOCK]
    if not facts.get("context_dimension"):
        numbers = numbers.reshape(len(runs), facts["arms"], d)
    return 0.7 * numbers / numbers.norm(dim=-1, keepdim=True)


def rewards(facts, round, arm, runs):
    """(R,) in the facts' range, better for higher arms; a function of (run id, round, arm)."""
    low, high = facts.get("reward_low", -0.5), facts.get("reward_high", 1.5)
    u = _drawn("rewards", round // BLOCK, tuple(runs), 1)[:, round % BLOCK, 0]
    chance = 0.2 + 0.6 * (arm + 1) / facts["arms"]
    return low + (high - low) * torch.where(u < chance, 1.0 - 0.3 * u, 0.3 * u)


def play(learner, facts, rounds, first=0, reward=rewards):
    """Arms (rounds, R) of rounds first .. first + rounds - 1."""
    arms = []
    for t in range(first, first + rounds):
        arm = learner.act(contexts(facts, t, learner.run_ids)).clone()
        learner.observe(arm, reward(facts, t, arm, learner.run_ids))
        arms.append(arm)
    return torch.stack(arms)
