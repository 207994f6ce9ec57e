"""PRDC: TD3 whose actor is pulled to the action of the nearest data row in [beta s, a] space.

Ran, Li, Zhang, Zhang, Yu, "Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
ICML 2023, arXiv 2306.06569. A large beta makes it TD3+BC, a small one borrows actions of other, similar states.
As the authors' code; where the paper differs there is an option (`penalty`, `q_normaliser`). Deliberate
differences: beta has no default, the reward of AntMaze is scaled (not the next state), ties go to the lowest row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.bc import behaviour_loss
from offline_rl.config import PRDCConfig
from offline_rl.critics import Batch
from offline_rl.nearest import NearestRow, NeighbourTable
from offline_rl.td3_bc import TD3BC

__all__ = ["PRDC", "joint_distance"]


def joint_distance(obs: Tensor, action: Tensor, near_obs: Tensor, near_action: Tensor, beta: float) -> Tensor:
    """Mean over rows of ||[beta s, a] - [beta s', a']||: four (R, B, .) -> (R,). The paper's penalty.

    The gradient at distance 0 is undefined; 1e-12 under the root makes it 0.
    """
    square = (beta * (obs - near_obs)).square().sum(-1) + (action - near_action).square().sum(-1)
    return torch.sqrt(square + 1e-12).mean(1)


class PRDC(TD3BC):
    """PRDC. See `OfflineLearner` for the arguments and `PRDCConfig` for the hyperparameters (beta is required)."""

    name = "prdc"
    config_class = PRDCConfig

    _search: NearestRow

    def _attached(self, obs: Tensor, action: Tensor) -> None:
        config = self.config
        obs, action = obs.contiguous(), action.contiguous()
        table = None
        if self.device.type == "cpu":
            table = NeighbourTable.cached(obs.numpy(), k=config.neighbours, progress=True)
        self._obs, self._action = obs, action
        self._search = NearestRow(obs, action, config.beta, config.k, table=table)

    def _shape_reward(self, reward: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.legacy_scale_next_state:
            return reward, self.config.reward_scale * next_obs + self.config.reward_shift
        return super()._shape_reward(reward, next_obs)

    @torch.no_grad()
    def _q_normaliser(self, batch: Batch, value: Tensor) -> Tensor:
        if self.config.q_normaliser == "data":
            value = self.critic.actor_value(batch.obs, batch.action)
        return super()._q_normaliser(batch, value)

    def _penalty(self, batch: Batch, action: Tensor) -> Tensor:
        config = self.config
        # A diverged run must not stop the others: it is searched with the data's action, its own loss stays NaN.
        point = action.detach()
        point = torch.where(torch.isfinite(point), point, batch.action)
        found, certified = self._search.query(batch.row, point)
        rows = found if config.k_rule == "mean_of_k" else found[..., -1:]
        near_action = self._action[rows].mean(-2)
        near_obs = self._obs[rows].mean(-2)
        distance = joint_distance(batch.obs, action.detach(), near_obs, near_action, config.beta)
        self._record(
            neighbour_distance=distance,
            target_shift=(near_action - batch.action).norm(dim=-1).mean(1),
            own_row_rate=(found[..., 0] == batch.row).to(self.dtype).mean(1),
            certified_rate=certified.to(self.dtype).mean(1),
        )
        if config.penalty == "joint_norm":
            return joint_distance(batch.obs, action, near_obs, near_action, config.beta)
        return behaviour_loss(action, near_action)
