"""STAC's critic against its formulas, closed forms of its fixed points, and a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offline_rl.critics import Batch, Evaluation, GaussianCritic
from offline_rl.critics.gaussian import clipped, floored_std, gaussian_nll, pessimistic
from offline_rl.dropout_stack import draw_masks
from offline_rl.networks import Adam, clone_parameters
from orbs import Philox
from tests.offline_rl.critics.plain import PlainSTAC

F64 = torch.float64
FLOOR = math.log1p(math.exp(-5.0))
ESTAC = {"members": 2, "combine": "min_mean"}
PAIR = {"members": 2, "combine": "min_pess"}


def make(runs=2, seed=0, **arguments):
    return GaussianCritic(Philox(seed, range(runs)), 3, 2, (12, 10), dtype=F64, **arguments)


def make_batch(runs=2, size=9, seed=0):
    draw = torch.Generator().manual_seed(seed)
    obs, action, next_obs = (torch.randn(runs, size, d, dtype=F64, generator=draw) for d in (3, 2, 3))
    reward, terminal = torch.randn(runs, size, dtype=F64, generator=draw), torch.zeros(runs, size, dtype=F64)
    terminal[:, ::4] = 1.0
    return Batch(obs, action, reward, next_obs, terminal, torch.zeros(runs, size, dtype=torch.int64))


# Formulas


def test_std_by_hand():
    raw = torch.tensor([-100.0, -5.0, 0.0, 3.0], dtype=F64)
    wanted = [FLOOR, FLOOR, math.log(2.0), math.log1p(math.exp(3.0))]
    torch.testing.assert_close(floored_std(raw), torch.tensor(wanted, dtype=F64), rtol=1e-14, atol=0)
    assert pytest.approx(0.0067153, abs=5e-8) == FLOOR


def test_nll_by_hand():
    """Members (mu, sigma) = (1, 2) and (0, 1/2) against y = (2, 0): means of log sigma + e^2 / 2, then their sum."""
    mean, std = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[2.0, 2.0], [0.5, 0.5]]])
    first = math.log(2.0) + (0.125 + 0.125) / 2
    second = math.log(0.5) + (8.0 + 0.0) / 2
    assert gaussian_nll(mean, std, torch.tensor([[2.0, 0.0]])).item() == pytest.approx(first + second, abs=1e-6)


def test_pessimistic_by_hand():
    mean, std = torch.tensor([[[4.0, 1.0], [3.0, 2.0]]]), torch.tensor([[[4.0, 2.0], [1.0, 8.0]]])
    assert pessimistic(mean[:, :1], std[:, :1], 0.5).tolist() == [[2.0, 0.0]]
    assert pessimistic(mean, std, 0.5, "min_mean").tolist() == [[3.0, 1.0]]
    assert pessimistic(mean, std, 0.5, "min_pess").tolist() == [[2.0, -2.0]]


def test_gradients_of_the_loss_are_the_formulas():
    """dL/dmu = (mu - y) / sigma^2, dL/dsigma = 1/sigma - (y - mu)^2 / sigma^3, dsigma/dz = sigmoid(z), 0 below -5."""
    draw = torch.Generator().manual_seed(0)
    mean, raw = (torch.randn(2, 1, 50, dtype=F64, generator=draw).requires_grad_() for _ in range(2))
    with torch.no_grad():
        raw[..., :5] = -6.0
    y = torch.randn(2, 50, dtype=F64, generator=draw)
    std = floored_std(raw)
    found = torch.autograd.grad(gaussian_nll(mean, std, y).sum(), [mean, std, raw])
    m, s, z, t = mean.detach(), std.detach(), raw.detach(), y.unsqueeze(1)
    of_std = 1 / s - (t - m) ** 2 / s**3
    wanted = [(m - t) / s**2, of_std, of_std * torch.where(z < -5, 0.0, torch.sigmoid(z))]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b / 50, rtol=1e-10, atol=1e-10)
    assert (found[2][..., :5] == 0).all()
    assert (found[2][..., 5:] != 0).all()


def test_clip_bounds_each_runs_norm_alone():
    """Run 0 has norm 5 over both tensors, run 1 norm 0.5: to at most 1, in the same direction."""
    grads = [torch.tensor([[[3.0]], [[0.3]]]), torch.tensor([[4.0], [0.4]])]
    a, b = clipped(grads, 2, 1.0)
    torch.testing.assert_close(a, torch.tensor([[[0.6]], [[0.3]]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(b, torch.tensor([[0.8], [0.4]]), rtol=1e-5, atol=0)
    free, bound, loose = make(), make(clip_norm=1e-6), make(clip_norm=1e9)
    for critic in (free, bound, loose):
        critic.update(make_batch(), make_batch().action)
    first = free.optimiser.mean[0].norm() / bound.optimiser.mean[0].norm()
    assert first > 1e3
    assert all(torch.equal(x, y) for x, y in zip(free.parameters, loose.parameters, strict=True))


# Fixed points in closed form: one or few states, the tables learned by the critic's own update


class Tabular(GaussianCritic):
    """mu and z of states by number; the target, loss, optimiser step and target's step are the critic's."""

    def __init__(self, states, discount, beta, start=0.0):
        self.discount, self.beta, self.tau, self.members = discount, beta, 1.0, 1
        self._combine, self.clip_norm = "single", None
        self.parameters = [torch.full((1, states), v, dtype=F64, requires_grad=True) for v in (start, 0.0)]
        self.target = clone_parameters(self.parameters)
        self.optimiser = Adam(self.parameters, 0.1)

    def _pass(self, kind, parameters, obs, action, features):
        mean, raw = (p[0][obs[0, :, 0].long()].view(1, 1, -1) for p in parameters)
        return Evaluation(mean, floored_std(raw), None, raw)


def learned(rows, beta, gamma=0.9, bonus=None, start=0.0, updates=1500):
    """(mu, sigma) of every state after learning from rows (state, reward, next state, terminal), over and over."""
    state, reward, after, terminal = (torch.tensor(column, dtype=F64).view(1, -1) for column in zip(*rows, strict=True))
    critic = Tabular(int(max(state.max(), after.max())) + 1, gamma, beta, start)
    none = torch.zeros(1, state.shape[1], 1, dtype=F64)
    batch = Batch(state.unsqueeze(2), none, reward, after.unsqueeze(2), terminal, state.long())
    for i in range(updates):
        critic.optimiser.learning_rate = 0.1 * (1 - i / updates) ** 2 + 1e-6
        critic.update(batch, none, bonus)
        critic.sync_target()
    mu, raw = (p.detach()[0] for p in critic.parameters)
    return mu.tolist(), floored_std(raw).tolist()


def noisy(m, s, copies=1, ends=0):
    """Rewards m +- s, which have that mean and deviation; `ends` of `copies` rows are terminal."""
    return [(0, m + sign * s, 0, float(i < ends)) for sign in (-1, 1) for i in range(copies)]


@pytest.mark.parametrize(("beta", "mu", "sigma"), [(0.5, 7.75, 0.5), (0.0, 10.0, 0.5)])
def test_t1_t2_the_spread_is_that_of_one_step(beta, mu, sigma):
    """sigma = s, mu = (m - gamma beta s) / (1 - gamma); the spread of the whole return would be 1.147."""
    means, stds = learned(noisy(1.0, 0.5), beta)
    assert means[0] == pytest.approx(mu, abs=0.01)
    assert stds[0] == pytest.approx(sigma, abs=0.005)


@pytest.mark.parametrize(
    ("m", "s", "beta", "sigma", "mu"),
    [(1.0, 0.5, 0.5, 0.8778, 2.4429), (1.0, 0.0, 0.5, 0.7826, 2.5652), (-1.0, 0.5, 0.25, 1.9889, -4.8500)],
)
def test_t3_random_termination_is_part_of_the_spread(m, s, beta, sigma, mu):
    """p = 0.2, gamma = 0.9; with k = gamma sqrt(p (1-p)) / (1 - gamma (1-p)) the fixed point is a quadratic's root."""
    k = 0.9 * 0.4 / (1 - 0.72)
    closed = (-(k**2) * beta * m + math.sqrt(s**2 * (1 - k**2 * beta**2) + k**2 * m**2)) / (1 - k**2 * beta**2)
    assert closed == pytest.approx(sigma, abs=1e-4)
    assert (m - beta * closed) / 0.28 + beta * closed == pytest.approx(mu, abs=1e-4)
    means, stds = learned(noisy(m, s, 5, 1), beta, updates=2500)
    assert stds[0] == pytest.approx(sigma, abs=0.003)
    assert means[0] == pytest.approx(mu, abs=0.005)


def test_t4_the_bonus_enters_target_and_spread():
    """A Gaussian policy's -alpha log p: sigma^2 = s^2 + gamma^2 alpha^2 d / 2, and mu takes gamma alpha E[-log p]."""
    noise = torch.randn(2048, 3, dtype=F64, generator=torch.manual_seed(0))
    noise = torch.cat((noise, noise)) / noise.std(0)  # both rewards with the same draws
    bonus = 0.2 * (0.5 * noise.square() + 0.5 * math.log(2 * math.pi)).sum(1).view(1, -1)
    means, stds = learned(noisy(1.0, 0.5, 2048), 0.5, bonus=bonus, start=12.0)
    assert stds[0] == pytest.approx(0.5464, abs=0.004)
    assert means[0] == pytest.approx(15.203, abs=0.05)


def test_t5_the_floor():
    """Reward 1, gamma 0.99, beta 1/2: sigma ends at its floor, mu = (1 - gamma beta floor) / (1 - gamma), not 100."""
    means, stds = learned([(0, 1.0, 0, 0.0)], 0.5, gamma=0.99, start=97.0)
    assert stds[0] == pytest.approx(FLOOR, abs=1e-12)
    assert means[0] == pytest.approx(99.6676, abs=0.003)


def test_t6_a_chain_passes_on_pessimism_but_no_variance():
    """Z -> A -> (B or C) -> end with 10 in B: sigma_A = 4.5, sigma_Z its floor; mu_Z = 0.9 (mu_A - sigma_A / 2)."""
    rows = [(0, 0.0, 1, 0.0), (1, 0.0, 2, 0.0), (1, 0.0, 3, 0.0), (2, 10.0, 2, 1.0), (3, 0.0, 3, 1.0)]
    means, stds = learned(rows, 0.5, start=5.0)
    np.testing.assert_allclose(means, [2.0223, 4.4970, 10.0, 0.0], atol=2e-4)
    np.testing.assert_allclose(stds, [FLOOR, 4.5, FLOOR, FLOOR], atol=1e-6)


# The network


def test_shapes_initial_spread_and_biases():
    critic, batch = make(runs=3, members=2, combine="min_mean"), make_batch(3)
    found = critic.evaluate(batch.obs, batch.action, features=True)
    assert found.mean.shape == found.std.shape == found.raw_std.shape == (3, 2, 9)
    assert found.features.shape == (3, 2, 9, 10)
    assert critic.evaluate(batch.obs, batch.action).features is None
    assert (critic.parameters[-1][..., 1] == 0).all()
    assert (critic.parameters[-1][..., 0] != 0).all()
    wide = GaussianCritic(Philox(0, range(20)), 3, 2, dtype=F64)
    std = wide.evaluate(*(torch.randn(20, 64, d, dtype=F64, generator=torch.manual_seed(0)) for d in (3, 2))).std
    assert abs(std.mean().item() - math.log(2.0)) < 0.1
    assert all(torch.equal(a, b) for a, b in zip(critic.parameters, critic.target, strict=True))


def test_mean_is_linear_in_the_features():
    critic, batch = make(**ESTAC), make_batch()
    found = critic.evaluate(batch.obs, batch.action, features=True)
    w, b = critic.head_weight(), critic.head_bias()
    assert w.shape == (2, 2, 10)
    linear = (found.features * w.unsqueeze(2)).sum(-1) + b.unsqueeze(-1)
    torch.testing.assert_close(linear, found.mean, rtol=0, atol=1e-13)
    assert not w.requires_grad
    assert not b.requires_grad


@pytest.mark.parametrize("options", [{}, ESTAC, PAIR], ids=str)
def test_backup_online_and_actor_values(options):
    """Slow parameters, online ones, and the online ones with a gradient to the action alone."""
    critic, batch = make(beta=0.7, dropout=0.0, **options), make_batch()
    with torch.no_grad():
        for p in critic.target:
            p.mul_(1.3)
    action = batch.action.clone().requires_grad_()
    plain = [PlainSTAC(critic, run, 0.0 if options is ESTAC else 0.7) for run in (0, 1)]
    slow, online = (
        torch.stack([p.value(getattr(p, kind), batch.obs[r], action[r], None) for r, p in enumerate(plain)])
        for kind in ("slow", "nets")
    )
    value = critic.actor_value(batch.obs, action)
    torch.testing.assert_close(critic.backup_value(batch.obs, action), slow, rtol=0, atol=1e-13)
    torch.testing.assert_close(critic.online_value(batch.obs, action), online, rtol=0, atol=1e-13)
    torch.testing.assert_close(value, online, rtol=0, atol=1e-13)
    assert not critic.backup_value(batch.obs, action).requires_grad
    assert not critic.evaluate(batch.obs, action, target=True).mean.requires_grad
    assert not critic.online_value(batch.obs, action).requires_grad
    (wanted,) = torch.autograd.grad(online.sum(), action)
    grads = torch.autograd.grad(value.sum(), [action, *critic.parameters], allow_unused=True)
    torch.testing.assert_close(grads[0], wanted, rtol=0, atol=1e-13)
    assert grads[1:] == (None,) * len(critic.parameters)


def test_the_actor_is_told_of_the_spread():
    """Where mu does not depend on the action, the actor's gradient is -beta dsigma/da."""
    critic, batch = make(beta=0.7, dropout=0.0), make_batch()
    with torch.no_grad():
        critic.parameters[-2][..., 0] = 0.0
    action = batch.action.clone().requires_grad_()
    (found,) = torch.autograd.grad(critic.actor_value(batch.obs, action).sum(), action)
    (of_std,) = torch.autograd.grad(critic.evaluate(batch.obs, action).std.sum(), action)
    torch.testing.assert_close(found, -0.7 * of_std, rtol=0, atol=1e-14)
    assert of_std.abs().min() > 0


def test_t9_t11_the_target_is_a_constant_and_stops_at_terminals():
    critic, batch = make(discount=0.5, dropout=0.0), make_batch()
    for p in critic.target:
        p.requires_grad_()
    action = batch.action.clone().requires_grad_()
    bonus = torch.full_like(batch.reward, 3.0)
    y = critic.td_target(batch, action, bonus)
    assert not y.requires_grad
    ends = batch.terminal > 0
    assert torch.equal(y[ends], batch.reward[ends])
    goes_on = batch.reward + 0.5 * (critic.backup_value(batch.next_obs, action) + 3.0)
    torch.testing.assert_close(y[~ends], goes_on[~ends], rtol=0, atol=1e-14)


# Dropout


def test_t12_dropout_is_on_in_training_alone():
    batch = make_batch()
    rows = (batch.obs, batch.action)
    off, on, half = make(dropout=0.0), make(dropout=0.3), make(dropout=0.3, target_dropout=False)
    plain = [off.backup_value(*rows), off.online_value(*rows), off.actor_value(*rows), off.evaluate(*rows).mean[:, 0]]
    assert torch.equal(off.backup_value(*rows), plain[0])

    def found(critic):
        return [
            critic.backup_value(*rows),
            critic.online_value(*rows),
            critic.actor_value(*rows),
            critic.evaluate(*rows).mean[:, 0],
        ]

    for first, second, without in zip(found(on), found(on), plain, strict=True):
        assert not torch.equal(first, second)  # a second pass has masks of its own
        assert not torch.equal(first, without)
    assert torch.equal(found(half)[0], plain[0])
    assert not any(torch.equal(a, b) for a, b in zip(found(half)[1:], plain[1:], strict=True))
    on.eval()
    assert all(torch.equal(a, b) for a, b in zip(found(on), plain, strict=True))
    on.train()
    assert not any(torch.equal(a, b) for a, b in zip(found(on), plain, strict=True))


def test_each_kind_of_pass_has_masks_of_its_own():
    """So that no pass changes the numbers of another kind in its update."""
    critic, batch = make(dropout=0.3), make_batch()
    rows = (batch.obs, batch.action)
    kinds = {
        "target": lambda: critic.backup_value(*rows),
        "value": lambda: critic.online_value(*rows),
        "actor": lambda: critic.actor_value(*rows),
        "data": lambda: critic.evaluate(*rows).mean,
    }
    for name, one in kinds.items():
        critic.begin(3)
        first = one()
        for other_name in kinds.keys() - {name}:
            critic.begin(3)
            kinds[other_name]()
            assert torch.equal(one(), first), (name, other_name)


def test_masks_are_functions_of_the_update():
    critic, batch = make(dropout=0.3), make_batch()
    values = []
    for step in (5, 6, 5):
        critic.begin(step)
        values.append([f(batch.obs, batch.action) for f in (critic.backup_value, critic.online_value)])
    assert all(torch.equal(a, b) for a, b in zip(values[0], values[2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(values[0], values[1], strict=True))


# The whole update against the second implementation


def test_t13_the_target_moves_by_tau_in_every_parameter():
    critic, batch = make(tau=0.005, learning_rate=0.1), make_batch()
    start = [t.clone() for t in critic.target]
    critic.update(batch, batch.action)
    assert all(torch.equal(a, b) for a, b in zip(start, critic.target, strict=True))  # not in update
    critic.sync_target()
    for old, new, p in zip(start, critic.target, critic.parameters, strict=True):
        assert not torch.equal(old, p)
        torch.testing.assert_close(new, 0.995 * old + 0.005 * p.detach(), rtol=0, atol=1e-15)


CASES = {
    "published": {},
    "without dropout": {"dropout": 0.0},
    "much dropout": {"dropout": 0.3, "beta": 1.0},
    "slow copy whole": {"dropout": 0.3, "target_dropout": False},
    "ESTAC": {"dropout": 0.1, **ESTAC},
    "two pessimists": {"dropout": 0.1, **PAIR},
}


@pytest.mark.parametrize("low", [False, True], ids=["", "most z below -5"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_t16_updates_equal_the_second_implementation(options, low):
    """20 updates with the same weights, batches, bonuses and masks, to 1e-10; the actor's value and gradient, too."""
    critic = make(learning_rate=3e-3, tau=0.1, **options)
    with torch.no_grad():
        for stack in (critic.parameters, critic.target) if low else ():
            stack[-1][..., 1] -= 12.0
    beta = 0.0 if options.get("combine") == "min_mean" else options.get("beta", 0.25)
    plain = [PlainSTAC(critic, run, beta) for run in (0, 1)]
    p, members, philox = options.get("dropout", 0.01), critic.members, Philox(0, range(2))

    def masks(kind, step, run):
        drawn = draw_masks(philox, f"dropout.critic.{kind}", step, p, (12, 10), 9, members, F64)
        if drawn is None or (kind == "target" and not options.get("target_dropout", True)):
            return None
        return [[m[members * run + e] for m in drawn] for e in range(members)]

    floors = []
    for step in range(1, 21):
        batch, other = make_batch(seed=step), make_batch(seed=100 + step)
        critic.begin(step)
        floors.append(critic.update(batch, other.action, other.reward)["critic_std_floor"].mean().item())
        critic.sync_target()
        action = other.action.clone().requires_grad_()
        value = critic.actor_value(batch.obs, action)
        (grad,) = torch.autograd.grad(value.sum(), action)
        for run, reference in enumerate(plain):
            s, a, r, s2, d = (x[run] for x in batch[:5])
            drawn = {"masks": masks("data", step, run), "slow_masks": masks("target", step, run)}
            reference.update(s, a, r, s2, d, other.action[run], other.reward[run], **drawn)
            reference.sync()
            own = other.action[run].clone().requires_grad_()
            wanted = reference.value(reference.nets, s, own, masks("actor", step, run))
            torch.testing.assert_close(value[run], wanted, rtol=0, atol=1e-10)
            (of_own,) = torch.autograd.grad(wanted.sum(), own)
            torch.testing.assert_close(grad[run], of_own, rtol=0, atol=1e-10)
    assert max(reference.gap(critic) for reference in plain) < 1e-10
    assert (np.mean(floors) > 0.5) == low


def test_metrics_are_those_of_the_formulas():
    critic, batch = make(dropout=0.0, **ESTAC), make_batch()
    with torch.no_grad():
        critic.parameters[-1][0, 0, 1] = -5.0  # the first member of run 0: some z below -5
    found = critic.evaluate(batch.obs, batch.action)
    y = critic.td_target(batch, batch.action)
    nll = -torch.distributions.Normal(found.mean, found.std).log_prob(y.unsqueeze(1)).mean(2).sum(1)
    metrics = critic.update(batch, batch.action)
    assert not any(value.requires_grad for value in metrics.values())
    torch.testing.assert_close(metrics["critic_nll"], nll)
    torch.testing.assert_close(metrics["critic_loss"], nll - 2 * 0.9189385332046727)
    torch.testing.assert_close(metrics["critic_std"], found.std.mean((1, 2)))
    torch.testing.assert_close(metrics["q_data"], found.mean.mean((1, 2)))
    share = (found.raw_std < -5).double().mean((1, 2))
    torch.testing.assert_close(metrics["critic_std_floor"], share)
    assert 0 < share[0] < 0.5
    assert share[1] == 0
    edge = found._replace(raw_std=torch.full_like(found.mean, -5.0))  # where the gradient still passes
    assert not critic.evaluation_loss(edge, y)[1]["critic_std_floor"].any()
