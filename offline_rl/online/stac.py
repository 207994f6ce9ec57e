"""STAC: stochastic actor-critic, pessimistic about the one-step spread of its target (Ozalp, arXiv 2601.00737).

Every update: one Gaussian critic (`offline_rl.critics.gaussian`) learns the mean and deviation of
r + gamma (mu' - beta sigma' - alpha log pi), its slow copy moves, the actor ascends mu - beta sigma - alpha log pi, the
temperature takes a step. Dropout before LayerNorm in both networks, on in the slow critic and while exploring. The
author's code (ugurcanozalp/rl-warehouse); ESTAC is critics=2. Deliberate differences: evaluation takes tanh of the mean
unless asked for the author's average of 10 samples; the temperature is capped, which his rule needs where it diverges;
the first update follows the last random step, one step before his.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_rl.critics import Batch, GaussianCritic
from offline_rl.critics.gaussian import floored_std
from offline_rl.dropout_stack import Dropout, dropout_stack, init_dropout_stack, masks_from_gaps, uniforms_per_mask
from offline_rl.networks import Adam
from offline_rl.online.agent import INTERACTION_BLOCK
from offline_rl.online.config import STACConfig
from offline_rl.online.gaussian_policy import log_density, squashed_sample
from offline_rl.online.soft import SoftAgent

__all__ = ["STAC", "temperature_step"]

EVALUATION_SAMPLES = 10


def temperature_step(log_alpha: Tensor, gap: Tensor, rate: float, rule: str) -> Tensor:
    """log alpha after one step by the rules without an optimiser; gap = target entropy - entropy, all (R,).

    "stac": alpha exp(rate alpha gap), which diverges in finite time under a constant positive gap; "exp": alpha
    exp(rate gap).
    """
    return log_alpha + rate * gap * (log_alpha.exp() if rule == "stac" else 1.0)


class STAC(SoftAgent):
    """STAC. See `OnlineAgent` for the arguments and `STACConfig` for the hyperparameters."""

    name = "stac"
    config_class = STACConfig

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.distinct = config.distinct
        sizes = (self.obs_dim, *config.hidden, 2 * self.action_dim)
        self.actor = init_dropout_stack(self.philox, "actor", sizes, dtype=self.dtype)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.dropout = Dropout(self.philox, "dropout.actor", config.actor_dropout, config.hidden, dtype=self.dtype)
        self._acting_block, self._acting_masks = -1, list[tuple[Tensor, ...]]()
        self.critic = GaussianCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            config.discount,
            config.tau,
            config.learning_rate,
            self.dtype,
            config.beta,
            config.critic_dropout,
            config.target_dropout,
            members=config.critics,
            combine="single" if config.critics == 1 else "min_mean",
        )

    def _random(self, first: int, count: int) -> Tensor:
        return torch.tanh(self.philox.normal("random_action", first, count, self.action_dim, self.dtype))

    def _distribution(self, obs: Tensor, masks: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation before the tanh, (R, n, action_dim) each."""
        mean, raw = dropout_stack(obs, self.actor, masks).chunk(2, dim=-1)
        return mean, floored_std(raw)

    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        mean, std = self._distribution(obs, self._exploring_masks())
        return torch.tanh(torch.addcmul(mean, std, noise))

    def _exploring_masks(self) -> list[Tensor] | None:
        """One (R, 1, width) a hidden layer, of interaction number interactions + 1, drawn a block at a time."""
        p, block = self.config.actor_dropout, INTERACTION_BLOCK
        if p == 0.0:
            return None
        number, place = divmod(self.interactions, block)
        if number != self._acting_block:
            self._acting_block, self._acting_masks = number, []
            for layer, width in enumerate(self.config.hidden):
                count, purpose = uniforms_per_mask(width, p), f"dropout.acting.{layer}"
                uniform = self.philox.uniform(purpose, number * block + 1, block, count, torch.float64)
                masks = masks_from_gaps(uniform.reshape(-1, count), width, p, self.dtype)
                self._acting_masks.append(masks.view(self.runs, block, 1, width).unbind(1))
        return [masks[place] for masks in self._acting_masks]

    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self._distribution(obs, None)
        if not self._deterministic:
            noise = self._acting_noise("act", obs.shape[1])
        elif self.config.evaluation_action == "mean":
            noise = torch.zeros_like(mean).unsqueeze(0)
        else:
            noise = self._acting_noise("evaluation", obs.shape[1], EVALUATION_SAMPLES)
        u = mean + std * noise
        bonus = -self.log_alpha.exp().unsqueeze(1) * log_density(u, std, noise).mean(0)
        return torch.tanh(u).mean(0), bonus

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        self.dropout.begin(self.steps)
        rows = self.config.batch_size
        alpha = self.log_alpha.exp().unsqueeze(1)
        next_noise, noise_now = noise["policy_noise"].unbind(1)
        with torch.no_grad():
            distribution = self._distribution(batch.next_obs, self.dropout.masks("next", rows))
            next_action, next_density = squashed_sample(*distribution, next_noise)
        self._record(**self.critic.update(batch, next_action, bonus=-alpha * next_density))
        self.critic.sync_target()

        distribution = self._distribution(batch.obs, self.dropout.masks("now", rows))
        self._ascend(batch.obs, *distribution, noise_now, alpha)

    @torch.no_grad()
    def _move_temperature(self, entropy: Tensor) -> None:
        """As `SoftAgent._move_temperature`, by the configured rule, up to the cap."""
        config = self.config
        if not config.alpha_learning_rate:
            return
        if config.alpha_rule == "adam":
            super()._move_temperature(entropy)
        else:
            gap = self.target_entropy - entropy
            self.log_alpha.copy_(temperature_step(self.log_alpha, gap, config.alpha_learning_rate, config.alpha_rule))
        self.log_alpha.clamp_(max=math.log(config.alpha_cap))
