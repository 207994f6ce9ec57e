"""BEER's penalty against hand values, identities and a second implementation; the ranks of a representation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from offline_rl.critics import Batch, GaussianCritic, TwinCritic
from offline_rl.critics.beer import BEERRegularizer, bound, regulariser
from orbs import Philox

F64 = torch.float64
PHI, NEXT, W = ([3.0, 4.0], [4.0, 3.0], [1.0, 1.0])


def tensor(values):
    return torch.tensor(values, dtype=F64)


def hand(rewards, terminal=0.0, gamma=0.9, phi=PHI, after=NEXT, w=W, **options):
    """The penalties of one pair of features at several rewards."""
    shape = (1, 1, len(rewards), 2)
    features, following = (tensor(x).expand(shape) for x in (phi, after))
    ends = torch.full((1, len(rewards)), terminal, dtype=F64)
    return regulariser(features, following, tensor([rewards]), ends, tensor([[w]]), gamma, **options)


def random(seed=0, runs=2, members=2, rows=50, width=6):
    """Features as ReLUs give them, features of the next pair, rewards, w and b."""
    draw = torch.Generator().manual_seed(seed)
    phi, after = (torch.randn(runs, members, rows, width, dtype=F64, generator=draw).relu() for _ in range(2))
    reward = torch.randn(runs, rows, dtype=F64, generator=draw)
    w, b = (torch.randn(runs, members, *d, dtype=F64, generator=draw) for d in ((width,), ()))
    return phi + 1e-3, after + 1e-3, reward, w, b


def excess(phi, after, reward, w, gamma, **options):
    """cos - U without the ReLU."""
    return torch.cosine_similarity(phi, after, dim=-1) - bound(phi, after, reward, w, gamma, **options)


# The penalty


def test_the_hand_case():
    """phi = (3, 4), phi' = (4, 3), w = (1, 1), gamma = 0.9: cos = 0.96; the penalty begins at |r| = 2.024846."""
    rewards = [0.0, 1.0, 2.0, 5.0, -5.0]
    features, following = (tensor(x).expand(1, 1, 5, 2) for x in (PHI, NEXT))
    found = bound(features, following, tensor([rewards]), tensor([[W]]), 0.9)
    wanted = [1.0055556, 0.9944444, 0.9611111, 0.7277778, 0.7277778]
    torch.testing.assert_close(found[0, 0], tensor(wanted), rtol=0, atol=5e-8)
    penalty = hand(rewards)
    assert penalty.shape == (1, 1, 5)
    assert penalty[0, 0, :3].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(penalty[0, 0, 3:], tensor([0.2322222, 0.2322222]), rtol=0, atol=5e-8)
    assert (hand([2.024845, 2.024847]) > 0)[0, 0].tolist() == [False, True]


def test_runs_and_members_have_their_own_features_and_weights():
    phi, after, reward, w, _ = random()
    reward = 5 * reward
    whole = regulariser(phi, after, reward, torch.zeros_like(reward), w, 0.9)
    for r in (0, 1):
        for e in (0, 1):
            U = (
                phi[r, e].norm(dim=1) ** 2 + 0.81 * after[r, e].norm(dim=1) ** 2 - (reward[r] / w[r, e].norm()) ** 2
            ) / (1.8 * phi[r, e].norm(dim=1) * after[r, e].norm(dim=1))
            wanted = (torch.cosine_similarity(phi[r, e], after[r, e], dim=1) - U).relu()
            torch.testing.assert_close(whole[r, e], wanted, rtol=0, atol=1e-12)
    assert 0.2 < (whole > 0).double().mean() < 0.9


def test_the_gradient_passes_through_the_cosine_alone():
    """r = 5: dR/dphi = (0.0448, -0.0336), orthogonal to phi; all else is a constant; no penalty, no gradient."""
    phi, after, w, online = (tensor([[[x]]]).requires_grad_() for x in (PHI, NEXT, W, NEXT))
    reward, b = tensor([[5.0]]).requires_grad_(), tensor([[0.0]]).requires_grad_()
    inputs = [phi, after, w, online, reward, b]

    def gradients(reward):
        options = {"next_features_online": online, "head_bias": b, "mask_terminal": False}
        found = regulariser(phi, after, reward, torch.zeros(1, 1), w[0], 0.9, **options)
        return torch.autograd.grad(found.sum(), inputs, allow_unused=True)

    found = gradients(reward)
    torch.testing.assert_close(found[0].flatten(), tensor([0.0448, -0.0336]), rtol=0, atol=1e-12)
    assert abs((found[0] * phi).sum().item()) < 1e-15
    assert found[1:] == (None,) * 5
    assert gradients(0.2 * reward)[0].tolist() == [[[[0.0, 0.0]]]]


def test_identities():
    """U = 1 + ((x - z)^2 - rho^2) / (2 x z); U - cos = (|phi - gamma phi'|^2 - rho^2) / (2 x z); U >= 1 at r = 0."""
    phi, after, reward, w, _ = random(rows=500)
    x, z = phi.norm(dim=-1), 0.9 * after.norm(dim=-1)
    rho = reward.abs().unsqueeze(1) / w.norm(dim=-1, keepdim=True)
    found = bound(phi, after, reward, w, 0.9)
    torch.testing.assert_close(found, 1 + ((x - z) ** 2 - rho**2) / (2 * x * z), rtol=1e-12, atol=1e-12)
    gap = ((phi - 0.9 * after).norm(dim=-1) ** 2 - rho**2) / (2 * x * z)
    torch.testing.assert_close(-excess(phi, after, reward, w, 0.9), gap, rtol=1e-12, atol=1e-12)
    assert bound(phi, after, 0 * reward, w, 0.9).min() >= 1


@pytest.mark.parametrize("biased", [False, True])
def test_zero_where_the_bellman_equation_holds(biased):
    """phi = gamma phi' + r w / |w|^2 + u with u orthogonal to w: U - cos = |u|^2 / (2 gamma |phi| |phi'|)."""
    _, after, reward, w, b = random()
    u = torch.randn(after.shape, dtype=F64, generator=torch.manual_seed(1))
    w_, square = w.unsqueeze(2), w.square().sum(-1)[..., None, None]
    u = u - (u * w_).sum(-1, keepdim=True) * w_ / square
    r = reward.unsqueeze(1) - (0.1 * b.unsqueeze(-1) if biased else 0.0)
    options = {"head_bias": b} if biased else {}
    for part in (u, 0 * u):
        phi = 0.9 * after + r.unsqueeze(-1) * w_ / square + part
        value, next_value = ((f * w_).sum(-1) + (b.unsqueeze(-1) if biased else 0.0) for f in (phi, after))
        torch.testing.assert_close(value, reward.unsqueeze(1) + 0.9 * next_value, rtol=0, atol=1e-12)
        wanted = part.square().sum(-1) / (1.8 * phi.norm(dim=-1) * after.norm(dim=-1))
        torch.testing.assert_close(-excess(phi, after, reward, w, 0.9, **options), wanted, rtol=0, atol=1e-11)
        assert regulariser(phi, after, reward, 0 * reward, w, 0.9, **options).max() < 1e-11
    if biased:  # without the correction the bound is another
        assert excess(phi, after, reward, w, 0.9).abs().max() > 1e-3


def test_a_deterministic_cycle_is_never_penalised():
    """One-hot features and w = (I - gamma P)^-1 r: R = 0 in every state for any rewards."""
    n, gamma = 7, 0.9
    P = torch.eye(n, dtype=F64).roll(-1, 0)
    for seed in range(5):
        reward = 3 * torch.randn(n, dtype=F64, generator=torch.manual_seed(seed))
        w = torch.linalg.solve(torch.eye(n, dtype=F64) - gamma * P, reward)
        eye = torch.eye(n, dtype=F64)
        pair, ends = (eye[None, None], (P @ eye)[None, None]), torch.zeros(1, n)
        assert regulariser(*pair, reward[None], ends, w[None, None], gamma).max() <= 1e-12
        assert regulariser(*pair, 100 * reward[None], ends, w[None, None], gamma).max() > 0  # of other rewards than w's


def test_a_random_chain_needs_the_expected_next_feature():
    """5 states, dense features, Phi w = V: R = 0 for E[phi'], positive for some single phi' in most problems."""
    positive = []
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        P, features, reward = (torch.rand(5, d, dtype=F64, generator=draw) for d in (5, 8, 1))
        P, reward = P / P.sum(1, keepdim=True), reward[:, 0] * 2 - 1
        V = torch.linalg.solve(torch.eye(5, dtype=F64) - 0.9 * P, reward)
        w = (torch.linalg.pinv(features) @ V)[None, None]
        mean = regulariser(features[None, None], (P @ features)[None, None], reward[None], 0 * reward[None], w, 0.9)
        assert mean.max() < 1e-12
        pairs = [features[:, None].expand(5, 5, 8), features[None].expand(5, 5, 8)]
        phi, after = (pair.reshape(1, 1, 25, 8) for pair in pairs)
        rewards = reward[:, None].expand(5, 5).reshape(1, 25)
        positive.append(regulariser(phi, after, rewards, 0 * rewards, w, 0.9).max().item() > 1e-6)
    assert sum(positive) > 30


def test_zero_rewards_are_never_penalised_but_by_the_authors_variant():
    for dtype, most in ((F64, 0.0), (torch.float32, 1e-6)):
        phi, after, reward, w, _ = (x.to(dtype) for x in random(rows=2000, width=64))
        phi[..., :500, :] = after[..., :500, :] * 0.9  # where cos and U are both about 1
        found = regulariser(phi, after, 0 * reward, 0 * reward, w, 0.9)
        assert found.max() <= max(most, 1e-15)
        short = regulariser(phi, after, 0 * reward, 0 * reward, w, 0.9, next_features_online=0.2 * after)
        assert short.max() > 0.1


def test_the_variants_agree_where_online_and_slow_features_do():
    phi, after, reward, w, _ = random()
    same = regulariser(phi, after, reward, 0 * reward, w, 0.9, next_features_online=after.clone())
    assert torch.equal(same, regulariser(phi, after, reward, 0 * reward, w, 0.9))
    online = 1.2 * after
    U = bound(phi, after, reward, w, 0.9, next_features_online=online)
    x, z, rho = phi.norm(dim=-1), after.norm(dim=-1), reward.unsqueeze(1) / w.norm(dim=-1, keepdim=True)
    wanted = (x**2 + 0.81 * online.norm(dim=-1) ** 2 - rho**2) / (1.8 * x * z)
    torch.testing.assert_close(U, wanted, rtol=1e-12, atol=1e-12)


def test_descending_the_penalty_turns_the_features_until_the_bound_holds():
    """r = 5 of the hand case, step 0.5: cos falls from 0.96 below 0.729 in about 52 steps, |phi| grows to 5.012."""
    phi, after = tensor([[[PHI]]]), tensor([[[NEXT]]])
    cosines = []
    while len(cosines) < 200:
        phi.requires_grad_()
        penalty = regulariser(phi, after, tensor([[5.0]]), torch.zeros(1, 1), tensor([[W]]), 0.9)
        cosines.append(torch.cosine_similarity(phi, after, dim=-1).item())
        if penalty.item() == 0:
            break
        (grad,) = torch.autograd.grad(penalty.sum(), phi)
        phi = (phi - 0.5 * grad).detach()
    assert 48 <= len(cosines) - 1 <= 56
    assert all(a > b for a, b in itertools.pairwise(cosines))
    assert cosines[-1] < 0.73
    assert phi.norm().item() == pytest.approx(5.012, abs=1e-3)


@pytest.mark.parametrize("dead", ["phi", "next", "both", "w"])
def test_vanishing_features_have_no_bound(dead):
    """A norm below 1e-6: U = +inf, penalty 0, a finite gradient; from there on the bound is as ever."""
    for size, active in ((0.0, False), (5e-7, False), (1e-6, True), (2e-6, True)):
        small = tensor([size, 0.0])
        phi = (small if dead in ("phi", "both") else tensor(PHI)).view(1, 1, 1, 2).clone().requires_grad_()
        after = (small if dead in ("next", "both") else tensor(NEXT)).view(1, 1, 1, 2)
        w = (small if dead == "w" else tensor(W)).view(1, 1, 2)
        U = bound(phi, after, tensor([[50.0]]), w, 0.9)
        penalty = regulariser(phi, after, tensor([[50.0]]), torch.zeros(1, 1), w, 0.9)
        (grad,) = torch.autograd.grad(penalty.sum(), phi)
        assert torch.isfinite(grad).all()
        assert (U.item() != math.inf) == active
        assert (penalty.item() > 0) == active
        assert math.isfinite(penalty.item())
        assert grad.any() == (active and dead != "both")  # parallel features cannot be turned


def test_terminals_are_masked():
    assert hand([5.0], terminal=1.0).item() == 0.0
    assert hand([5.0], terminal=1.0, mask_terminal=False).item() == hand([5.0]).item() > 0


# The wrapped critic


def twin(runs=2, seed=0, **arguments):
    return TwinCritic(Philox(seed, range(runs)), 3, 2, (12, 10), dtype=F64, **arguments)


def stac(runs=2, seed=0, **arguments):
    return GaussianCritic(Philox(seed, range(runs)), 3, 2, (12, 10), dtype=F64, **arguments)


def make_batch(runs=2, size=9, seed=0):
    draw = torch.Generator().manual_seed(seed)
    obs, action, next_obs = (torch.randn(runs, size, d, dtype=F64, generator=draw) for d in (3, 2, 3))
    reward, terminal = torch.randn(runs, size, dtype=F64, generator=draw), torch.zeros(runs, size, dtype=F64)
    terminal[:, ::4] = 1.0
    return Batch(obs, action, reward, next_obs, terminal, torch.zeros(runs, size, dtype=torch.int64))


@pytest.mark.parametrize("make", [twin, stac])
def test_weight_0_is_the_inner_critic_to_the_last_bit(make):
    plain, wrapped = make(), BEERRegularizer(make(), 0.0)
    for step in range(1, 6):
        batch = make_batch(seed=step)
        found = []
        for critic in (plain, wrapped):
            critic.begin(step)
            found.append(critic.update(batch, batch.action, batch.reward))
            critic.sync_target()
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(torch.equal(a, b) for a, b in zip(plain.state().values(), wrapped.state().values(), strict=True))


@pytest.mark.parametrize("make", [twin, stac])
def test_loss_is_the_inner_one_and_the_mean_penalty_of_each_member(make):
    options = {"members": 2, "combine": "min_mean", "dropout": 0.0} if make is stac else {}
    critic, batch = make(**options), make_batch()
    inner = critic.evaluate(batch.obs, batch.action, features=True)
    after = critic.evaluate(batch.next_obs, batch.action, features=True, target=True).features
    for correct in (False, True):
        wrapped = BEERRegularizer(critic, 0.7, mask_terminal=not correct, bias_correct=correct)
        y = wrapped.td_target(batch, batch.action)
        assert torch.equal(y, critic.td_target(batch, batch.action))
        extra = {"head_bias": critic.head_bias() if correct else None, "mask_terminal": not correct}
        penalty = regulariser(inner.features, after, batch.reward, batch.terminal, critic.head_weight(), 0.99, **extra)
        loss, metrics = wrapped.loss(batch, y, batch.action)
        plain, own = critic.loss(batch, y, batch.action)
        torch.testing.assert_close(loss, plain + 0.7 * penalty.mean(2).sum(1), rtol=1e-12, atol=0)
        assert (penalty > 0).any(2).any(1).all()
        torch.testing.assert_close(metrics["beer_penalty"], penalty.mean((1, 2)).detach())
        torch.testing.assert_close(metrics["beer_active"], (penalty > 0).double().mean((1, 2)))
        U = bound(inner.features, after, batch.reward, critic.head_weight(), 0.99, head_bias=extra["head_bias"])
        torch.testing.assert_close(metrics["beer_bound"], U.clamp(-1, 1).mean((1, 2)))
        assert all(torch.equal(metrics[name], own[name]) for name in own)


@pytest.mark.parametrize("weight", [0.0, 0.1])
@pytest.mark.parametrize("make", [twin, stac])
def test_a_bonus_is_backed_up_as_the_inner_critic_does(make, weight):
    """An entropy's, in soft agents."""
    critic, batch = make(**({"dropout": 0.0} if make is stac else {})), make_batch()
    wrapped, bonus = BEERRegularizer(critic, weight), batch.reward + 3.0
    found = wrapped.td_target(batch, batch.action, bonus)
    assert torch.equal(found, critic.td_target(batch, batch.action, bonus))
    goes_on = batch.terminal == 0
    plain = wrapped.td_target(batch, batch.action)
    torch.testing.assert_close((found - plain)[goes_on], 0.99 * bonus[goes_on], rtol=0, atol=1e-14)
    assert torch.equal(found[~goes_on], batch.reward[~goes_on])


@pytest.mark.parametrize("given", [False, True])
def test_no_network_runs_twice_on_the_same_input(given, monkeypatch):
    """Two forward passes an update, one of the slow parameters, one of the online ones; the author's has one more."""
    for policy, passes in ((None, 2), (lambda obs: obs[..., :2], 3)):
        critic = twin()
        wrapped = BEERRegularizer(critic, 0.1, "author" if policy else "consistent", policy=policy)
        calls, evaluate = [], critic.evaluate
        monkeypatch.setattr(critic, "evaluate", lambda *a, f=evaluate, c=calls, **k: (c.append(k), f(*a, **k))[1])
        batch = make_batch()
        wrapped.begin(1)
        target = wrapped.td_target(batch, batch.action) if given else None
        wrapped.update(batch, batch.action, target=target)
        assert [k.get("target", False) for k in calls].count(True) == 1
        assert len(calls) == passes


def test_features_of_the_slow_parameters_are_never_stale():
    """Another action than y's, other states, moved targets, another update: the pass is made anew."""
    critic, batch, other = twin(tau=0.5), make_batch(), make_batch(seed=1)
    wrapped = BEERRegularizer(critic, 10.0)
    y = wrapped.td_target(batch, other.action)

    def penalty(action, next_obs=batch.next_obs):
        after = critic.evaluate(next_obs, action, features=True, target=True).features
        phi = critic.evaluate(batch.obs, batch.action, features=True).features
        return regulariser(phi, after, batch.reward, batch.terminal, critic.head_weight(), 0.99).mean((1, 2))

    def found(action):
        return wrapped.loss(batch, y, action)[1]["beer_penalty"]

    torch.testing.assert_close(found(other.action), penalty(other.action), rtol=0, atol=1e-14)
    torch.testing.assert_close(found(batch.action), penalty(batch.action), rtol=0, atol=1e-14)
    assert not torch.equal(penalty(other.action), penalty(batch.action))
    elsewhere = wrapped.loss(batch._replace(next_obs=other.next_obs), y, other.action)[1]["beer_penalty"]
    torch.testing.assert_close(elsewhere, penalty(other.action, other.next_obs), rtol=0, atol=1e-14)
    assert not torch.equal(penalty(other.action, other.next_obs), penalty(other.action))
    with torch.no_grad():
        for p in critic.parameters:
            p.add_(0.1)
    before = penalty(other.action)
    wrapped.sync_target()
    assert not torch.equal(penalty(other.action), before)
    torch.testing.assert_close(found(other.action), penalty(other.action), rtol=0, atol=1e-14)
    wrapped.td_target(batch, other.action)
    for slow in critic.target:  # as loading a checkpoint does
        slow.mul_(0.9)
    wrapped.begin(2)
    torch.testing.assert_close(found(other.action), penalty(other.action), rtol=0, atol=1e-14)
