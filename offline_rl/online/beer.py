"""BEER: a deterministic actor-critic whose critic's features obey a bound that the Bellman equation implies.

He, Zhou, Fang, Maghsudi, ICLR 2024, arXiv 2404.12754. The critic's loss and the bound are `offline_rl.critics.beer`'s;
this is the learner below it: deterministic policy gradient (Lillicrap et al., arXiv 1509.02971) with one critic, no
smoothing noise, actor and both targets every step, TD3's exploration. Deliberate differences from the authors' code:
networks and replay see actions scaled to [-1, 1] of the box; the bound has the configured discount, not 0.99; it is
+inf where a feature vector vanishes; the penalty is left out where its weight is 0; the first update follows the last
random step, one step before the authors'.
"""

from __future__ import annotations

from torch import Tensor

from offline_rl.critics import Batch, BEERRegularizer, TwinCritic
from offline_rl.online.config import BEERConfig
from offline_rl.online.deterministic import DeterministicAgent

__all__ = ["BEER"]


class BEER(DeterministicAgent):
    """BEER. See `OnlineAgent` for the arguments and `BEERConfig` for the hyperparameters."""

    name = "beer"
    config_class = BEERConfig

    def _build(self) -> None:
        super()._build()
        config = self.config
        base = TwinCritic(
            self.philox,
            self.obs_dim,
            self.action_dim,
            config.hidden,
            config.discount,
            config.tau,
            config.learning_rate,
            dtype=self.dtype,
            members=1,
        )
        self.critic = BEERRegularizer(
            base,
            config.beta,
            config.bound,
            mask_terminal=config.mask_terminal,
            bias_correct=config.bias_correct,
            policy=self._mean_action,
        )

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        self.critic.begin(self.steps)
        self._record(**self.critic.update(batch, self._slow_action(batch.next_obs)))
        self._ascend(batch.obs)
