"""What agents with an entropy bonus share: the temperature, the noise of two draws, the actor's step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_rl.networks import Adam, Parameters
from offline_rl.online.agent import OnlineAgent
from offline_rl.online.gaussian_policy import squashed_sample

__all__ = ["SoftAgent"]


class SoftAgent(OnlineAgent):
    """An agent adds its actor and critic (`_build`) and its update (`_step`).

    Its configuration has `initial_alpha`, `alpha_learning_rate` and `target_entropy`.
    """

    actor: Parameters
    actor_optimiser: Adam

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.log_alpha = torch.full((self.runs,), math.log(config.initial_alpha), dtype=self.dtype, device=self.device)
        self.alpha_optimiser = Adam([self.log_alpha], config.alpha_learning_rate)
        self.target_entropy = -float(self.action_dim) if config.target_entropy is None else config.target_entropy

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"policy_noise": (2, self.config.batch_size, self.action_dim)}

    def _ascend(self, obs: Tensor, mean: Tensor, std: Tensor, noise: Tensor, alpha: Tensor) -> None:
        """The actor's step down mean(alpha log pi - value), then the temperature's.

        Args:
            obs: (R, B, obs_dim).
            mean, std: (R, B, action_dim), of the policy at obs before its tanh, with their gradient.
            noise: (R, B, action_dim).
            alpha: (R, 1), of before this update.
        """
        action, density = squashed_sample(mean, std, noise)
        value = self.critic.actor_value(obs, action)
        loss = (alpha * density - value).mean(1)
        self.actor_optimiser.minimise(loss.sum())
        entropy = -density.detach().mean(1)
        self._move_temperature(entropy)
        self._record(actor_loss=loss, q_policy=value.mean(1), entropy=entropy, alpha=alpha[:, 0])

    def _move_temperature(self, entropy: Tensor) -> None:
        """One step of log alpha, in place, by Adam unless its rate is 0: entropy (R,)."""
        if self.config.alpha_learning_rate:
            # d/d log_alpha of -log_alpha mean(log pi + target entropy)
            self.alpha_optimiser.step([entropy - self.target_entropy])

    def _tensors(self) -> dict[str, Tensor]:
        named = {f"actor.{i}": p for i, p in enumerate(self.actor)}
        named |= {f"actor_adam.{name}": tensor for name, tensor in self.actor_optimiser.state().items()}
        named |= {"log_alpha": self.log_alpha}
        named |= {f"alpha_adam.{name}": tensor for name, tensor in self.alpha_optimiser.state().items()}
        return named | {f"critic.{name}": tensor for name, tensor in self.critic.state().items()}
