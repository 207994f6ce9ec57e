"""SAC: soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv 1812.05905).

Every update: the twin critic regresses on r + gamma (min Q' - alpha log pi) at an action drawn from the policy, the
actor descends alpha log pi - min Q, the temperature follows the entropy, the slow critics move. Deliberate differences
from common code: the critic's loss is the sum of both mean squared errors, without a factor 1/2 (Adam hardly sees it);
critic, actor and temperature steps of one update all use the temperature of before it; the log-density is exact, not
log(1 - a^2 + 1e-6).
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.critics import Batch, TwinCritic
from offline_rl.networks import Adam, init_mlp, mlp
from offline_rl.online.config import SACConfig
from offline_rl.online.gaussian_policy import log_density, squashed_sample
from offline_rl.online.soft import SoftAgent

__all__ = ["LOG_STD_MAX", "LOG_STD_MIN", "SAC"]

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class SAC(SoftAgent):
    """SAC. See `OnlineAgent` for the arguments and `SACConfig` for the hyperparameters."""

    name = "sac"
    config_class = SACConfig

    def _build(self) -> None:
        super()._build()
        config = self.config
        sizes = (self.obs_dim, *config.hidden, 2 * self.action_dim)
        self.actor = init_mlp(self.philox, "actor", sizes, dtype=self.dtype)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.critic = TwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            config.discount,
            config.tau,
            config.learning_rate,
            actor_value="min",
            dtype=self.dtype,
        )

    def _distribution(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation before the tanh, (R, n, action_dim) each."""
        mean, log_std = mlp(obs, self.actor).chunk(2, dim=-1)
        return mean, torch.exp(torch.clamp(log_std, LOG_STD_MIN, LOG_STD_MAX))

    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        mean, std = self._distribution(obs)
        return torch.tanh(torch.addcmul(mean, std, noise))

    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self._distribution(obs)
        noise = torch.zeros_like(mean) if self._deterministic else self._acting_noise("act", obs.shape[1])[0]
        u = torch.addcmul(mean, std, noise)
        return torch.tanh(u), -self.log_alpha.exp().unsqueeze(1) * log_density(u, std, noise)

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        alpha = self.log_alpha.exp().unsqueeze(1)
        next_noise, noise_now = noise["policy_noise"].unbind(1)
        with torch.no_grad():
            next_action, next_density = squashed_sample(*self._distribution(batch.next_obs), next_noise)
        self._record(**self.critic.update(batch, next_action, bonus=-alpha * next_density))

        self._ascend(batch.obs, *self._distribution(batch.obs), noise_now, alpha)
        self.critic.sync_target()
