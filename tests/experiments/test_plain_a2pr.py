"""The speed benchmark's plain A2PR does what offline_rl.A2PR does: same weights, rows and noise, same losses."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.plain_a2pr import PlainA2PR
from offline_rl import A2PR
from tests.offline_rl.reference import make_data

LOSSES = ("critic_loss", "value_loss", "vae_loss")


@torch.no_grad()
def transplant(learner, plain):
    def fill(net, parameters):
        linears = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
        for layer, weight, bias in zip(linears, parameters[::2], parameters[1::2], strict=True):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias[0])

    def run(parameters, member=0):
        return [p[member] for p in parameters]

    for net in (plain.actor, plain.actor_target):
        fill(net, run(learner.actor))
    for nets in (plain.critics, plain.critic_targets):
        for member, net in enumerate(nets):
            fill(net, run(learner.critic.parameters, member))
    fill(plain.value, run(learner.value))
    *trunk, weight, bias = run(learner.encoder)
    latent = learner.latent_dim
    fill(plain.vae.trunk, trunk)
    fill(plain.vae.mean, [weight[:, :latent], bias[:, :latent]])
    fill(plain.vae.log_std, [weight[:, latent:], bias[:, latent:]])
    fill(plain.vae.decoder, run(learner.decoder))


def test_the_plain_learner_has_the_same_losses(monkeypatch):
    data = make_data(rows=500)
    learner, plain = A2PR.for_dataset(data, alpha=40.0), PlainA2PR(data, alpha=40.0)
    transplant(learner, plain)
    rows, noise = learner._draw(6)
    draws = []
    for step in range(6):
        names = ["target_noise", "vae_noise", "vae_target_noise"][: 2 + step % 2]
        draws += [noise[name][0, step] for name in names]
    indices = iter(rows[0])
    monkeypatch.setattr(torch, "randint", lambda *_: next(indices))
    monkeypatch.setattr(torch, "randn_like", lambda _: draws.pop(0))
    for step in range(1, 7):
        learner.update(1)
        plain.update(1)
        metrics = learner.metrics()
        for name in LOSSES + ("actor_loss",) * (step % 2 == 0):
            assert plain.log[name] == pytest.approx(metrics[name].item(), rel=2e-4), (step, name)
    assert not draws
