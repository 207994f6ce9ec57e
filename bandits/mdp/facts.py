"""From the facts of a problem of episodes to the arguments that every learner of it shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orbs import reject

__all__ = ["features_of", "mdp_arguments"]


def mdp_arguments(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """{"states": S, "actions": A, "steps": H}.

    Raises:
        ValueError: a problem that is no MDP.
    """
    if facts.get("states") is None or facts.get("episode_length") is None:
        there = ", ".join(sorted(facts))
        reject(name, "a problem of episodes (an MDP)", f"one with {there}", "choose another learner or problem")
    return {
        "states": int(facts["states"]), "actions": int(facts["actions"]), "steps": int(facts["episode_length"]),
    }  # fmt: skip


def features_of(name: str, facts: Mapping[str, Any], device: torch.device | str) -> Tensor:
    """The features (S, A, d), (H, S, A, d) or (R, H, S, A, d); unit vectors, d = S A, where the problem has none."""
    if facts.get("features") is not None:
        return torch.as_tensor(facts["features"], dtype=torch.float64, device=device)
    states, actions = int(facts["states"]), int(facts["actions"])
    if states * actions > 1024:
        given = f"{states} states, {actions} actions and no features"
        reject(name, "features, or at most 1024 pairs (s, a)", given, "choose another learner or problem")
    return torch.eye(states * actions, dtype=torch.float64, device=device).view(states, actions, -1)
