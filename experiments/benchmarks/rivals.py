"""Rounds a second of bandit learners in MABWiser and coba, 10 arms and 10 dimensions; needs nothing but them and NumPy.

Run by the Python of an environment that has them: ``python rivals.py [ROUNDS] [PACKAGE ...]``; prints one JSON object.
Both play one run at a time, a round by a call to choose and a call to learn, as their users write such a loop (and
coba's own evaluators). LinUCB: coba a shared parameter over fixed features of the arms, MABWiser one model an arm over
contexts; the others play Bernoulli arms. Rewards are drawn before the clock starts. Processor seconds. The
environment is made by `experiments.benchmarks.rival_environment`.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ARMS = DIMENSION = 10


def mabwiser(rounds: int) -> dict[str, float]:
    """{learner: rounds a second} of predict and partial_fit."""
    from mabwiser.mab import MAB, LearningPolicy

    arms = list(range(ARMS))

    def linear() -> float:
        rng = np.random.default_rng(0)
        theta = rng.normal(size=(ARMS, DIMENSION))
        contexts, noise = rng.normal(size=(ARMS + rounds, DIMENSION)), 0.1 * rng.normal(size=ARMS + rounds)
        bandit = MAB(arms, LearningPolicy.LinUCB(alpha=1.0))
        first = [float(theta[arm] @ contexts[arm] + noise[arm]) for arm in arms]
        bandit.fit(arms, first, contexts[:ARMS])
        began = time.process_time()
        for x, e in zip(contexts[ARMS:], noise[ARMS:], strict=True):
            arm = bandit.predict([x])
            bandit.partial_fit([arm], [float(theta[arm] @ x + e)], [x])
        return rounds / (time.process_time() - began)

    def plain(policy: Any) -> float:
        rewards = _bernoulli(rounds)
        bandit = MAB(arms, policy)
        bandit.fit(arms, rewards[0].tolist())
        began = time.process_time()
        for reward in rewards[1:]:
            arm = bandit.predict()
            bandit.partial_fit([arm], [int(reward[arm])])
        return rounds / (time.process_time() - began)

    return {
        "LinUCB": linear(),
        "UCB1": plain(LearningPolicy.UCB1()),
        "EpsilonGreedy": plain(LearningPolicy.EpsilonGreedy()),
        "ThompsonSampling": plain(LearningPolicy.ThompsonSampling()),
    }


def coba(rounds: int) -> dict[str, float]:
    """{learner: rounds a second} of predict and learn."""
    from coba.learners import BanditEpsilonLearner, BanditUCBLearner, LinUCBLearner

    def play(learner: Any, actions: list[Any], reward: Callable[[int, Any], float]) -> float:
        began = time.process_time()
        for index in range(rounds):
            action, probability = learner.predict(None, actions)[:2]
            learner.learn(None, action, reward(index, action), probability)
        return rounds / (time.process_time() - began)

    rng = np.random.default_rng(0)
    theta, noise = rng.normal(size=DIMENSION), 0.1 * rng.normal(size=rounds)
    features = [tuple(map(float, u)) for u in rng.normal(size=(ARMS, DIMENSION))]
    means = {action: float(np.dot(theta, action)) for action in features}
    rewards, arms = _bernoulli(rounds), list(range(ARMS))
    return {
        "LinUCB": play(LinUCBLearner(alpha=1.0, features=["a"]), features, lambda i, a: means[a] + float(noise[i])),
        "BanditUCB": play(BanditUCBLearner(), arms, lambda i, a: float(rewards[i, a])),
        "BanditEpsilon": play(BanditEpsilonLearner(), arms, lambda i, a: float(rewards[i, a])),
    }


def _bernoulli(rounds: int) -> np.ndarray:
    """(1 + rounds, ARMS) rewards 0 or 1."""
    return (np.random.default_rng(0).random((1 + rounds, ARMS)) < np.linspace(0.1, 0.9, ARMS)).astype(int)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    found = {}
    for play in (mabwiser, coba):
        name = play.__name__
        if name in (sys.argv[2:] or (name,)):
            play(50)
            found[name] = {"rounds/s": play(rounds), "version": importlib.metadata.version(name)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
