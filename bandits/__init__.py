"""Learners judged by regret: bandits, online convex optimisation, episodic MDPs.

    from bandits import make
    learner = make("hedge", {"domain": ("simplex", {"dimension": 10}), "loss_low": 0.0, "loss_high": 1.0}, runs=200)
    weights = learner.act()                  # (200, 10)
    learner.observe(weights, losses)         # (200, 10)

or composed by hand:

    from bandits.online_learning import OMD, Ball, Euclidean, InverseSqrt
    learner = OMD(Euclidean(), Ball(5), InverseSqrt(1.0), runs=200)

Everything is float64, `runs` independent copies at once, on CPU or CUDA. Configurations are in `bandits.config`, which
needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orbs import RegretLearner

__all__ = ["make"]


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

    from bandits.config import CONFIGS
    from bandits.online_learning.named import build
    from orbs import checked_fields, reject

    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else "orbs list shows them"
        reject("learner", f"one of {', '.join(CONFIGS)}", f"'{name}'", fix.rstrip("."))
    config = CONFIGS[name](**checked_fields(CONFIGS[name], hyperparameters, name))
    return build(config, facts, {"runs": runs, "device": device})
