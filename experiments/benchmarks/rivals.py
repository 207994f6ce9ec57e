"""Rounds a second of LinUCB in MABWiser and coba, 10 arms and 10 dimensions; needs nothing but them and NumPy.

Run by the Python of an environment that has them: ``python rivals.py [ROUNDS]``; prints one JSON object. Both play one
run at a time: coba a shared parameter over fixed features of the arms, MABWiser one model an arm over contexts.
`experiments.benchmarks.bandit_speed --rivals` makes the environment and calls this.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time

import numpy as np

ARMS = DIMENSION = 10


def mabwiser(rounds: int) -> float:
    """Rounds a second of predict and partial_fit."""
    from mabwiser.mab import MAB, LearningPolicy

    rng = np.random.default_rng(0)
    theta, arms = rng.normal(size=(ARMS, DIMENSION)), list(range(ARMS))
    contexts = rng.normal(size=(ARMS + rounds, DIMENSION))
    noise = 0.1 * rng.normal(size=ARMS + rounds)
    bandit = MAB(arms, LearningPolicy.LinUCB(alpha=1.0))
    first = [float(theta[arm] @ contexts[arm] + noise[arm]) for arm in arms]
    bandit.fit(arms, first, contexts[:ARMS])
    began = time.perf_counter()
    for x, e in zip(contexts[ARMS:], noise[ARMS:], strict=True):
        arm = bandit.predict([x])
        bandit.partial_fit([arm], [float(theta[arm] @ x + e)], [x])
    return rounds / (time.perf_counter() - began)


def coba(rounds: int) -> float:
    """Rounds a second of predict and learn."""
    from coba.learners import LinUCBLearner

    rng = np.random.default_rng(0)
    theta, noise = rng.normal(size=DIMENSION), 0.1 * rng.normal(size=rounds)
    actions = [tuple(map(float, u)) for u in rng.normal(size=(ARMS, DIMENSION))]
    means = {action: float(np.dot(theta, action)) for action in actions}
    learner = LinUCBLearner(alpha=1.0, features=["a"])
    began = time.perf_counter()
    for e in noise:
        action, probability = learner.predict(None, actions)[:2]
        learner.learn(None, action, means[action] + float(e), probability)
    return rounds / (time.perf_counter() - began)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    found = {}
    for play in (mabwiser, coba):
        play(50)
        name = play.__name__
        found[name] = {"rounds/s": play(rounds), "version": importlib.metadata.version(name)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
