"""Follow the perturbed leader: play the best vertex for the losses so far plus noise.

Kalai and Vempala, J. Comput. Syst. Sci. 2005; uniform noise on a cube as in Slivkins, arXiv 1904.07272. With losses
in a range of length w and eps = 2 / (w sqrt(d T)) expected regret on the simplex is at most 2 w sqrt(d T) (our
derivation): eps w d / 2 bounds the chance that a round's losses, at most w d in all, move the choice, and noise costs
2 / eps once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bandits.arm_learner import Draws, one_hot
from bandits.online_learning.base import LARGEST, OnlineLearner
from bandits.online_learning.domains import Simplex
from orbs import Feedback, Philox, reject

__all__ = ["FPL"]


class FPL(OnlineLearner):
    """Plays total e_i with i = argmin of (losses so far + Z), Z uniform in [-1/eps, 1/eps]^d; ties to the lowest index.

    Args:
        domain: a simplex.
        epsilon: eps.
        draw: Z anew each "round", or "once", which is enough where losses do not answer to what is played.
        runs, device, low, high: as for `OnlineLearner`.
        seed: of its own random numbers, 0 .. 2^32 - 1.

    Raises:
        ValueError: another domain, an unknown way to draw, eps not above 0.
    """

    def __init__(
        self, domain: Simplex, epsilon: float, draw: str = "round", runs: int | Sequence[int] = 1, seed: int = 0,
        device: torch.device | str = "cpu", low: float = -LARGEST, high: float = LARGEST,
    ) -> None:  # fmt: skip
        super().__init__(domain, runs, device, low, high)
        if not isinstance(domain, Simplex):
            reject("domain", "a simplex", domain, "choose another learner, or distributions over experts")
        if not 0 < epsilon < math.inf:
            reject("epsilon", "a finite number above 0", epsilon, "mend it")
        if draw not in ("round", "once"):
            reject("draw", "'round' or 'once'", repr(draw), "choose one")
        self.total, self.epsilon, self.draw, self.seed = domain.total, float(epsilon), draw, seed
        philox = Philox(seed, self.run_ids, self.device, runs_last=True)
        self._draws = Draws(philox, "fpl/perturbation", domain.dimension)
        self._first = self._draws(0)
        self.losses = self._zeros()
        self._lead(0)

    def _lead(self, round: int) -> None:
        """Set the point of a round, counted from 0."""
        u = self._first if self.draw == "once" else self._draws(round)
        leader = (self.losses + (u * 2.0 - 1.0).div_(self.epsilon)).min(-1).indices
        self._point = one_hot(leader, self.shape[1]).mul_(self.total)

    def _take(self, gradient: Tensor, feedback: Feedback) -> None:
        self.losses += gradient
        self._lead(self.rounds + 1)

    def _loaded(self) -> None:
        self._lead(self.rounds)

    def _tensors(self) -> dict[str, Tensor]:
        return {"losses": self.losses}
