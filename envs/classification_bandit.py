"""Classification data as a contextual bandit: rows are contexts, classes are arms, the right class pays 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.classification_data import contexts_of, load
from envs.contextual_bandit import ContextualWorld
from envs.regret_world import SingleWorld, between, known
from orbs import Philox, reject

__all__ = ["ORDERS", "ClassificationBandit", "shuffled", "single"]

ORDERS = ("random", "shuffled")
MIXES = 6  # multiplications of a shuffle: each spreads low bits upwards, and the shift after it downwards


def shuffled(philox: Philox, rows: int, first: int, rounds: int) -> Tensor:
    """(R, rounds) int64: the row of each round, every run in an order of its own in each pass over all rows.

    A keyed bijection of 0 .. 2^b - 1, the least such range that holds the rows, applied until it falls inside: an order
    is a function of (seed, run, pass) that needs no list. The orders are a small part of all, as of any generator.
    """
    bits = max(1, (rows - 1).bit_length())
    mask, shift = (1 << bits) - 1, (bits + 1) // 2
    index = torch.arange(first, first + rounds, device=philox.runs.device)
    passes = index // rows
    start = first // rows
    count = (first + rounds - 1) // rows - start + 1
    keys = philox.words("classification/orders", start, count, 2 * MIXES) & mask
    keys = keys[:, passes - start]  # (R, rounds, 2 MIXES)

    def mix(x: Tensor) -> Tensor:
        for i in range(MIXES):
            x = (x * (keys[..., 2 * i] | 1) + keys[..., 2 * i + 1]) & mask
            x = x ^ (x >> shift)
        return x

    x = mix((index % rows).expand(keys.shape[:2]))
    while bool((outside := x >= rows).any()):
        x = torch.where(outside, mix(x), x)
    return x


class ClassificationBandit(ContextualWorld):
    """Each round shows a row (d numbers) and pays 1 for its class, else 0.

    Contexts: columns of mean 0 and deviation 1 over all rows, constant ones left out, and a last coordinate 1. With
    label noise the round's class is a uniformly random one with that chance. Pseudo-regret is against the right class.

    Args:
        data: as for `envs.classification_data.load`.
        horizon, runs, seed, device: as for `RegretWorld`.
        order: "random", rows drawn with replacement; "shuffled", every row once a pass, in an order of its run's own.
        label_noise: in [0, 1].
        unit: contexts scaled to norm 1.

    Attributes:
        contexts: (N, d); labels: (N,) int64.

    Raises:
        ValueError: data that cannot be had or read, a value out of its range, an unknown order.
    """

    def __init__(
        self,
        data: str = "blobs",
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        order: str = "random",
        label_noise: float = 0.0,
        unit: bool = False,
    ) -> None:
        self.order = known("ClassificationBandit.order", order, ORDERS)
        self.label_noise = between("ClassificationBandit.label_noise", label_noise, 0.0, 1.0)
        if not isinstance(unit, bool):
            reject("ClassificationBandit.unit", "True or False", repr(unit), "e.g. unit=True")
        x, y = load(data)
        contexts = contexts_of(x, unit)
        arms, dimension = int(y.max()) + 1, contexts.shape[1]
        self.contexts, self.labels = torch.as_tensor(contexts, device=device), torch.as_tensor(y, device=device)
        self._columns = self.contexts.mT.contiguous()
        self._wrong = self.label_noise / arms
        self._right = torch.tensor(1.0 - self.label_noise + self._wrong, dtype=torch.float64, device=device)
        facts: dict[str, Any] = {
            "context_dimension": dimension, "feature_bound": float(self.contexts.norm(dim=1).max()),
            "context_low": float(contexts.min()), "context_high": float(contexts.max()),
            "reward_low": 0.0, "reward_high": 1.0,
        }  # fmt: skip
        super().__init__(arms, horizon, runs, seed, device, 2, facts, (dimension,))

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        count = len(self.labels)
        if self.order == "random":
            rows = self.philox.integers("classification/rows", count, first, rounds, 1)[..., 0]
        else:
            rows = shuffled(self.philox, count, first, rounds)
        label = self.labels[rows]
        if self.label_noise == 0.0:
            return rows, label, label
        u = self.philox.uniform("classification/noise", first, rounds, 1, torch.float64)[..., 0]
        # Where u is below the noise, u/noise is uniform in (0, 1).
        other = (u * (self.arms / self.label_noise)).long().clamp_max(self.arms - 1)
        return rows, label, torch.where(u < self.label_noise, other, label)

    def _context(self, row: tuple[Tensor, ...]) -> Tensor:
        return self._columns.index_select(1, row[0]).mT

    def _reward(self, arm: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.where(arm == row[1], self._right, self._wrong)
        return (arm == row[2]).double(), mean, self._right


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    return SingleWorld(ClassificationBandit, **arguments)
