"""LSVI-UCB (arXiv:1907.05388): optimistic least-squares value iteration, not robust, rewards regressed with the values.

At a temperature above 0 it is soft LSVI-UCB, whose policy and values are those of `bandits.mdp.dr_rpo`. Deliberate
differences: Q is clipped below at 0 too, ties are broken at random.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bandits.mdp.dr_rpo import DRRPO
from orbs import reject

__all__ = ["LSVIUCB"]


class LSVIUCB(DRRPO):
    """Q_h = <phi, Lambda^-1 sum phi (r + V_{h+1}(s'))> + beta sqrt(phi^T Lambda^-1 phi), clipped to [0, H - h].

    The regression of r + V is that of r plus that of V: `DRRPO` without a set, rewards regressed.

    Args:
        rewards: see `DRRPO`; used for pairs whose features are all 0 alone.
        features, steps, temperature, beta, ridge, fail, value_cap, runs, seed, device, ...: see `DRRPO`; `temperature`
            is 0 and `bonus` "elliptical" unless given.
    """

    _greedy = True

    def __init__(self, features: Tensor, steps: int, rewards: Tensor | None = None, **arguments: Any) -> None:
        for name in ("divergence", "form", "level", "regress"):
            if name in arguments:
                reject(name, "none: it is not robust, and regresses rewards", arguments[name], "take DRLSVIUCB")
        chosen = {"temperature": 0.0, "bonus": "elliptical", **arguments}
        super().__init__(features, steps, rewards, regress=True, divergence=None, **chosen)
