"""Behaviour cloning: mean squared error to the data's action; with `top_fraction` on the best blocks alone ("10 % BC").

Source: CORL's any_percent_bc (Tarasov et al., arXiv 2210.07105). Deliberate difference: by default every row is
kept in order; CORL's filter at 1.0 drops an incomplete last block (set top_fraction=1.0 for that).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from offline_rl.blocks import block_edges
from offline_rl.config import BCConfig
from offline_rl.critics.interface import Batch
from offline_rl.learner import OfflineLearner
from offline_rl.networks import Adam, init_mlp, mlp
from orbs import Rows, reject

__all__ = ["BC", "behaviour_loss", "best_blocks"]


def behaviour_loss(policy_action: Tensor, action: Tensor) -> Tensor:
    """Mean over rows and coordinates of the squared error: two (R, B, action_dim) -> (R,)."""
    return (policy_action - action).square().mean((1, 2))


def best_blocks(reward: np.ndarray, terminal: np.ndarray, fraction: float, discount: float, horizon: int) -> np.ndarray:
    """Row numbers of the best max(1, floor(fraction * n)) of the n complete blocks, best block first.

    A block ends at a terminal row or after `horizon` rows; an incomplete last block is dropped.

    Args:
        reward, terminal: (N,).

    Raises:
        ValueError: there is no complete block.
    """
    edges = block_edges(terminal, horizon)
    if len(edges) == 1:
        reject("bc.top_fraction", "a complete block", f"{len(reward)} rows without one", "lower filter_horizon")
    blocks = [np.arange(start, end) for start, end in pairwise(edges)]
    returns = [float(np.sum(reward[b].astype(np.float64) * discount ** np.arange(len(b)))) for b in blocks]
    order = np.argsort(-np.asarray(returns), kind="stable")
    return np.concatenate([blocks[i] for i in order[: max(1, int(fraction * len(blocks)))]])


class BC(OfflineLearner):
    """Behaviour cloning. See `OfflineLearner` for the arguments and `BCConfig` for the hyperparameters."""

    name = "bc"
    config_class = BCConfig

    def _build(self) -> None:
        sizes = (self.obs_dim, *self.config.hidden, self.action_dim)
        self.actor = init_mlp(self.philox, "actor", sizes, dtype=self.dtype)
        self.actor_optimiser = Adam(self.actor, self.config.learning_rate)

    def _select(self, data: Rows) -> Rows:
        config = self.config
        if config.top_fraction is None:
            return data
        reward, terminal = (data.part(field, 0, len(data)) for field in ("reward", "terminal"))
        rows = best_blocks(reward, terminal, config.top_fraction, config.filter_discount, config.filter_horizon)
        return data.select(rows)

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * torch.tanh(mlp(obs, self.actor))

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        loss = behaviour_loss(self._policy(batch.obs), batch.action)
        self.actor_optimiser.minimise(loss.sum())
        self._record(actor_loss=loss)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        return named | {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
