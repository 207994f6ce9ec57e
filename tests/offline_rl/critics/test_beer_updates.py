"""BEER's penalty in whole updates: against a second implementation, on a learned toy; ranks; refusals."""

from __future__ import annotations

import math

import pytest
import torch

from offline_rl.critics import Batch, Critic, GaussianCritic, TwinCritic, representation_rank
from offline_rl.critics.beer import BEERRegularizer
from offline_rl.networks import init_mlp
from orbs import Philox
from tests.offline_rl.critics.plain import PlainBEER, PlainNet
from tests.offline_rl.critics.test_beer import make_batch, twin

F64 = torch.float64


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind", ["consistent", "author"])
def test_updates_equal_the_second_implementation(kind, members):
    """20 updates from targets of other weights, with a penalty that acts and weighs, to 1e-10."""
    critic = twin(members=members, learning_rate=3e-3, tau=0.05)
    with torch.no_grad():
        for slow, other in zip(critic.target, twin(seed=1, members=members).parameters, strict=True):
            slow.copy_(other)
    actor = init_mlp(Philox(2, range(2)), "actor", (3, 8, 2), dtype=F64)
    nets = [PlainNet(actor, g, normed=False) for g in (0, 1)]
    single = [None, None]
    if kind == "author":
        single = [lambda obs, net=net: torch.tanh(net(obs)) for net in nets]

    def policy(obs):
        return torch.stack([one(o) for one, o in zip(single, obs, strict=True)])

    wrapped = BEERRegularizer(critic, 0.5, kind, policy=policy)
    plain = [PlainBEER(critic, run, 0.5, single[run]) for run in (0, 1)]
    shares, active = [], 0
    for step in range(1, 21):
        batch, after = make_batch(seed=step), make_batch(seed=50 + step).action
        wrapped.begin(step)
        shares.append(wrapped.update(batch, after)["beer_active"])
        wrapped.sync_target()
        for run, reference in enumerate(plain):
            active += reference.update(*(x[run] for x in batch[:5]), after[run])
            reference.sync()
    assert max(reference.gap(critic) for reference in plain) < 1e-10
    share = torch.stack(shares).mean().item()
    assert share == pytest.approx(active / (20 * 2 * members * 9))
    assert 0.1 < share < 0.9
    free = twin(members=members, learning_rate=3e-3, tau=0.05)
    for step in range(1, 21):
        free.update(make_batch(seed=step), make_batch(seed=50 + step).action)
    assert max((a - b).abs().max().item() for a, b in zip(free.parameters, critic.parameters, strict=True)) > 1e-3


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["consistent", "author"])
def test_a_learned_cycle_ends_within_the_bound(kind):
    """32 states on a circle, r = cos(3 angle), gamma 0.99, 6000 updates: no state violates at the end; active early."""
    runs, n = 3, 32
    angle = torch.arange(n) * (2 * math.pi / n)
    obs = torch.stack((torch.cos(angle), torch.sin(angle)), 1).expand(runs, n, 2).contiguous()
    reward, zero = torch.cos(3 * angle).expand(runs, n).contiguous(), torch.zeros(runs, n)
    action = torch.zeros(runs, n, 1)
    batch = Batch(obs, action, reward, obs.roll(-1, 1), zero, zero.long())
    critic = TwinCritic(Philox(0, range(runs)), 2, 1, (64, 64), members=1)
    wrapped = BEERRegularizer(critic, 0.1, kind, policy=lambda obs: obs[..., :1] * 0)
    active = []
    for step in range(1, 6001):
        wrapped.begin(step)
        active.append(wrapped.update(batch, action)["beer_active"])
        wrapped.sync_target()
    active = torch.stack(active)
    assert (active[-1] == 0).all()
    assert 0.005 < active.mean() < 0.2
    assert active[:600].mean() > 5 * active[3000:].mean()
    value = critic.online_value(obs, action)
    gap = torch.linalg.solve(torch.eye(n) - 0.99 * torch.eye(n).roll(1, 1), torch.cos(3 * angle)) - value
    assert gap.abs().mean() < 0.3


# Ranks


@pytest.mark.parametrize(("k", "srank"), [(1, 1), (4, 4), (16, 16), (256, 254)])
def test_ranks_of_one_hot_features(k, srank):
    found = representation_rank(torch.eye(k, dtype=F64).repeat(8, 1))
    assert (found.eps.item(), found.srank.item()) == (k, srank)


def test_a_singular_value_equal_to_eps_does_not_count():
    features = torch.eye(4, dtype=F64)  # of X / sqrt(n): 1/2, four times
    assert [representation_rank(features, eps=eps).eps.item() for eps in (0.5, 0.499)] == [0, 4]


def test_ranks_of_planted_singular_values():
    """Of X / sqrt(n): 10, 1, 0.1, 0.01, 0.001; run by run in a batch."""
    n, width = 200, 12
    values = torch.tensor([10.0, 1.0, 0.1, 0.01, 0.001], dtype=F64)
    stack = []
    for seed in range(3):
        left, _ = torch.linalg.qr(torch.randn(n, 5, dtype=F64, generator=torch.manual_seed(seed)))
        right, _ = torch.linalg.qr(torch.randn(width, 5, dtype=F64, generator=torch.manual_seed(seed + 9)))
        stack.append((left * values * n**0.5) @ right.T)
    stack.append(torch.zeros(n, width, dtype=F64))
    stack.append(torch.full((n, width), torch.nan, dtype=F64))
    for eps, rank in ((0.5, 2), (0.05, 3), (0.005, 4), (0.0005, 5)):
        found = representation_rank(torch.stack(stack), eps=eps)
        assert found.eps[:4].tolist() == [rank, rank, rank, 0]
        assert found.srank[:4].tolist() == [2, 2, 2, 0]
        assert found.eps[4].isnan()
        assert found.srank[4].isnan()
    with pytest.raises(ValueError, match=r"representation_rank\.features: expected at least one row"):
        representation_rank(torch.zeros(0, 4))


# Refusals


class Featureless(TwinCritic):
    def evaluate(self, obs, action, features=False, target=False):
        return super().evaluate(obs, action, False, target)


class Headless(TwinCritic):
    head_weight, head_bias = Critic.head_weight, Critic.head_bias


class Foreign:
    pass


def test_a_critic_without_features_is_one_clear_error():
    with pytest.raises(TypeError, match=r"expected a critic that exposes features, .* got Headless\. Fix: "):
        BEERRegularizer(Headless(Philox(0, [0]), 3, 2, (4,)), 0.1)
    with pytest.raises(TypeError, match=r"expected a critic that exposes features, .* got Foreign\. Fix: "):
        BEERRegularizer(Foreign(), 0.1)
    hidden = BEERRegularizer(Featureless(Philox(0, range(2)), 3, 2, (4,), dtype=F64), 0.1)
    with pytest.raises(TypeError, match=r"expected a critic that exposes features, .* got Featureless\. Fix: "):
        hidden.update(make_batch(), make_batch().action)


def test_bad_arguments_are_refused():
    for arguments, message in (
        ({"weight": -1.0}, "beer: expected a finite number of at least 0"),
        ({"weight": float("nan")}, "beer: expected a finite number of at least 0"),
        ({"weight": 0.1, "bound": "none"}, "beer_bound: expected 'consistent' or 'author'"),
        ({"weight": 0.1, "bound": "author"}, "beer_bound: expected a policy beside 'author'"),
    ):
        with pytest.raises(ValueError, match=message):
            BEERRegularizer(twin(), **arguments)
    with pytest.raises(ValueError, match="discount: expected a number above 0"):
        BEERRegularizer(twin(discount=0.0), 0.1)
    myopic, batch = BEERRegularizer(twin(discount=0.0), 0.0), make_batch()  # no penalty, no bound
    assert torch.equal(myopic.td_target(batch, batch.action), batch.reward)


def test_the_rest_is_the_inner_critics():
    inner = GaussianCritic(Philox(0, range(2)), 3, 2, (4,), dtype=F64, dropout=0.3)
    wrapped, batch = BEERRegularizer(inner, 0.1), make_batch()
    for name in ("backup_value", "online_value", "actor_value"):
        wrapped.begin(3)
        found = getattr(wrapped, name)(batch.obs, batch.action)
        inner.begin(3)
        assert torch.equal(found, getattr(inner, name)(batch.obs, batch.action)), name
    wrapped.eval()
    assert torch.equal(inner.online_value(batch.obs, batch.action), inner.online_value(batch.obs, batch.action))
    wrapped.train()
    assert not torch.equal(inner.online_value(batch.obs, batch.action), inner.online_value(batch.obs, batch.action))
    assert wrapped.state().keys() == inner.state().keys()
    assert torch.equal(wrapped.head_weight(), inner.head_weight())
    assert torch.equal(wrapped.head_bias(), inner.head_bias())
