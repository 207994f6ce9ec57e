"""KL-UCB (Garivier and Cappe, COLT 2011, arXiv 1102.2490): the largest mean that the plays do not rule out.

The index is the largest q with n d(m, q) <= ln t + c ln ln t. The paper bisects; here Newton's method runs down a
convex function from a point above the root, a fixed number of steps, correct to 1e-12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bandits.arm_learner import log_or_zero
from bandits.multi_armed.arm_means import IndexLearner
from orbs import reject

__all__ = ["KLUCB", "kl_ucb_gaussian_index", "kl_ucb_index"]

CLIP = 1e-12  # how near a mean may be to 0 and 1
STEPS = 8


def kl_ucb_index(mean: Tensor, plays: Tensor, level: float) -> Tensor:
    """(R, K) the largest q in [mean, 1] with plays d(mean, q) <= level, d the divergence of Bernoulli distributions.

    Means in [0, 1], level >= 0; infinite where an arm was not played. Solved in u = -ln(1 - q), in which the divergence
    is convex and nearly linear far from the mean; Pinsker's inequality and d >= (1 - m) u - entropy(m) bound the root
    from above.
    """
    m = mean.clamp(CLIP, 1.0 - CLIP)
    c = level / plays.clamp_min(1.0)
    rest = 1.0 - m
    least = -torch.log1p(-m)
    entropy = rest * least - m * m.log()
    pinsker = -(rest - (0.5 * c).sqrt()).clamp_min(1e-300).log()
    u = torch.minimum((c + entropy) / rest, pinsker)
    for _ in range(STEPS):
        q = -torch.expm1(-u)
        divergence = rest * u - entropy - m * q.log()
        step = (divergence - c) * q / (q - m).clamp_min(1e-300)
        u = torch.maximum(torch.minimum(u, u - step), least)
    return torch.where(plays > 0, -torch.expm1(-u), torch.inf)


def kl_ucb_gaussian_index(mean: Tensor, plays: Tensor, level: float, scale: float) -> Tensor:
    """(R, K) the same for normal rewards of standard deviation `scale`: mean + scale sqrt(2 level / plays)."""
    return torch.where(plays > 0, mean + scale * (2.0 * level / plays).sqrt(), torch.inf)


class KLUCB(IndexLearner):
    """Each arm once in index order, then the largest index at the level ln t + c ln max(ln t, 1).

    Args:
        arms, runs, seed, device, low, high, ties: as for `IndexLearner`.
        c: 3 in the theorem, 0 in practice.
        scale: standard deviation of normal rewards; None takes the Bernoulli divergence, which needs a declared range.
    """

    label: ClassVar[str] = "kl-ucb"

    def __init__(
        self, arms: int, runs: int | Sequence[int] = 1, seed: int = 0, *, c: float = 0.0, scale: float | None = None,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(arms, runs, seed, **common)
        if scale is None:
            self._need_range(self.label)
        if not c >= 0:
            reject("c", "a number of at least 0", c, "e.g. 0 or 3")
        self.c, self.scale = c, scale

    def _index(self) -> Tensor:
        log = log_or_zero(self.rounds + 1)
        level = log + self.c * log_or_zero(log)
        if self.scale is None:
            return kl_ucb_index(self.means, self.plays, level)
        return kl_ucb_gaussian_index(self.means, self.plays, level, self.scale)
