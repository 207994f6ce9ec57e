"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al., ICML 2018, arXiv 1802.09477).

Every update the critic regresses on r + gamma min(Q1', Q2') at the smoothed target action; every second update the
actor ascends Q1 and the targets move. The authors' newest code; deliberate differences: networks and replay see
actions scaled to [-1, 1] of the box, which need not be symmetric (the authors' see the environment's, which differs
where the box is not [-1, 1]); a critic other than the twin can be plugged in; the first update follows the last random
step, one step before the authors'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.critics import Batch, make_critic
from offline_rl.online.config import TD3Config
from offline_rl.online.deterministic import DeterministicAgent

__all__ = ["TD3"]


class TD3(DeterministicAgent):
    """TD3. See `OnlineAgent` for the arguments and `TD3Config` for the hyperparameters."""

    name = "td3"
    config_class = TD3Config

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.critic = make_critic(
            config, self.philox, self.obs_dim, self.action_dim, config.hidden, self.dtype, policy=self._mean_action
        )

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"target_noise": (self.config.batch_size, self.action_dim)}

    @torch.no_grad()
    def _target_action(self, next_obs: Tensor, noise: Tensor) -> Tensor:
        """clip(target policy + clip(std noise, +-clip), -1, 1): next_obs (R, B, .), noise (R, B, action_dim)."""
        clip = self.config.noise_clip
        noise = (self.config.policy_noise * noise).clamp_(-clip, clip)
        return self._slow_action(next_obs).add_(noise).clamp_(-1.0, 1.0)

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        self._record(**self.critic.update(batch, self._target_action(batch.next_obs, noise["target_noise"])))
        if self.steps % self.config.policy_period == 0:
            self._ascend(batch.obs)
