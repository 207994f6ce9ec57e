"""Problems that the tests of bandits share: each named learner of arms joins the contract by a line in HOMES."""

from __future__ import annotations

import torch

from bandits import make
from orbs import Philox

# No constant is 1 where that would hide a factor; the range of rewards is not [0, 1].
ARMS = {"domain": ("arms", {"dimension": 5}), "arms": 5, "reward_low": -1.0, "reward_high": 2.0, "horizon": 400}

HOMES = {
    "ucb1": ARMS,
}
VARIANTS = [
    *((name, {}) for name in HOMES),
    ("ucb1", {"time": "horizon"}),
]


def built(name, hyperparameters=None, runs=1, **changes):
    """A named learner at home."""
    return make(name, {**HOMES[name], **changes}, runs=runs, **(hyperparameters or {}))


def contexts(facts, round, runs):
    """What is shown before a round, as the facts say: (R, d), (R, K, d) or None. A function of (run id, round)."""
    d = facts.get("context_dimension") or facts.get("feature_dimension")
    if d is None:
        return None
    count = d if facts.get("context_dimension") else facts["arms"] * d
    numbers = Philox(11, runs).normal("tests/contexts", round, 1, count, torch.float64)[:, 0]
    if not facts.get("context_dimension"):
        numbers = numbers.view(len(runs), facts["arms"], d)
    return 0.7 * numbers / numbers.norm(dim=-1, keepdim=True)


def rewards(facts, round, arm, runs):
    """(R,) in the facts' range, better for higher arms; a function of (run id, round, arm)."""
    low, high = facts.get("reward_low", -0.5), facts.get("reward_high", 1.5)
    u = Philox(12, runs).uniform("tests/rewards", round, 1, 1, torch.float64)[:, 0, 0]
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
