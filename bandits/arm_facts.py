"""From the facts of a problem with arms to the arguments that every learner of arms shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bandits.facts import Facts
from orbs import reject

__all__ = ["arm_arguments", "noise_scale", "ranged"]


def arm_arguments(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """{"arms": K, "low": .., "high": ..}; the range only where the problem states one.

    Raises:
        ValueError: a problem without arms.
    """
    if facts.get("arms") is None or facts.get("domain", ("arms",))[0] != "arms":
        given = ", ".join(sorted(facts)) if facts.get("arms") is None else f"points of a {facts['domain'][0]}"
        reject(name, "a problem with arms (bandit feedback)", given, "choose another learner or problem")
    found: dict[str, Any] = {"arms": int(facts["arms"])}
    if facts.get("reward_low") is not None and facts.get("reward_high") is not None:
        found |= {"low": float(facts["reward_low"]), "high": float(facts["reward_high"])}
    return found


def noise_scale(facts: Facts, given: float | None) -> float:
    """What scales a bonus made for rewards in [0, 1]: 1 where rewards have a range, else the noise's deviation."""
    if given is not None:
        return given
    return 1.0 if ranged(facts.facts) else facts("noise")


def ranged(facts: Mapping[str, Any]) -> bool:
    """Whether rewards lie in a stated range of some length, as `ArmLearner.bounded` has it."""
    low, high = facts.get("reward_low"), facts.get("reward_high")
    return low is not None and high is not None and -math.inf < low < high < math.inf
