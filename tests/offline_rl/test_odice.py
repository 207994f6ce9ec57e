"""O-DICE: hand values, losses and their slopes, the projection, data and bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from experiments.presets import preset
from offline_rl import ODICE
from offline_rl.critics.interface import Batch
from offline_rl.odice import (
    block_returns,
    cloning_loss,
    cloning_slopes,
    conjugate,
    conjugate_loss,
    conjugate_slope,
    linear_loss,
    linear_slope,
    orthogonal,
    policy_weight,
    ratio,
)
from offline_rl.value_stack import unpack
from orbs import Transitions
from tests.offline_rl.reference import F64, snapshot
from tests.offline_rl.reference_odice import DATA, SMALL, tensor

# The divergences


def test_conjugate_by_hand():
    """The table of the specification, and exp(y - 1)."""
    y = tensor(-5, -2, -1, 0, 1, 4)
    torch.testing.assert_close(conjugate(y, "chi2"), tensor(-1, -1, -0.75, 0, 1.25, 8))
    torch.testing.assert_close(ratio(y, "chi2"), tensor(0, 0, 0.5, 1, 1.5, 3))
    torch.testing.assert_close(conjugate(y, "kl"), torch.exp(y - 1))
    torch.testing.assert_close(ratio(y, "kl"), torch.exp(y - 1))


@pytest.mark.parametrize(
    ("divergence", "f"), [("chi2", lambda x: (x - 1) ** 2), ("kl", lambda x: x * torch.log(x.clamp(min=1e-300)))]
)
def test_conjugate_is_the_maximum_over_ratios_and_ratio_its_place_and_slope(divergence, f):
    y = torch.linspace(-6, 3, 181, dtype=F64, requires_grad=True)
    x = torch.linspace(0, 10, 100_001, dtype=F64)
    best = (x * y.detach()[:, None] - f(x)).max(1)
    torch.testing.assert_close(conjugate(y, divergence), best.values, rtol=0, atol=1e-6)
    torch.testing.assert_close(ratio(y, divergence), x[best.indices], rtol=0, atol=2e-4)
    (slope,) = torch.autograd.grad(conjugate(y, divergence).sum(), y)
    torch.testing.assert_close(slope, ratio(y, divergence).detach(), rtol=1e-12, atol=1e-12)


def test_reverse_kl_goes_on_as_its_tangent_where_float32_would_overflow():
    y = torch.tensor([19.0, 20.0, 25.0, 1e6], requires_grad=True)
    value = conjugate(y, "kl")
    expected = [math.exp(18), math.exp(19), math.exp(19) * 6, math.exp(19) * (1e6 - 19)]
    torch.testing.assert_close(value, torch.tensor(expected))
    (slope,) = torch.autograd.grad(value.sum(), y)
    torch.testing.assert_close(slope, torch.tensor([math.exp(18)] + 3 * [math.exp(19)]))
    torch.testing.assert_close(slope, ratio(y, "kl").detach())


# The losses


def test_value_losses_by_hand():
    """Heads 2, rows 2: means over both, runs apart."""
    x = tensor(-5, -2, -1, 4, 0, 0, 1, 1).view(2, 2, 2)
    torch.testing.assert_close(linear_loss(x, 0.6), tensor(0.4 * -1, 0.4 * 0.5))
    torch.testing.assert_close(conjugate_loss(x, 0.6, "chi2"), tensor(0.6 * 5.25 / 4, 0.6 * 2.5 / 4))


def test_policy_weight_by_hand():
    """Heads averaged after the cap; a constant."""
    y = tensor(-5, 1, 300, 3, 2, 300).view(1, 2, 3).requires_grad_()
    found = policy_weight(y, "relu_residual", "chi2", 100.0)
    torch.testing.assert_close(found, tensor(1.5, 1.5, 100)[None])
    assert not found.requires_grad
    torch.testing.assert_close(policy_weight(y, "omega", "chi2", 100.0), tensor(1.25, 1.75, 100)[None])
    expected = (torch.exp(y - 1).clamp(max=5.0)).mean(1).detach()
    torch.testing.assert_close(policy_weight(y, "omega", "kl", 5.0), expected)


def test_cloning_loss_by_hand():
    """One coordinate pair, std 1 and e: -w (-(1 + 0.25 / e^2) / 2 - 1 - log 2 pi)."""
    mean, action = tensor(0.0, 0.5)[None, None], tensor(1.0, 1.0)[None, None]
    loss = cloning_loss(tensor(2.0)[None], mean, tensor(0.0, 1.0)[None, None], action)
    assert loss.item() == pytest.approx(2 * ((1 + 0.25 / math.e**2) / 2 + 1 + math.log(2 * math.pi)))


def test_cloning_with_equal_weights_and_a_fixed_std_is_regression():
    mean = torch.randn(2, 7, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    action = torch.zeros(2, 7, 3, dtype=F64)
    log_std = torch.zeros(2, 1, 3, dtype=F64)
    loss = cloning_loss(torch.ones(2, 7, dtype=F64), mean, log_std, action)
    squares = (mean - action).square().sum((1, 2)) / 14
    torch.testing.assert_close(loss - squares, loss.new_full((2,), 1.5 * math.log(2 * math.pi)))


def test_losses_pass_gradcheck():
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(*shape, dtype=F64, generator=generator).requires_grad_()

    assert torch.autograd.gradcheck(lambda v: linear_loss(v, 0.7), (leaf(2, 2, 3),))
    for divergence in ("chi2", "kl"):
        y = (3 * leaf(2, 2, 5).detach()).requires_grad_()
        assert torch.autograd.gradcheck(lambda y, d=divergence: conjugate_loss(y, 0.7, d), (y,))
    weight = leaf(2, 3).detach().abs()
    inputs = (weight, leaf(2, 3, 2), leaf(2, 1, 2), leaf(2, 3, 2))
    assert torch.autograd.gradcheck(cloning_loss, inputs)


def test_a_log_std_outside_its_range_counts_as_the_bound_and_gets_no_gradient():
    mean, action = torch.zeros(1, 4, 3, dtype=F64), torch.ones(1, 4, 3, dtype=F64)
    log_std = tensor(-7.0, 0.0, 3.0)[None, None].requires_grad_()
    loss = cloning_loss(torch.ones(1, 4, dtype=F64), mean, log_std, action)
    bounded = cloning_loss(torch.ones(1, 4, dtype=F64), mean, tensor(-5.0, 0.0, 2.0)[None, None], action)
    torch.testing.assert_close(loss, bounded)
    (grad,) = torch.autograd.grad(loss.sum(), log_std)
    assert grad.flatten()[[0, 2]].tolist() == [0.0, 0.0]


def test_slopes_are_the_derivatives_of_the_losses():
    y = torch.linspace(-6, 24, 60, dtype=F64).view(2, 2, 15).requires_grad_()
    (slope,) = torch.autograd.grad(linear_loss(y, 0.7).sum(), y)
    torch.testing.assert_close(linear_slope(y.detach(), 0.7), slope, rtol=1e-13, atol=0)
    for divergence in ("chi2", "kl"):
        (slope,) = torch.autograd.grad(conjugate_loss(y, 0.7, divergence).sum(), y)
        torch.testing.assert_close(conjugate_slope(y.detach(), 0.7, divergence), slope, rtol=1e-13, atol=0)
    generator = torch.Generator().manual_seed(0)
    weight, mean, action = (
        torch.randn(*shape, dtype=F64, generator=generator) for shape in ((2, 7), (2, 7, 4), (2, 7, 4))
    )
    mean.requires_grad_()
    log_std = tensor(-7, -0.5, 1, 3, -5, 2, 2.5, 0).view(2, 1, 4).requires_grad_()
    expected = torch.autograd.grad(cloning_loss(weight, mean, log_std, action).sum(), (mean, log_std))
    for found, slope in zip(cloning_slopes(weight, mean.detach(), log_std.detach(), action), expected, strict=True):
        torch.testing.assert_close(found, slope, rtol=1e-12, atol=1e-13)


# The projection


def test_orthogonal_by_hand():
    """Run 1: <f, b> = 5, <f, f> = 5; run 2: a forward gradient of (almost) zero leaves the backward one."""
    forward, backward = tensor(1, 2, 0, 0).view(2, 2), tensor(3, 1, 4, 5).view(2, 2)
    found, c = orthogonal(forward, backward)
    torch.testing.assert_close(c, tensor(1, 0))
    torch.testing.assert_close(found, tensor(2, -1, 4, 5).view(2, 2))
    _, c = orthogonal(tensor(1e-6, 0)[None], tensor(1, 0)[None])
    torch.testing.assert_close(c, tensor(1e-6 / 1e-10))


def linear(features, slow, reward, theta, terminal=None, **arguments):
    """A one-run learner with V = theta . phi and one batch: features (2, B, d), its phi and phi'. The first feature is
    1, so theta's first entry is the bias of a network without hidden layers."""
    rows, d = features.shape[1:]
    learner = ODICE(d - 1, 1, hidden=(1,), actor_hidden=(1,), twin=False, layer_norm=False, dtype=F64, **arguments)
    learner._hold_value([theta[1:].view(1, d - 1, 1), theta[:1].view(1, 1, 1)])
    for target, value in zip(learner.value_target, (slow[1:], slow[:1]), strict=True):
        target.copy_(value.view_as(target))
    batch = Batch(
        features[None, 0, :, 1:],
        torch.zeros(1, rows, 1, dtype=F64),
        reward[None],
        features[None, 1, :, 1:],
        torch.zeros(1, rows, dtype=F64) if terminal is None else terminal[None],
        torch.zeros(1, rows, dtype=torch.int64),
    )
    grad, residual = learner._value_gradient(batch)
    weight, bias = unpack(grad, [(d - 1, 1), (1, 1)])
    return torch.cat((bias.flatten(), weight.flatten())), residual.flatten()


@pytest.mark.parametrize(
    ("gradient", "expected"), [("orthogonal", (-0.5, 0.6237)), ("semi", (-0.5, 0.0)), ("true", (0.391, 0.891))]
)
def test_the_linear_case_of_the_specification(gradient, expected):
    """phi = (1, 0), phi' = (1, 1), theta = 0, r = 1: the true gradient's first component has the other sign."""
    features = tensor(1, 0, 1, 1).view(2, 1, 2)
    found, residual = linear(features, tensor(0, 0), tensor(1), tensor(0, 0), lam=0.6, eta=0.7, gradient=gradient)
    torch.testing.assert_close(found, tensor(*expected))
    assert residual.tolist() == [1.0]


@pytest.mark.parametrize("divergence", ["chi2", "kl"])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_general_linear_formula(divergence, end):
    """G = (1 - lambda) phi - lambda w_f phi + lambda eta gamma nd w_b (phi' - (phi . phi' / |phi|^2) phi)."""
    generator = torch.Generator().manual_seed(3)
    features, slow, theta = (torch.randn(n, dtype=F64, generator=generator) for n in (8, 4, 4))
    phi, phi2 = features.view(2, 4)
    phi[0] = phi2[0] = 1.0
    lam, eta, gamma, r = 0.55, 1.7, 0.9, 0.4
    y_f = r + gamma * (1 - end) * slow @ phi2 - theta @ phi
    y_b = r + gamma * (1 - end) * theta @ phi2 - slow @ phi
    w_f, w_b = (torch.exp(y - 1) if divergence == "kl" else torch.clamp(y / 2 + 1, min=0) for y in (y_f, y_b))
    across = phi2 - (phi @ phi2) / (phi @ phi) * phi
    expected = (1 - lam) * phi - lam * w_f * phi + lam * eta * gamma * (1 - end) * w_b * across
    found, residual = linear(
        features.view(2, 1, 4),
        slow,
        tensor(r),
        theta,
        tensor(end),
        lam=lam,
        eta=eta,
        discount=gamma,
        divergence=divergence,
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(residual, y_f[None])


def test_self_loops_and_features_at_right_angles():
    """s' = s: nothing is left of a linear V's backward gradient; phi at right angles to phi': nothing is taken."""
    phi, theta = tensor(1.0, -2.0, 0.5), tensor(0.1, 0.2, 0.3)
    one = {"slow": tensor(0.1, 0.2, 0.4), "reward": tensor(0.7), "eta": 2.0, "theta": theta}
    loop = torch.stack([phi, phi]).view(2, 1, 3)
    ours, theirs = (linear(loop, gradient=g, **one)[0] for g in ("orthogonal", "semi"))
    torch.testing.assert_close(ours, theirs)
    across = tensor(1.0, 0.25, -1.0)
    apart = torch.stack([phi, across]).view(2, 1, 3)
    ours, theirs = (linear(apart, gradient=g, **one)[0] for g in ("orthogonal", "semi"))
    weight = (0.7 + 0.99 * float(theta @ across) - float(one["slow"] @ phi)) / 2 + 1
    torch.testing.assert_close(ours - theirs, 0.6 * 2.0 * 0.99 * weight * across)


def test_the_fixed_point_of_the_semi_gradient():
    """A deterministic chain, V a table: every residual ends at 2 ((1 - lambda) / lambda - 1)."""
    eye = torch.eye(5, dtype=F64)
    features = torch.cat((torch.ones(2, 5, 1, dtype=F64), torch.stack([eye, eye.roll(-1, 0)])), 2)
    terminal, reward = tensor(0, 0, 0, 0, 1), tensor(-1, -1, -1, -1, 0)
    theta = tensor(0, 0, 0, 0, 0, 0)  # the bias stays 0
    for _ in range(100):
        grad, residual = linear(features, theta.clone(), reward, theta.clone(), terminal, gradient="semi", lam=0.6)
        theta[1:] -= 10.0 * grad[1:]
    torch.testing.assert_close(residual, torch.full((5,), 2 * (0.4 / 0.6 - 1), dtype=F64))


def test_the_optimum_of_the_true_gradient():
    """One state, a loop: omega* (1 - gamma) = (1 - lambda) / lambda; at lambda 1/2, gamma 0.9: y = 18."""
    one, theta = tensor(1, 0, 1, 0).view(2, 1, 2), tensor((1 - 18) / 0.1, 0)
    grad, residual = linear(one, tensor(9, 0), tensor(1), theta, gradient="true", lam=0.5, discount=0.9)
    torch.testing.assert_close(residual, tensor(18))
    torch.testing.assert_close(grad, tensor(0, 0), atol=1e-12, rtol=0)


# Rewards and demonstrations


def test_block_returns_by_hand():
    """Blocks end at a set flag or at the horizon, which starts anew after either; the last one must be complete."""
    reward, end = np.arange(1.0, 11.0), np.zeros(10)
    end[2] = 1
    np.testing.assert_array_equal(block_returns(reward, end, 4), [6, 22])
    np.testing.assert_array_equal(block_returns(reward, end, 7), [6, 49])
    np.testing.assert_array_equal(block_returns(reward, end, 2), [3, 3, 9, 13, 17])
    np.testing.assert_array_equal(block_returns(reward, end, 100), [6])
    end[9] = 1
    np.testing.assert_array_equal(block_returns(reward, end, 4), [6, 22, 27])
    with pytest.raises(ValueError, match="return_blocks"):
        block_returns(reward, np.zeros(10), 11)


def test_rewards_are_divided_by_the_range_of_returns_before_scale_and_shift():
    """ "legacy" cuts at terminals alone, "episodes" at time-outs too."""
    for kind, ends in (("legacy", DATA.terminal), ("episodes", DATA.terminal + DATA.timeout)):
        returns, total = [], 0.0
        for reward, end in zip(DATA.reward, ends, strict=True):
            total += float(reward)
            if end:
                returns.append(total)
                total = 0.0
        scale = 1000.0 / (max(returns) - min(returns))
        learner = ODICE.for_dataset(DATA, return_blocks=kind, reward_scale=2.0, reward_shift=-1.0, **SMALL)
        found = learner._data[:, DATA.obs_dim + DATA.action_dim].numpy()
        np.testing.assert_allclose(found, 2.0 * scale * DATA.reward.astype(np.float64) - 1.0, rtol=1e-12)
    flat = dataclasses.replace(DATA, reward=np.zeros(len(DATA)))
    with pytest.raises(ValueError, match="return_blocks: expected blocks of different returns"):
        ODICE.for_dataset(flat, return_blocks="legacy")


def test_a_demonstration_is_one_whole_episode_without_rewards():
    """The same as a dataset of these rows alone with rewards of zero, its statistics included."""
    ends = np.flatnonzero(DATA.terminal + DATA.timeout)
    fields = ("obs", "action", "next_obs", "terminal", "timeout")
    arguments = {**SMALL, "normalise_obs": True, "tanh_mean": True, "layer_norm": False, "lam": 0.4}
    for number, rows in ((0, slice(0, ends[0] + 1)), (4, slice(ends[3] + 1, ends[4] + 1))):
        alone = Transitions(reward=np.zeros(len(DATA))[rows], **{f: getattr(DATA, f)[rows] for f in fields})
        ours, theirs = (
            ODICE.for_dataset(DATA, demonstration=number, **arguments),
            ODICE.for_dataset(alone, **arguments),
        )
        for learner in (ours, theirs):
            learner.update(3)
        for name, value in snapshot(theirs).items():
            assert torch.equal(ours.state_dict()[name], value), name
    with pytest.raises(ValueError, match=r"odice\.demonstration: .* choose one below"):
        ODICE.for_dataset(DATA, demonstration=len(ends))
    endless = dataclasses.replace(DATA, terminal=np.zeros(len(DATA)), timeout=None)
    with pytest.raises(ValueError, match=r"odice\.demonstration: .* whose episodes end"):
        ODICE.for_dataset(endless, demonstration=0)


# Bad input


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("actor_hidden", [(), (0,), 5, (2.5,), None]),
        ("lam", [0.0, 1.0, -0.1, float("nan"), "x", None]),
        ("eta", [-0.1, float("inf"), float("nan")]),
        ("gradient", ["forward", None]),
        ("divergence", ["chi", None]),
        ("policy_weight", ["exp", None]),
        ("weight_cap", [0.0, -1.0]),
        ("weight_decay", [-1e-4]),
        ("twin", [1, "False"]),
        ("layer_norm", [0]),
        ("tanh_mean", ["False"]),
        ("discount", [-0.1, 1.1]),
        ("tau", [-0.1, 1.1]),
        ("return_blocks", ["blocks", None]),
        ("demonstration", [-1, 0.5, True]),
    ],
)
def test_hyperparameters_out_of_range(field, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"odice\.{field}: expected .* Fix: "):
            ODICE(3, 2, **{field: value})


def test_a_demonstration_has_no_returns():
    """The presets of Hopper and Walker2d, which the paper imitates on, set return blocks: without effect there."""
    with_blocks = ODICE.for_dataset(DATA, **SMALL, demonstration=1, return_blocks="legacy", reward_scale=3.0)
    without = ODICE.for_dataset(DATA, **SMALL, demonstration=1)
    assert torch.equal(with_blocks._data, without._data)


def test_presets_are_the_authors():
    """AntMaze: 0 -> -3, 1 -> 0; one value for "large" and "umaze-diverse" alone; MuJoCo by misaligned blocks."""
    for name, twin in (("large-play", False), ("umaze-diverse", False), ("umaze", True), ("medium-diverse", True)):
        learner = ODICE(3, 2, **preset("odice", f"antmaze-{name}-v2").values)
        assert (learner.heads == 2) == twin
        assert not learner.config.layer_norm
        reward, _ = learner._shape_reward(tensor(0, 1), tensor())
        assert reward.tolist() == [-3.0, 0.0]
    for name in ("hopper-medium-replay-v2", "halfcheetah-medium-v2", "walker2d-medium-expert-v2"):
        config = ODICE(3, 2, **preset("odice", name).values).config
        assert (config.lam, config.eta, config.return_blocks, config.twin) == (0.6, 1.0, "legacy", True)
