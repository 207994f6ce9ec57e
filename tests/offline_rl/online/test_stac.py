"""STAC's own checks: specs/stac.md, section 9."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offline_rl.critics import Batch, GaussianCritic
from offline_rl.critics.gaussian import floored_std
from offline_rl.dropout_stack import masks_from_gaps, uniforms_per_mask
from offline_rl.online import STAC
from offline_rl.online.stac import temperature_step
from orbs import Philox
from tests.offline_rl.online.contract import CASES, play, snapshot

F64 = torch.float64
STAC_CASE = next(case for case in CASES if case.name == "stac")


def test_t4_the_entropy_noise_enters_the_deviation():
    """One state, unsquashed Gaussian policy of 3 dimensions, alpha 0.2: std 0.5464, mean 15.203 (without: 0.5)."""
    discount, beta, alpha, rows = 0.9, 0.5, 0.2, 2048
    # One hidden unit: LayerNorm makes it a constant, and the critic a table of one entry.
    critic = GaussianCritic(
        Philox(0, [0]), 1, 3, (1,), discount, tau=1.0, learning_rate=0.02, dtype=F64, beta=beta, dropout=0.0
    )
    generator = torch.Generator().manual_seed(0)
    obs, zeros, means, stds = torch.zeros(1, rows, 1, dtype=F64), torch.zeros(1, rows, dtype=F64), [], []
    for step in range(1800):
        reward = 1.0 + 0.5 * torch.randn(1, rows, generator=generator, dtype=F64)
        action = torch.randn(1, rows, 3, generator=generator, dtype=F64)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(action).sum(-1)
        batch = Batch(obs, action, reward, obs, zeros, zeros)
        critic.update(batch, action, bonus=-alpha * density)
        critic.sync_target()
        if step == 1300:
            critic.optimiser.learning_rate = 0.002
        if step >= 1500:
            found = critic.evaluate(obs[:, :1], action[:, :1])
            means.append(found.mean.item())
            stds.append(found.std.item())
    assert np.mean(stds) == pytest.approx(math.sqrt(0.25 + (discount * alpha) ** 2 * 1.5), rel=0.02)
    assert np.mean(stds) == pytest.approx(0.5464, rel=0.02)
    assert np.mean(means) == pytest.approx(15.203, rel=0.01)


def bandit(beta, runs, updates, **values):
    """T7: one step, r ~ N(a, (a + 1)^4), uniform actions in the replay; the trained agent."""
    agent = STAC(
        1, 1, runs=runs, beta=beta, actor_dropout=0.0, critic_dropout=0.0, initial_alpha=0.01,
        alpha_learning_rate=0.0, random_steps=0, capacity=200_000, **values,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (runs, 200_000))
    reward = action + (action + 1) ** 2 * rng.normal(size=action.shape)
    ones = np.ones_like(action)
    rows = torch.tensor(np.stack([0 * ones, action, reward, ones, 0 * ones], -1), dtype=torch.float32)
    agent.replay.restore(rows, 200_000)
    agent.update(updates)
    return agent


@pytest.mark.proof
def test_t7_the_actor_avoids_risk_in_proportion_to_beta():
    """A short version with small networks: what pays most without pessimism is what frightens with it."""
    values = {"hidden": (32, 32), "learning_rate": 3e-3}
    bold, wary = (bandit(beta, 1, 600, **values).act(np.zeros((1, 1)))[0, 0] for beta in (0.0, 0.5))
    assert bold > 0.9
    assert abs(wary) < 0.25


@pytest.mark.proof
@pytest.mark.parametrize(("beta", "best"), [(0.0, 1.0), (0.3, 0.667), (0.5, 0.0)])
def test_t7_at_full_size(beta, best):
    agent = bandit(beta, 1, 6000)
    actions = torch.tensor([[[-0.5], [0.0], [0.5]]])
    agent.critic.eval()
    std = agent.critic.evaluate(torch.zeros(1, 3, 1), actions).std[0, 0].detach().numpy()
    np.testing.assert_allclose(std, [0.25, 1.0, 2.25], rtol=0.1)
    assert agent.act(np.zeros((1, 1)))[0, 0] == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize(("rule", "expected"), [("stac", 0.1053), ("exp", 0.00222)])
def test_t8_temperature_rules(rule, expected):
    log_alpha = torch.full((2,), math.log(0.2), dtype=F64)
    for _ in range(3000):
        log_alpha = temperature_step(log_alpha, torch.tensor([-5.0, 0.0], dtype=F64), 3e-4, rule)
    assert log_alpha[0].exp().item() == pytest.approx(expected, rel=2e-3)
    assert log_alpha[1].exp().item() == pytest.approx(0.2)


@pytest.mark.parametrize("rule", ["stac", "exp", "adam"])
def test_temperature_rises_where_entropy_is_too_low_and_stops_at_the_cap(rule):
    agent = STAC_CASE.build(alpha_rule=rule, alpha_learning_rate=0.05, alpha_cap=0.5, runs=2)
    for _ in range(300):
        agent._move_temperature(torch.tensor([-7.0, 3.0]))  # the target is -2
    alpha = agent.log_alpha.exp()
    assert alpha[0].item() == pytest.approx(0.5)
    assert alpha[1] < 0.2
    # The author's rule left alone diverges at the update 1 / (rate alpha gap) = 20.
    if rule == "stac":
        free = torch.tensor([math.log(0.2)], dtype=F64)
        for _ in range(40):
            free = temperature_step(free, torch.tensor([5.0], dtype=F64), 0.05, rule)
        assert not torch.isfinite(free).all()


def test_target_entropy_defaults_to_minus_the_action_size():
    assert STAC(3, 4).target_entropy == -4.0
    assert STAC(3, 4, target_entropy=-1.0).target_entropy == -1.0


def test_critic_starts_as_published():
    """The deviation near softplus(0); critic and target alike; LayerNorm without effect."""
    agent = STAC(17, 6, runs=5)
    assert (agent.critic.parameters[-1][..., 1] == 0).all()
    generator = torch.Generator().manual_seed(0)
    obs, action = torch.randn(5, 50, 17, generator=generator), torch.rand(5, 50, 6, generator=generator)
    std = agent.critic.evaluate(obs, action).std
    assert std.mean().item() == pytest.approx(0.693, abs=0.1)
    for online, target in zip(agent.critic.parameters, agent.critic.target, strict=True):
        assert torch.equal(online, target)


def test_t9_gradients_stay_at_home(monkeypatch):
    """An actor step leaves the critic alone, a critic step the target and the actor."""
    agent = STAC_CASE.filled()
    before = snapshot(agent)
    monkeypatch.setattr(agent.actor_optimiser, "minimise", lambda loss: None)
    monkeypatch.setattr(agent.critic, "sync_target", lambda: None)
    agent.update()
    after = snapshot(agent)
    for name in before:
        changed = name.startswith(("critic.online", "critic.adam", "log_alpha"))
        assert torch.equal(before[name], after[name]) != changed, name
    agent = STAC_CASE.filled()
    monkeypatch.setattr(agent.critic.optimiser, "minimise", lambda loss: None)
    agent.update()
    for name, tensor in snapshot(agent).items():
        if name.startswith("critic.online"):
            assert torch.equal(before[name], tensor), name


def test_t9_the_actor_is_told_of_the_spread():
    """d actor_value / da = dmu/da - beta dstd/da."""
    for beta in (0.0, 0.7):
        agent = STAC_CASE.build(beta=beta, critic_dropout=0.0, dtype=F64)
        obs = torch.zeros(1, 4, 3, dtype=F64)
        action = torch.rand(1, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        found = agent.critic.evaluate(obs, action)
        of_mean, of_std = (torch.autograd.grad(x.sum(), action, retain_graph=True)[0] for x in found[:2])
        (whole,) = torch.autograd.grad(agent.critic.actor_value(obs, action).sum(), action)
        torch.testing.assert_close(whole, of_mean - beta * of_std, rtol=0, atol=1e-12)
        assert of_std.abs().max() > 1e-3


def test_t12_dropout_drops_while_learning_and_exploring_alone():
    agent = STAC_CASE.filled(random_steps=0)
    obs = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(agent.act(obs), agent.act(obs))
    np.testing.assert_array_equal(
        agent.value(obs[None], np.zeros((1, 1, 2))), agent.value(obs[None], np.zeros((1, 1, 2)))
    )
    x = torch.zeros(1, 32, 3), torch.zeros(1, 32, 2)
    agent.critic.begin(1)
    assert not torch.equal(agent.critic.backup_value(*x), agent.critic.backup_value(*x))
    agent.critic.eval()
    assert torch.equal(agent.critic.backup_value(*x), agent.critic.backup_value(*x))
    # Exploring: with the noise taken away the masks alone make the actions differ.
    seen = {agent._explored(torch.zeros(1, 1, 3), torch.zeros(1, 1, 2)).sum().item()}
    for step in range(1, 5):
        agent.interactions += step
        seen.add(agent._explored(torch.zeros(1, 1, 3), torch.zeros(1, 1, 2)).sum().item())
    assert len(seen) == 5
    plain = STAC_CASE.filled(random_steps=0, actor_dropout=0.0)
    mean, _ = plain._distribution(torch.zeros(1, 1, 3), None)
    assert torch.equal(plain._explored(torch.zeros(1, 1, 3), torch.zeros(1, 1, 2)), torch.tanh(mean))


def test_exploring_masks_drop_the_right_share():
    agent = STAC_CASE.build(runs=3, actor_dropout=0.2)
    kept = []
    for step in range(600):
        agent.interactions = step
        masks = agent._exploring_masks()
        assert [tuple(mask.shape) for mask in masks] == [(3, 1, 32)] * 2
        kept.append(torch.stack(masks))
    found = torch.stack(kept)
    assert set(found.unique().tolist()) == {0.0, 1.25}
    # A unit's mean over 1800 masks deviates by 0.012.
    np.testing.assert_allclose(found.mean((0, 2, 3)), 1.0, atol=0.06)
    assert abs((found == 0).double().mean() - 0.2) < 0.005


@pytest.mark.parametrize("places", [[0, 1, 255, 256, 700], [700], [256, 0]])
def test_exploring_masks_are_functions_of_run_layer_and_interaction(places):
    """Those of the action that comes, number interactions + 1, whichever block was drawn before."""
    agent, widths = STAC_CASE.build(runs=[3, 0], actor_dropout=0.2, hidden=(32, 24)), (32, 24)
    for place in places:
        agent.interactions = place
        for layer, mask in enumerate(agent._exploring_masks()):
            count = uniforms_per_mask(widths[layer], 0.2)
            uniform = agent.philox.uniform(f"dropout.acting.{layer}", place + 1, 1, count, F64)[:, 0]
            assert torch.equal(mask[:, 0], masks_from_gaps(uniform, widths[layer], 0.2, torch.float32)), (place, layer)


def test_exploring_masks_are_independent_of_each_other():
    """Between layers, runs and interactions: of 19200 pairs of units both drop in p^2, to 4.5 deviations."""
    agent, share = STAC_CASE.build(runs=2, actor_dropout=0.2, hidden=(32, 32, 32)), []
    for step in range(600):
        agent.interactions = step
        share.append(torch.stack(agent._exploring_masks())[:, :, 0])
    dropped = (torch.stack(share) == 0).double()  # (600, layers, runs, units)
    pairs = {"layers": [(dropped[:, i, 0], dropped[:, j, 0]) for i, j in ((0, 1), (0, 2), (1, 2))]}
    pairs["runs"] = [(dropped[:, i, 0], dropped[:, i, 1]) for i in range(3)]
    pairs["interactions"] = [(dropped[:-1, i, 0], dropped[1:, i, 0]) for i in range(3)]
    for name, found in pairs.items():
        for one, other in found:
            assert abs((one * other).mean() - 0.04) < 0.0064, name


def test_t13_the_target_moves_once_an_update_before_the_actor():
    agent = STAC_CASE.filled(dtype=F64, tau=0.005)
    old = [tensor.clone() for tensor in agent.critic.target]
    agent.update()
    for slow, before, online in zip(agent.critic.target, old, agent.critic.parameters, strict=True):
        torch.testing.assert_close(slow, 0.995 * before + 0.005 * online, rtol=0, atol=1e-14)


def test_evaluation_by_ten_samples_is_their_average():
    agent = STAC_CASE.build(evaluation_action="samples", dtype=F64)
    play(agent, 3, learn=False)
    obs = torch.zeros(1, 2, 3, dtype=F64)
    mean, std = agent._distribution(obs, None)
    noise = agent.philox.normal("evaluation", 3 * 2**20 + 4, 1, 40, F64).view(10, 2, 2)
    expected = torch.tanh(mean[0] + std[0] * noise).mean(0)
    found = (torch.tensor(agent.act(obs[0].numpy(), draw=4)) - agent.action_centre) / agent.action_scale
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_bonus_of_ten_samples_is_the_mean_of_theirs():
    agent = STAC_CASE.build(evaluation_action="samples", dtype=F64, initial_alpha=0.3, runs=2)
    play(agent, 3, learn=False)
    obs = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    mean, std = (x.detach() for x in agent._distribution(obs, None))
    noise = agent.philox.normal("evaluation", 3 * 2**20 + 4, 1, 100, F64).view(2, 10, 5, 2).transpose(0, 1)
    u = mean + std * noise
    density = torch.distributions.Normal(mean, std).log_prob(u) - torch.log(1 - torch.tanh(u) ** 2)
    found = agent.entropy_bonus(obs, draw=4)
    torch.testing.assert_close(found, -0.3 * density.sum(-1).mean(0), rtol=0, atol=1e-8)
    assert not torch.equal(found, agent.entropy_bonus(obs, draw=5))
    assert agent.entropy_bonus(obs, deterministic=False, draw=4).sub(found).abs().max() > 0.01  # one sample's


def test_t15_the_soft_value_of_noisy_values_is_bounded():
    """E c log sum exp(Q / c) <= c log sum exp(mu / c + sigma^2 / (2 c^2)) for independent Gaussians Q."""
    generator = torch.Generator().manual_seed(0)
    for c in (0.1, 0.5, 2.0):
        mean = torch.randn(20, 6, generator=generator, dtype=F64)
        std = floored_std(torch.randn(20, 6, generator=generator, dtype=F64))
        draws = mean + std * torch.randn(20_000, 20, 6, generator=generator, dtype=F64)
        left = (c * torch.logsumexp(draws / c, -1)).mean(0)
        right = c * torch.logsumexp(mean / c + std**2 / (2 * c**2), -1)
        assert (left <= right + 0.02).all()
        assert (left >= c * torch.logsumexp(mean / c, -1) - 0.05).all()
