"""PRDC: TD3 whose actor is pulled to the action of the nearest data row in [beta s, a] space.

Ran, Li, Zhang, Zhang, Yu, "Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
ICML 2023, arXiv 2306.06569. A large beta makes it TD3+BC, a small one borrows actions of other, similar states.
As the authors' code; where the paper differs there is an option (`penalty`, `q_normaliser`). Deliberate
differences: beta has no default, the reward of AntMaze is scaled (not the next state), ties go to the lowest row.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable

import torch
from torch import Tensor

from offline_rl.bc import behaviour_loss
from offline_rl.config import PRDCConfig
from offline_rl.critics import Batch
from offline_rl.device_search import DeviceSearch
from offline_rl.nearest import NearestRow, NeighbourTable
from offline_rl.td3_bc import TD3BC

__all__ = ["PRDC", "joint_distance"]

# Searches among all rows that a recorded update has room for, at least, and blocks with a quarter of what there is room
# for before the room shrinks: each change is another recording.
LEAST_ROOM, PATIENCE = 64, 16


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

    search_method: str | None = None  # as of `NearestRow`
    _search: NearestRow

    def _attached(self, obs: Tensor, action: Tensor) -> None:
        config = self.config
        obs, action = obs.contiguous(), action.contiguous()
        try:
            table = NeighbourTable.cached(obs.cpu().numpy(), k=config.neighbours, progress=True)
        except ImportError:
            message = "prdc: without scipy, which makes the table of neighbours, every search looks at all rows"
            warnings.warn(message, stacklevel=2)
            table = None
        self._obs, self._action = obs, action
        self._search = NearestRow(obs, action, config.beta, config.k, table=table, method=self.search_method)
        self._low_needs = self._redone = 0

    def _advance(self, most: int) -> int:
        """As `OfflineLearner._advance`; on a GPU once more where a search did not prove all its answers."""
        search = self._search.device_search
        if search is None:
            return super()._advance(most)
        steps, counts = self.steps, dict(self._counts)
        sums = {name: total.clone() for name, total in self._sums.items()}
        state = {name: tensor.clone() for name, tensor in self._tensors().items()}
        search.waits = False
        search.reset()
        try:
            done = super()._advance(most)
        finally:
            search.waits = True
        left, needed = torch.stack((search.open, search.needed)).tolist()  # the one look at the device
        self._redone = self._redone + 1 if left else 0
        if self._redone == PATIENCE:
            message = "prdc: blocks are searched twice, exactly but slowly: too many rows are as near as the nearest"
            warnings.warn(message, stacklevel=3)
        if left:
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    tensor.copy_(state[name])
                for name, total in self._sums.items():
                    total.copy_(sums[name]) if name in sums else total.zero_()
            self.steps, self._counts = steps, {name: counts.get(name, 0) for name in self._counts}
            self._block(done)
        self._make_room(search, needed)
        return done

    def _make_room(self, search: DeviceSearch, needed: int) -> None:
        """Room for twice the searches that a batch of the last block needed; less than before only after a while."""
        queries = self.runs * self.config.batch_size
        want = max(LEAST_ROOM, 1 << (2 * needed).bit_length())
        now = queries if search.capacity is None else search.capacity
        self._low_needs = self._low_needs + 1 if 4 * want <= now else 0
        if needed > now or self._low_needs == PATIENCE or search.capacity is None:
            search.capacity, self._low_needs = min(want, queries), 0

    def _recorded_for(self) -> tuple[Hashable, ...]:
        search = self._search.device_search
        return *super()._recorded_for(), search and search.capacity

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
