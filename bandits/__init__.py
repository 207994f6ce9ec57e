"""Learners judged by regret: bandits, online convex optimisation, episodic MDPs.

    from bandits import UCB1, make
    learner = UCB1(arms=10, runs=200)
    arm = learner.act()                      # (200,)
    learner.observe(arm, reward)             # (200,)

by name, for a problem that facts describe:

    learner = make("hedge", {"domain": ("simplex", {"dimension": 10}), "loss_low": 0.0, "loss_high": 1.0}, runs=200)
    weights = learner.act()                  # (200, 10)
    learner.observe(weights, losses)         # (200, 10)

or composed by hand:

    from bandits.online_learning import OMD, Ball, Euclidean, InverseSqrt
    learner = OMD(Euclidean(), Ball(5), InverseSqrt(1.0), runs=200)

Everything is float64, `runs` independent copies at once, on CPU or CUDA. Configurations are in `bandits.config`, which
needs no torch; classes are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bandits.multi_armed.ucb import UCB1 as UCB1
    from orbs import RegretLearner

_HOMES = {
    "FTRL": "bandits.online_learning.learner",
    "OMD": "bandits.online_learning.learner",
    "OptimisticFTRL": "bandits.online_learning.learner",
    "OptimisticOMD": "bandits.online_learning.learner",
    "UCB1": "bandits.multi_armed.ucb",
}

__all__ = [*_HOMES, "make"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bandits' has no attribute '{name}'")


def make(
    name: str,
    facts: Mapping[str, Any],
    runs: int | Sequence[int] = 1,
    seed: int = 0,
    device: str = "cpu",
    **hyperparameters: Any,
) -> RegretLearner:
    """A learner by name, for the problem that `facts` describes (`world.facts`).

    Args:
        name: of `bandits.config.CONFIGS`.
        facts: what it may know beforehand; which facts it needs, an error says.
        runs: how many independent copies, or their ids.
        seed: of its own randomness; the learners of online convex optimisation have none.
        device: where it lies.
        hyperparameters: fields of its configuration.

    Raises:
        ValueError: an unknown name or field, a fact that is missing, a domain that does not fit.
    """
    import difflib
    import importlib

    from bandits.config import CONFIGS
    from orbs import checked_fields, reject

    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else "orbs list shows them"
        reject("learner", f"one of {', '.join(CONFIGS)}", f"'{name}'", fix.rstrip("."))
    config = CONFIGS[name](**checked_fields(CONFIGS[name], hyperparameters, name))
    family = importlib.import_module(CONFIGS[name].family)
    learner: RegretLearner = family.build(config, facts, {"runs": runs, "seed": seed, "device": device})
    return learner
