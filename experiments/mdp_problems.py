"""Problems of episodes by name: a round is an episode, an action a policy. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.problem import Problem

__all__ = ["MDPS"]

_SET = {
    "divergence": "tv, kl, chi2 or off (tv)",
    "form": "constrained or regularised (constrained)",
}
_OFF_DYNAMICS = {
    "norm": "of xi: an action's chance of the goal is 0.3 - norm to 0.3 + norm (0.2)",
    **_SET,
    "level": "radius of the first step's fourth law, or weight (0.5)",
    "softness": "chance that the goal fails (0); without it KL and chi2 cannot move it",
}
_RANDOM = {
    "instance": "its number (5)", "steps": "of an episode (4)", "states": "how many (8)", "actions": "how many (4)",
    "dimension": "of the features (4)", **_SET, "level": "radius or weight of all laws (0.2)",
}  # fmt: skip
_PUT = {
    "steps": "of an episode (10)", "dimension": "anchors of the features (20)", "level": "radius of all laws (0.5)",
    "divergence": "tv, kl or chi2, for robust learners (tv)", "form": "constrained or regularised (constrained)",
    "cap": "of the hold value: steps (as released) or payoff (steps)",
}  # fmt: skip
_ADVERSARIAL = {
    "instance": "its number (0)",
    "model": "random or tabular (random)",
    "steps": "of an episode (3)",
    "states": "how many (6)",
    "actions": "how many (4)",
    "dimension": "of the features (4)",
    "noise": "off, or bernoulli losses (off)",
    "feedback": "bandit or full (bandit)",
}


def _robust(name: str, about: str, world: str, known: Mapping[str, str], targets: str = "") -> Problem:
    return Problem(name, about, world, {}, known, metric="regret/policy", targets=targets)


def _adversarial(kind: str, about: str, horizon: str = "") -> Problem:
    world = "envs.adversarial_mdp:AdversarialMDP"
    return Problem(f"adversarial-mdp-{kind}", about, world, {"adversary": kind}, _ADVERSARIAL, horizon)


MDPS: tuple[Problem, ...] = (
    _robust(
        "off-dynamics",
        "robust linear MDP of five states, judged in its worst case and in perturbed targets",
        "envs.off_dynamics:OffDynamics",
        _OFF_DYNAMICS,
        "perturbation q: share of the goal's chance that fails",
    ),
    _robust("robust-mdp-random", "a random robust linear MDP", "envs.off_dynamics:RandomRobustMDP", _RANDOM),
    _robust(
        "american-put",
        "American put option: hold or exercise, prices move otherwise in the targets",
        "envs.american_put:AmericanPut",
        _PUT,
        "chance that the price rises (0.5 in training)",
    ),
    Problem(
        "adversarial-mdp-chain",
        "chain of states: staying on costs more until its free end",
        "envs.adversarial_mdp:AdversarialMDP",
        {"model": "chain"},
        {name: _ADVERSARIAL[name] for name in ("steps", "actions", "noise", "feedback")},
    ),
    _adversarial("iid", "linear MDP with adversarial losses: i.i.d. around a mean"),
    _adversarial("doubling", "linear MDP with adversarial losses: two profiles in phases of doubling length"),
    _adversarial("phases", "linear MDP with adversarial losses: four profiles in turn", "each has a quarter of it"),
    _adversarial("drift", "linear MDP with adversarial losses: from one profile to another", "the way takes all of it"),
)
