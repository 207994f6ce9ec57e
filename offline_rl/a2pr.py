"""A2PR: TD3 pulled to the better of the data's action and that of a VAE trained on above-average actions alone.

Liu, Li, Lan, Gao, Pan, Xu, "Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning",
ICML 2024, arXiv 2405.19909. Rows where neither action beats the state's value are not regularised at all.
As the authors' code; what the paper's text suggests instead are options (`detach_vae_target`, `vae_source`,
`fresh_value`, `advantage_threshold`). Deliberate difference: an action box that is not symmetric is allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offline_rl.config import A2PRConfig
from offline_rl.critics import Batch, make_critic, td_target
from offline_rl.learner import OfflineLearner
from offline_rl.networks import (
    Adam,
    Parameters,
    clone_parameters,
    cropped,
    init_mlp,
    leading_rows,
    mlp,
    padded,
    polyak,
    take_rows,
)
from offline_rl.td3_bc import scaled_value_loss, smoothed_action

__all__ = ["A2PR", "advantage_weight", "choose_target", "gated_penalty", "vae_loss", "value_loss"]

LOG_STD_MIN, LOG_STD_MAX = -4.0, 15.0
PRIOR_CLIP = 0.5


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of (V - y_V)^2: two (R, B) -> (R,)."""
    return (value - target).square().mean(1)


def advantage_weight(q_data: Tensor, value: Tensor, weight: float, threshold: float) -> Tensor:
    """weight where Q(s, a) - V(s) is strictly above threshold, else 0: two (R, B) -> (R, B)."""
    return weight * (q_data > value + threshold).to(q_data.dtype)


def vae_loss(
    reconstruction: Tensor, action: Tensor, weight: Tensor, mean: Tensor, log_std: Tensor, kl_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction + kl_weight * KL to N(0, I), and both parts: three (R,).

    Rows of weight 0 count in the denominators and in the KL part, but may be missing from the reconstruction.

    Args:
        reconstruction, action: (R, K, action_dim), K <= B rows that include all of weight above 0.
        weight: (R, K).
        mean, log_std: (R, B, latent), of the posterior.
    """
    entries = mean.shape[1] * action.shape[2]
    square = (weight.unsqueeze(-1) * (reconstruction - action).square()).sum((1, 2)) / entries
    kl = -0.5 * (1.0 + 2.0 * log_std - mean.square() - torch.exp(2.0 * log_std)).mean((1, 2))
    return square + kl_weight * kl, square, kl


def choose_target(q_vae: Tensor, q_data: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the VAE's action is the target, and whether the row is regularised: three (R, B) -> two (R, B) bool.

    The VAE wins ties; it opens the gate at Q >= V, the data's action at Q > V alone, as in the authors' code.
    """
    return q_vae - value >= q_data - value, (q_vae >= value) | (q_data > value)


def gated_penalty(action: Tensor, target: Tensor, gate: Tensor) -> Tensor:
    """Mean over rows and coordinates of gate (pi - target)^2: (R, B, d), (R, B, d), (R, B) bool -> (R,)."""
    return (gate.unsqueeze(-1).to(action.dtype) * (action - target).square()).mean((1, 2))


class A2PR(OfflineLearner):
    """A2PR. See `OfflineLearner` for the arguments and `A2PRConfig` for the hyperparameters."""

    name = "a2pr"
    config_class = A2PRConfig

    def _build(self) -> None:
        config, philox, obs, act = self.config, self.philox, self.obs_dim, self.action_dim
        self.latent_dim = 2 * act
        self.actor = init_mlp(philox, "actor", (obs, *config.hidden, act), dtype=self.dtype)
        self.actor_target = clone_parameters(self.actor)
        self.actor_optimiser = Adam(self.actor, config.learning_rate)
        self.critic = make_critic(config, philox, obs, act, config.critic_hidden, self.dtype, policy=self._policy)
        self.value = init_mlp(philox, "value", (obs, *config.critic_hidden, 1), dtype=self.dtype)
        self.value_optimiser = Adam(self.value, config.value_learning_rate)
        # The two heads, mean and log std, are one layer of twice the width: the same initialisation and updates.
        widths = config.vae_hidden
        encoder = init_mlp(philox, "vae_encoder", (obs + act, *widths, 2 * self.latent_dim), dtype=self.dtype)
        decoder = init_mlp(philox, "vae_decoder", (obs + self.latent_dim, *widths, act), dtype=self.dtype)
        # What is computed with is padded; what is saved and seen from outside is its part that counts.
        self._encoder, self._decoder = padded(encoder), padded(decoder)
        self.encoder, self.decoder = (
            cropped(wide, [p.shape for p in plain])
            for wide, plain in ((self._encoder, encoder), (self._decoder, decoder))
        )
        shapes = [p.shape for p in (*encoder, *decoder)]
        self.vae_optimiser = Adam(self._encoder + self._decoder, config.vae_learning_rate, shapes=shapes)
        # Rows that contribute nothing are left out where a shape may depend on the data: not on CUDA, where the host
        # would have to wait for the device.
        self._skip_rows = self.device.type == "cpu"

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        rows, latent = self.config.batch_size, (self.config.batch_size, self.latent_dim)
        return {"target_noise": (rows, self.action_dim), "vae_noise": latent, "vae_target_noise": latent}

    def _policy(self, obs: Tensor) -> Tensor:
        return self._box(mlp(obs, self.actor))

    def _box(self, x: Tensor) -> Tensor:
        """tanh stretched over the action box."""
        return self.action_centre + self.action_scale * torch.tanh(x)

    def _encode(self, obs: Tensor, action: Tensor, encoder: Parameters) -> tuple[Tensor, Tensor]:
        """Mean and log std of the posterior, (R, B, latent_dim) each."""
        heads = mlp(torch.cat((obs, action), -1), encoder, skip_rows=self._skip_rows)
        mean, log_std = heads.chunk(2, -1)
        return mean, torch.clamp(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def _decode(self, obs: Tensor, latent: Tensor, decoder: Parameters) -> Tensor:
        """(R, B, action_dim) in the environment's units."""
        return self._box(mlp(torch.cat((obs, latent), -1), decoder, skip_rows=self._skip_rows))

    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        config = self.config
        self.critic.begin(self.steps)
        with torch.no_grad():
            next_action = smoothed_action(
                self._box(mlp(batch.next_obs, self.actor_target)),
                noise["target_noise"],
                config.policy_noise,
                config.noise_clip,
                self.action_scale,
                self.action_low,
                self.action_high,
            )
        target = self.critic.td_target(batch, next_action)
        self._record(**self.critic.update(batch, next_action, target=target))
        value = self._value_step(batch, next_action, target)
        with torch.no_grad():
            q_data = self.critic.actor_value(batch.obs, batch.action)
        self._vae_step(batch, q_data, value, noise["vae_noise"])
        if self.steps % config.policy_period == 0:
            self._actor_step(batch, q_data, value, noise["vae_target_noise"])
            self.critic.sync_target()
            polyak(self.actor_target, self.actor, config.tau)

    def _value_step(self, batch: Batch, next_action: Tensor, target: Tensor) -> Tensor:
        """One step of V towards the smaller of the critic's target and the fresh one; the baseline V(s), (R, B)."""
        fresh = self.critic.online_value(batch.next_obs, next_action)
        fresh = td_target(batch.reward, batch.terminal, fresh, self.config.discount)
        value = mlp(batch.obs, self.value).squeeze(-1)
        loss = value_loss(value, torch.minimum(fresh, target))
        self.value_optimiser.minimise(loss.sum())
        self._record(value_loss=loss, value=value.mean(1))
        if self.config.fresh_value:
            with torch.no_grad():
                return mlp(batch.obs, self.value).squeeze(-1)
        return value.detach()

    def _vae_step(self, batch: Batch, q_data: Tensor, value: Tensor, noise: Tensor) -> None:
        config = self.config
        weight = advantage_weight(q_data, value, config.vae_weight, config.advantage_threshold)
        mean, log_std = self._encode(batch.obs, batch.action, self._encoder)
        obs, action, latent = batch.obs, batch.action, mean + torch.exp(log_std) * noise
        if self._skip_rows:
            rows = leading_rows(weight > 0)
            obs, action, latent = (take_rows(x, rows) for x in (obs, action, latent))
            weight = weight.gather(1, rows)
        reconstruction = self._decode(obs, latent, self._decoder)
        loss, square, kl = vae_loss(reconstruction, action, weight, mean, log_std, config.kl_weight)
        self.vae_optimiser.minimise(loss.sum())
        self._record(
            vae_loss=loss,
            vae_reconstruction=square,
            vae_kl=kl,
            vae_log_std_max=log_std.detach().amax((1, 2)),
            advantage_rate=(q_data > value + config.advantage_threshold).to(self.dtype).mean(1),
        )

    def _actor_step(self, batch: Batch, q_data: Tensor, value: Tensor, noise: Tensor) -> None:
        action = self._policy(batch.obs)
        q = self.critic.actor_value(batch.obs, action)
        policy_loss, scale = scaled_value_loss(q, q.detach().abs().mean(1), self.config.alpha)
        penalty = torch.zeros_like(policy_loss)
        if self.config.bc_weight > 0:  # else 0 times whatever a VAE that overflows proposes would be NaN
            penalty = self.config.bc_weight * self._penalty(batch, action, q_data, value, noise)
        self.actor_optimiser.minimise((policy_loss + penalty).sum())
        self._record(actor_loss=policy_loss + penalty, penalty=penalty, q_policy=q.mean(1), scale=scale)

    def _vae_action(self, obs: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """The VAE's proposal for the policy's action, (R, B, action_dim); its own parameters are constants."""
        decoder = [p.detach() for p in self._decoder]
        if self.config.vae_source == "prior":
            return self._decode(obs, torch.clamp(noise, -PRIOR_CLIP, PRIOR_CLIP), decoder)
        # The authors' code leaves the graph whole: the gradient passes through the proposal into the action.
        action = action.detach() if self.config.detach_vae_target else action
        mean, log_std = self._encode(obs, action, [p.detach() for p in self._encoder])
        # Actions that the VAE has not seen: here it overflows first.
        self._record(vae_policy_log_std_max=log_std.detach().amax((1, 2)))
        return self._decode(obs, mean + torch.exp(log_std) * noise, decoder)

    def _penalty(self, batch: Batch, action: Tensor, q_data: Tensor, value: Tensor, noise: Tensor) -> Tensor:
        """(R,) gated squared distance of the policy from the better of the two actions."""
        proposal = self._vae_action(batch.obs, action, noise)
        with torch.no_grad():
            q_vae = self.critic.actor_value(batch.obs, proposal)
            take_vae, gate = choose_target(q_vae, q_data, value)
            gate_rate = gate.to(self.dtype).mean(1)
            self._record(
                vae_rate=take_vae.to(self.dtype).mean(1),
                gate_rate=gate_rate,
                effective_bc_weight=self.config.bc_weight * gate_rate,
                vae_distance=(action - proposal).norm(dim=-1).mean(1),
            )
        return gated_penalty(action, torch.where(take_vae.unsqueeze(-1), proposal, batch.action), gate)

    def _tensors(self) -> dict[str, Tensor]:
        networks = {
            "actor": self.actor,
            "actor_target": self.actor_target,
            "value": self.value,
            "vae_encoder": self.encoder,
            "vae_decoder": self.decoder,
        }
        states = {
            "actor_adam": self.actor_optimiser.state(),
            "value_adam": self.value_optimiser.state(),
            "vae_adam": self.vae_optimiser.state(),
            "critic": self.critic.state(),
        }
        named = {f"{name}.{i}": p for name, parameters in networks.items() for i, p in enumerate(parameters)}
        return named | {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()}
