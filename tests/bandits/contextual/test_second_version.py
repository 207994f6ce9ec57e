"""Each contextual learner plays the same arms as a second, plain version of it, for the same random numbers."""

import numpy as np
import pytest
import torch

from bandits import make
from tests.bandits.contextual.reference_contextual import (
    PlainDisjoint,
    PlainEpochGreedy,
    PlainEpsilonGreedy,
    PlainExploreFirst,
    PlainMesh,
    PlainSquareCB,
)

ARMS, D, ROUNDS, LOW, HIGH = 4, 3, 230, -1.0, 3.0
FACTS = {"domain": ("arms", {"dimension": ARMS}), "arms": ARMS, "reward_low": LOW, "reward_high": HIGH,
         "horizon": 230, "context_dimension": D, "feature_bound": 2.0, "parameter_bound": 1.5,
         "context_low": -1.0, "context_high": 1.0, "lipschitz": 3.0}  # fmt: skip
# K (S^2 ridge + d ln(1 + T L^2/(ridge K d))) and the rate from it, by hand.
REG = 4 * (2.25 * 0.5 + 3 * np.log(1 + 230 * 4 / (0.5 * 12)))


def rate(t):
    return 3.0 * np.sqrt(4 * t / (4 * (2.25 * 0.5 + 3 * np.log(1 + t * 4 / (0.5 * 12))) + np.log(2 / 0.1)))


CASES = [
    ("disjoint-lin-ucb", {"alpha": 0.4, "ridge": 0.5}, lambda **o: PlainDisjoint(ARMS, D, 0.4, 0.5, **o)),
    *(
        (
            "contextual-epsilon-greedy",
            {"oracle": oracle, "ridge": 0.5, "epsilon": epsilon},
            lambda oracle=oracle, epsilon=epsilon, **o: PlainEpsilonGreedy(ARMS, D, oracle, 0.5, epsilon=epsilon, **o),
        )
        for oracle, epsilon in (("weighted", 0.3), ("ips", 0.3), ("dr", 0.3), ("weighted", None))
    ),
    *(
        (
            "contextual-explore-first",
            {"oracle": oracle, "ridge": 0.5, "explore": 110},
            lambda oracle=oracle, **o: PlainExploreFirst(ARMS, D, oracle, 0.5, explore=110, **o),
        )
        for oracle in ("weighted", "ips", "dr")
    ),
    (
        "epoch-greedy",
        {"policies": 1.2, "delta": 0.9, "ridge": 0.5, "oracle": "weighted"},
        lambda **o: PlainEpochGreedy(ARMS, D, "weighted", 0.5, log_policies=np.log(1.2), delta=0.9, **o),
    ),
    (
        "square-cb",
        {"scale": 3.0, "delta": 0.1, "ridge": 0.5},
        lambda **o: PlainSquareCB(ARMS, D, lambda t: 3.0 * np.sqrt(4 * 230 / (REG + np.log(20))), "ridge", 0.5, **o),
    ),
    (
        "square-cb",
        {"scale": 3.0, "delta": 0.1, "ridge": 0.5, "anytime": True},
        lambda **o: PlainSquareCB(ARMS, D, rate, "ridge", 0.5, **o),
    ),
    (
        "square-cb",
        {"oracle": "ogd", "gamma": 20.0},
        lambda **o: PlainSquareCB(ARMS, D, lambda t: 20.0, "ogd", radius=1.5, **o),
    ),
    ("mesh-ucb", {"cells": 2, "high": 0.8}, lambda **o: PlainMesh(ARMS, D, 2, (-1.0, 0.8), **o)),
    ("mesh-ucb", {"time": "horizon"}, lambda **o: PlainMesh(ARMS, D, 5, (-1.0, 1.0), 230, **o)),
]


@pytest.mark.parametrize(("name", "given", "plain"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_second_version_plays_the_same_arms(name, given, plain):
    rng = np.random.default_rng(len(name))
    weights = rng.normal(size=(ARMS, D))
    run, seed = 7, 3
    learner, second = make(name, FACTS, runs=[2, run], seed=seed, **given), plain(seed=seed, run=run)
    played = []
    for _ in range(ROUNDS):
        x = rng.uniform(-1, 1, D)
        arm = learner.act(torch.as_tensor(np.stack([x * 0.3, x])))
        played.append(second.pick(x))
        assert int(arm[1]) == played[-1]
        unit = float(np.clip(0.5 + 0.3 * weights[arm[1]] @ x + 0.05 * rng.normal(), 0, 1))
        learner.observe(arm, torch.tensor([0.3, LOW + (HIGH - LOW) * unit], dtype=torch.float64))
        second.take(x, played[-1], unit)
    assert len(set(played)) == ARMS


def test_the_second_version_takes_the_arm_that_was_played():
    """Another arm than the one that was chosen: what is learned, with its chance, is of the arm that was played."""
    rng = np.random.default_rng(0)
    learner = make("contextual-epsilon-greedy", FACTS, runs=1, ridge=0.5, epsilon=0.3)
    second = PlainEpsilonGreedy(ARMS, D, "weighted", 0.5, epsilon=0.3)
    for t in range(60):
        x, unit = rng.uniform(-1, 1, D), rng.uniform()
        assert int(learner.act(torch.as_tensor(x[None]))[0]) == second.pick(x)
        learner.observe(torch.tensor([t % ARMS]), torch.tensor([LOW + (HIGH - LOW) * unit], dtype=torch.float64))
        second.take(x, t % ARMS, unit)
