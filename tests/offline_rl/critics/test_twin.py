"""The twin critic against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from offline_rl.critics import Batch, TwinCritic, td_target
from offline_rl.critics.twin import twin_loss
from orbs import Philox
from tests.offline_rl.reference import layers_of, net

F64 = torch.float64


def make(runs=2, **arguments):
    return TwinCritic(Philox(0, range(runs)), 3, 2, (6, 5), dtype=F64, **arguments)


def make_batch(runs=2, size=7):
    draw = torch.Generator().manual_seed(0)
    obs, action, next_obs = (torch.randn(runs, size, d, dtype=F64, generator=draw) for d in (3, 2, 3))
    reward, terminal = torch.randn(runs, size, dtype=F64, generator=draw), torch.zeros(runs, size, dtype=F64)
    terminal[:, 0] = 1.0
    return Batch(obs, action, reward, next_obs, terminal, torch.zeros(runs, size, dtype=torch.int64))


def values(critic, prefix, obs, action):
    """(R, 2, B) by plain matrix products."""
    state, x = critic.state(), torch.cat((obs, action), -1)
    runs = len(obs)
    return torch.stack(
        [torch.stack([net(x[r], layers_of(state, prefix, 2 * r + e))[:, 0] for e in (0, 1)]) for r in range(runs)]
    )


def test_td_target_by_hand():
    """r + 0.9 * 10: 1 + 9 where the episode goes on, 1 at a terminal."""
    ones = torch.ones(1, 2)
    assert td_target(ones, torch.tensor([[0.0, 1.0]]), 10 * ones, 0.9).tolist() == [[10.0, 1.0]]


def test_twin_loss_by_hand():
    """Members (1, 3) and (0, 2) against (0, 1): (1 + 4)/2 + (0 + 1)/2 = 3, a sum over members of means over rows."""
    assert twin_loss(torch.tensor([[[1.0, 3.0], [0.0, 2.0]]]), torch.tensor([[0.0, 1.0]])).tolist() == [3.0]


def test_twin_loss_gradcheck():
    draw = torch.Generator().manual_seed(0)
    q, y = (torch.randn(s, dtype=F64, generator=draw, requires_grad=True) for s in ((2, 2, 5), (2, 5)))
    assert torch.autograd.gradcheck(twin_loss, (q, y))


def test_evaluate_gives_both_members_and_their_features():
    critic, batch = make(), make_batch()
    plain, full = critic.evaluate(batch.obs, batch.action), critic.evaluate(batch.obs, batch.action, features=True)
    torch.testing.assert_close(plain.mean, values(critic, "online", batch.obs, batch.action), rtol=0, atol=1e-13)
    torch.testing.assert_close(full.mean, plain.mean, rtol=0, atol=1e-13)
    assert plain.std is None
    assert plain.features is None
    assert full.features.shape == (2, 2, 7, 5)
    W, b = (p.unflatten(0, (2, 2)) for p in critic.parameters[-2:])
    torch.testing.assert_close((full.features @ W + b)[..., 0], plain.mean, rtol=0, atol=1e-13)
    assert (full.features >= 0).all()
    for grads in zip(
        torch.autograd.grad(plain.mean.square().sum(), critic.parameters),
        torch.autograd.grad(full.mean.square().sum(), critic.parameters),
        strict=True,
    ):
        torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def test_the_backup_is_the_smaller_target_value_without_gradient():
    critic, batch = make(), make_batch()
    with torch.no_grad():
        for p in critic.parameters:
            p.add_(1.0)  # the online networks must not matter
    backup = critic.backup_value(batch.next_obs, batch.action)
    slow = values(critic, "target", batch.next_obs, batch.action)
    torch.testing.assert_close(backup, slow.min(1).values, rtol=0, atol=1e-13)
    assert not torch.equal(backup, slow[:, 0])
    assert not torch.equal(backup, slow[:, 1])
    assert not backup.requires_grad


def test_the_target_adds_the_bonus_to_the_backup_and_stops_at_terminals():
    critic, batch = make(discount=0.5), make_batch()
    backup = critic.backup_value(batch.next_obs, batch.action)
    for bonus in (None, torch.full_like(backup, 3.0)):
        y = critic.td_target(batch, batch.action, bonus)
        expected = batch.reward + 0.5 * (backup + (0.0 if bonus is None else 3.0))
        expected[:, 0] = batch.reward[:, 0]
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
        assert not y.requires_grad


def test_update_descends_its_own_loss_and_leaves_the_target_alone():
    critic, batch = make(learning_rate=1e-2), make_batch()
    before = [t.clone() for t in critic.target]
    y = critic.td_target(batch, batch.action)
    loss, metrics = critic.loss(batch, y, batch.action)
    assert loss.shape == (2,)
    torch.testing.assert_close(loss, twin_loss(values(critic, "online", batch.obs, batch.action), y))
    assert {k: v.shape for k, v in metrics.items()} == {"critic_loss": (2,), "q_data": (2,)}
    for _ in range(100):
        critic.update(batch, batch.action)
    assert (critic.loss(batch, y, batch.action)[0] < loss / 2).all()
    assert all(torch.equal(a, b) for a, b in zip(before, critic.target, strict=True))


@pytest.mark.parametrize("kind", ["q1", "min"])
def test_actor_value_and_its_gradient_through_the_action_alone(kind):
    critic, batch = make(actor_value=kind), make_batch()
    action = batch.action.clone().requires_grad_()
    both = values(critic, "online", batch.obs, action)
    expected = both[:, 0] if kind == "q1" else both.min(1).values
    value = critic.actor_value(batch.obs, action)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-13)
    (wanted,) = torch.autograd.grad(expected.sum(), action)
    grads = torch.autograd.grad(value.sum(), [action, *critic.parameters], allow_unused=True)
    torch.testing.assert_close(grads[0], wanted, rtol=0, atol=1e-13)
    assert grads[1:] == (None,) * len(critic.parameters)


def test_sync_target_moves_the_target_by_tau():
    critic = make(tau=0.25)
    with torch.no_grad():
        for p in critic.parameters:
            p.add_(2.0)
    before = [t.clone() for t in critic.target]
    critic.sync_target()
    for old, new, p in zip(before, critic.target, critic.parameters, strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * p.detach(), rtol=0, atol=1e-14)


def test_state_names_everything_that_training_needs():
    critic = make()
    kinds = {name.rsplit(".", 1)[0] for name in critic.state()}
    assert kinds == {"online", "target", "adam.mean", "adam.square", "adam.count"}
    assert len(critic.state()) == 5 * len(critic.parameters)


def test_another_critic_plugs_in_by_name(monkeypatch):
    """The actor calls the critic's interface alone, so a critic that is registered trains TD3BC and PRDC."""
    from offline_rl import PRDC, TD3BC
    from offline_rl.critics import CRITICS
    from tests.offline_rl.contract import DATA

    calls = []

    class Halved(TwinCritic):
        def actor_value(self, obs, action):
            calls.append(obs.shape)
            return 0.5 * super().actor_value(obs, action)

    monkeypatch.setitem(CRITICS, "halved", Halved)
    small = {"hidden": (8,), "batch_size": 16, "critic": "halved"}
    for learner in (TD3BC.for_dataset(DATA, **small), PRDC.for_dataset(DATA, beta=2.0, **small)):
        learner.update(4)
        assert isinstance(learner.critic, Halved)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="critic: expected one of twin"):
        TD3BC(3, 1, critic="twni")
