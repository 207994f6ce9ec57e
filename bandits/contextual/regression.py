"""Ridge regression of arms on contexts, online: of each arm on its own rows, or of all arms on the same rows.

Inverses and weights follow each row by a rank-one step (Sherman-Morrison; recursive least squares), and are made anew
from the exact sums by `rebuild`, before rounding adds up. Unlike elsewhere all lies with the runs first in memory,
where what the played arm has is one piece: runs last took 1.5 (1000 runs, 10 arms, d = 10) to 2.5 times as long a round
(20 runs, d = 64). Sums go along the last, contiguous axis: their order, and so the bits, does not hang on the number of
runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orbs import runs_last

__all__ = ["REBUILD", "ArmRidge", "SharedRidge", "linear_scores"]

REBUILD = 100  # rows between two times that all is solved anew


def linear_scores(weights: Tensor, x: Tensor) -> Tensor:
    """(R, K) <w_a, x> of weights (R, K, d) and contexts x (R, d), runs last in memory."""
    return runs_last((weights * x.unsqueeze(1)).sum(-1))


class _Ridge:
    """What both kinds share: sums, what follows from them, and `rebuild`.

    Args:
        like: (R, .), says how many runs there are, and where.
        arms: K.
        dimension: d.
        ridge: above 0.
        matrices: one an arm, or one in all.
    """

    def __init__(self, like: Tensor, arms: int, dimension: int, ridge: float, matrices: int) -> None:
        self.runs, self.arms, self.dimension = like.shape[0], arms, dimension
        self.target = torch.zeros(self.runs, arms, dimension, dtype=torch.float64, device=like.device)
        self.weights = self.target.clone()
        eye = torch.eye(dimension, dtype=torch.float64, device=like.device)
        self._eye = eye
        self.gram = (ridge * eye).repeat(self.runs, matrices, 1, 1)
        self.inverse = (eye / ridge).repeat(self.runs, matrices, 1, 1)

    def predict(self, x: Tensor) -> Tensor:
        """(R, K) <w_a, x> for contexts x (R, d)."""
        return linear_scores(self.weights, x)

    def rebuild(self) -> None:
        """Inverse and weights from the exact sums."""
        factor = torch.linalg.cholesky_ex(self.gram)[0]  # the checking kind would make a device wait
        # Not cholesky_inverse, whose rounding depends on a matrix's place among the others.
        self.inverse.copy_(torch.cholesky_solve(self._eye.expand_as(factor), factor))
        self.weights.copy_(torch.cholesky_solve(self.target.unsqueeze(-1), factor).squeeze(-1))

    def tensors(self) -> dict[str, Tensor]:
        return {"gram": self.gram, "inverse": self.inverse, "target": self.target, "weights": self.weights}


class ArmRidge(_Ridge):
    """w_a = G_a^-1 c_a with G_a = ridge I + sum of w x x^T and c_a = sum of w y x over the rows of arm a.

    Args:
        like, arms, dimension, ridge: as for `_Ridge`.

    Attributes:
        gram, inverse: (R, K, d, d); target, weights: (R, K, d).
    """

    def __init__(self, like: Tensor, arms: int, dimension: int, ridge: float) -> None:
        super().__init__(like, arms, dimension, ridge, matrices=arms)
        self._first = arms * torch.arange(self.runs, device=like.device)

    def squared_widths(self, x: Tensor) -> Tensor:
        """(R, K) x^T G_a^-1 x for contexts x (R, d)."""
        x = x.contiguous()
        outer = (x.unsqueeze(1) * x.unsqueeze(2)).view(self.runs, 1, -1)
        return runs_last((self.inverse.view(self.runs, self.arms, -1) * outer).sum(-1))

    def add(self, arm: Tensor, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """A row (x (R, d), y (R,)) of each run's arm, (R,), with a weight (R,), 1 if None."""
        d, rows, x = self.dimension, self._first + arm, x.contiguous()
        inverse, gram = self.inverse.view(-1, d * d), self.gram.view(-1, d * d)
        weights, target = self.weights.view(-1, d), self.target.view(-1, d)

        own = inverse.index_select(0, rows).view(-1, d, d)
        z = (own * x.unsqueeze(1)).sum(-1)
        spread = (z * x).sum(-1)
        share = 1.0 / (1.0 + spread) if weight is None else weight / (1.0 + weight * spread)
        # The product of z with itself first: it is symmetric to the last bit.
        own.sub_((z.unsqueeze(1) * z.unsqueeze(2)).mul_(share.view(-1, 1, 1)))
        inverse.index_copy_(0, rows, own.view(-1, d * d))
        coefficients = weights.index_select(0, rows)
        gain = share * (y - (coefficients * x).sum(-1))
        weights.index_copy_(0, rows, coefficients + z * gain.unsqueeze(-1))

        heavy = x if weight is None else x * weight.unsqueeze(-1)
        gram.index_add_(0, rows, (heavy.unsqueeze(1) * x.unsqueeze(2)).view(-1, d * d))
        target.index_add_(0, rows, heavy * y.unsqueeze(-1))


class SharedRidge(_Ridge):
    """w_a = G^-1 c_a with G = ridge I + sum of x x^T and c_a = sum of y_a x: every row counts for every arm.

    Args:
        like, arms, dimension, ridge: as for `_Ridge`.

    Attributes:
        gram, inverse: (R, 1, d, d); target, weights: (R, K, d).
    """

    def __init__(self, like: Tensor, arms: int, dimension: int, ridge: float) -> None:
        super().__init__(like, arms, dimension, ridge, matrices=1)

    def add(self, x: Tensor, y: Tensor) -> None:
        """A row: contexts x (R, d) with a value of each arm, y (R, K)."""
        excess, x = y - self.predict(x), x.contiguous()
        z = (self.inverse[:, 0] * x.unsqueeze(1)).sum(-1)
        share = 1.0 / (1.0 + (z * x).sum(-1))
        self.inverse[:, 0].sub_((z.unsqueeze(1) * z.unsqueeze(2)).mul_(share.view(-1, 1, 1)))
        self.weights.addcmul_(excess.unsqueeze(-1), (z * share.unsqueeze(-1)).unsqueeze(1))
        self.gram[:, 0].addcmul_(x.unsqueeze(1), x.unsqueeze(2))
        self.target.addcmul_(y.unsqueeze(-1), x.unsqueeze(1))
