"""Critics inside TD3BC, PRDC and A2PR: chosen by configuration, told of updates, equal to a second implementation."""

from __future__ import annotations

import copy

import pytest
import torch

from offline_rl import A2PR, PRDC, TD3BC, ReBRAC
from offline_rl.config import A2PRConfig, PRDCConfig, TD3BCConfig
from offline_rl.critics import BEERRegularizer, GaussianCritic, TwinCritic, make_critic, td_target
from offline_rl.critics.layer_norm import LayerNormTwinCritic
from offline_rl.dropout_stack import draw_masks
from offline_rl.online.config import TD3Config
from orbs import Philox
from tests.offline_rl.contract import DATA
from tests.offline_rl.critics.plain import PlainNet, PlainSTAC
from tests.offline_rl.critics.test_beer import make_batch
from tests.offline_rl.reference import make_data

F64 = torch.float64
SMALL = {"runs": 2, "dtype": F64, "hidden": (12, 10), "batch_size": 16}


def small(cls, **arguments):
    own = {PRDC: {"beta": 2.0}, A2PR: {"critic_hidden": (12, 10), "vae_hidden": (8, 8)}}
    return cls.for_dataset(DATA, **{**SMALL, **own.get(cls, {}), **arguments})


# Configuration


def made(**fields):
    config = TD3BCConfig(discount=0.9, tau=0.1, learning_rate=0.01, **fields)
    return make_critic(config, Philox(0, [0, 1]), 3, 2, (4,), F64, policy=lambda obs: obs[..., :2])


def test_the_configuration_reaches_the_critic():
    assert type(made()) is TwinCritic
    plain = made(critic="stac", critic_beta=0.5, critic_dropout=0.2, critic_target_dropout=False)
    assert type(plain) is GaussianCritic
    assert (plain.beta, plain.dropout.probability, plain.target_dropout, plain.members) == (0.5, 0.2, False, 1)
    for critic in (made(critic="stac"), made(critic="stac", beer=0.1).critic, made(beer=0.1)):
        assert (critic.discount, critic.tau, critic.optimiser.learning_rate) == (0.9, 0.1, 0.01)
    assert [made(critic="stac", critic_combine=rule).members for rule in ("min_mean", "min_pess")] == [2, 2]
    wrapped = made(beer=0.1, beer_bound="author", beer_mask_terminal=False, beer_bias_correct=True)
    assert isinstance(wrapped, BEERRegularizer)
    assert isinstance(wrapped.critic, TwinCritic)
    assert (wrapped.weight, wrapped._mask_terminal, wrapped._bias_correct) == (0.1, False, True)
    assert wrapped._policy is not None
    assert made(beer=0.1)._policy is None


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("critic_beta", [-0.1, float("nan"), "x"]),
        ("critic_dropout", [-0.1, 1.0, None]),
        ("critic_target_dropout", [1, None]),
        ("critic_combine", ["min", None]),
        ("beer", [-1e-3, float("inf"), None]),
        ("beer_bound", ["none"]),
        ("beer_mask_terminal", [0]),
        ("beer_bias_correct", ["no"]),
    ],
)
def test_fields_out_of_range(field, values):
    for config, required in ((TD3BCConfig, {}), (PRDCConfig, {"beta": 2.0}), (A2PRConfig, {}), (TD3Config, {})):
        for value in values:
            with pytest.raises(ValueError, match=rf"\.{field}: expected .* Fix: "):
                config(**{field: value, **required})


def test_rebrac_keeps_its_own_critic():
    for field in ("critic", "beer", "critic_dropout"):
        with pytest.raises(ValueError, match=rf"rebrac\.{field}"):
            ReBRAC(3, 2, **{field: "stac"})


def test_a_critic_refuses_members_that_do_not_fit():
    for options in (
        {"members": 2},
        {"combine": "min_mean"},
        {"members": 3, "combine": "min_pess"},
        {"combine": "mean"},
    ):
        with pytest.raises(ValueError, match="critic_members: expected 1 with"):
            GaussianCritic(Philox(0, [0]), 3, 2, (4,), **options)
    for options, message in (({"beta": -1.0}, "critic_beta"), ({"clip_norm": 0.0}, "clip_norm")):
        with pytest.raises(ValueError, match=message):
            GaussianCritic(Philox(0, [0]), 3, 2, (4,), **options)


# Learners


@pytest.mark.parametrize("cls", [TD3BC, PRDC, A2PR])
@pytest.mark.parametrize("options", [{"critic": "stac"}, {"beer": 0.1}, {"critic": "stac", "beer": 0.1}], ids=str)
def test_an_update_begins_by_telling_its_number(cls, options, monkeypatch):
    learner, calls = small(cls, **options), []
    for name in ("begin", "td_target", "evaluate", "update", "actor_value", "online_value", "sync_target"):
        inner = getattr(learner.critic, name)
        monkeypatch.setattr(
            learner.critic,
            name,
            lambda *a, n=name, f=inner, **k: (calls.append((n, *a[: n == "begin"])), f(*a, **k))[1],
        )
    learner.update(3)
    begins = [i for i, call in enumerate(calls) if call[0] == "begin"]
    assert [calls[i] for i in begins] == [("begin", 1), ("begin", 2), ("begin", 3)]
    assert begins[0] == 0
    parts = [[call[0] for call in calls[a:b]] for a, b in zip(begins, [*begins[1:], None], strict=True)]
    assert all("update" in part for part in parts)
    assert ["sync_target" in part for part in parts] == [False, True, False]


@pytest.mark.parametrize("make", [TwinCritic, LayerNormTwinCritic], ids=lambda make: make.__name__)
def test_online_value_is_the_smaller_of_the_online_members(make):
    critic, batch = make(Philox(0, [0, 1]), 3, 2, (6, 5), dtype=F64), make_batch()
    with torch.no_grad():
        for p in critic.target:
            p.mul_(2.0)
    rows = (batch.obs, batch.action)
    online, slow = critic.evaluate(*rows).mean, critic.evaluate(*rows, target=True)
    assert torch.equal(critic.online_value(*rows), online.min(1).values)
    assert torch.equal(critic.backup_value(*rows), slow.mean.min(1).values)
    assert not torch.allclose(slow.mean, online)
    assert not slow.mean.requires_grad
    assert not critic.online_value(*rows).requires_grad
    for target in (False, True):
        full = critic.evaluate(*rows, features=True, target=target)
        parameters = critic.target if target else critic.parameters
        head = (full.features * parameters[-2].view(2, 2, 1, 5)).sum(-1) + parameters[-1].view(2, 2, 1)
        torch.testing.assert_close(full.mean, head, rtol=0, atol=1e-13)
    assert torch.equal(critic.head_weight(), critic.parameters[-2].view(2, 2, 5))
    assert torch.equal(critic.head_bias(), critic.parameters[-1].view(2, 2))


@pytest.mark.parametrize("critic", ["twin", "stac"])
def test_a2pr_s_value_learns_from_the_critic_s_own_online_value(critic, monkeypatch):
    """V regresses on the smaller of y and r + gamma (1 - d) online_value(s', a'), whatever the critic is."""
    learner = small(A2PR, critic=critic, **({"critic_dropout": 0.0} if critic == "stac" else {}))
    learner.update(3)
    with torch.no_grad():
        learner.critic.target[-1][..., 0] += 0.3  # else the fresh value is the larger one everywhere
    seen = {}
    step = learner._value_step
    monkeypatch.setattr(
        learner,
        "_value_step",
        lambda *rows: (seen.update(rows=rows, copy=copy.deepcopy(learner.critic)), step(*rows))[1],
    )
    module = __import__("offline_rl.a2pr", fromlist=["value_loss"])
    loss = module.value_loss
    monkeypatch.setattr(module, "value_loss", lambda v, y: (seen.update(y=y), loss(v, y))[1])
    learner.update(1)
    batch, action, target = seen["rows"]
    found = seen["copy"].evaluate(batch.next_obs, action)
    fresh = found.mean.amin(1) if critic == "twin" else (found.mean - 0.25 * found.std)[:, 0]
    wanted = torch.minimum(td_target(batch.reward, batch.terminal, fresh, 0.99), target)
    torch.testing.assert_close(seen["y"], wanted, rtol=0, atol=1e-13)
    assert (wanted < target).any()
    assert (wanted == target).any()


def test_td3bc_with_stac_equals_the_second_implementation():
    """20 updates: masks of each update and pass, the delayed actor and targets, -lambda (mu - beta sigma), to 1e-10."""
    options = {"critic": "stac", "critic_beta": 0.6, "critic_dropout": 0.2, "learning_rate": 3e-3, "tau": 0.1}
    data = make_data(low=[-0.3, 1.0], high=[0.7, 4.0])
    learner = TD3BC.for_dataset(data, **SMALL, normalise_obs=False, **options)
    plain = []
    for run in (0, 1):
        actor, slow = (PlainNet(stack, run, normed=False) for stack in (learner.actor, learner.actor_target))
        adam = torch.optim.Adam(actor.parameters(), lr=3e-3)
        plain.append((PlainSTAC(learner.critic, run, 0.6), actor, slow, adam))
    philox, n = Philox(0, range(2)), SMALL["batch_size"]
    low, high = (torch.tensor(x, dtype=torch.float32).double() for x in (data.action_low, data.action_high))
    columns = [torch.tensor(x, dtype=F64) for x in (data.obs, data.action, data.reward, data.next_obs, data.terminal)]

    def stretched(x):
        return (low + high) / 2 + (high - low) / 2 * torch.tanh(x)

    learner.update(20)
    for step in range(1, 21):
        rows = philox.integers("batch", len(data), step, 1, n)[:, 0]
        noise = philox.normal("target_noise", step, 1, 2 * n, F64)[:, 0].view(2, n, 2)
        masks = {
            k: draw_masks(philox, f"dropout.critic.{k}", step, 0.2, (12, 10), n, 1, F64)
            for k in ("data", "target", "actor")
        }
        for run, (critic, actor, slow, adam) in enumerate(plain):
            s, a, r, s2, d = (x[rows[run]] for x in columns)
            own = {k: [[m[run] for m in v]] for k, v in masks.items()}
            with torch.no_grad():
                a2 = stretched(slow(s2)) + (high - low) / 2 * torch.clamp(0.2 * noise[run], -0.5, 0.5)
                a2 = torch.minimum(torch.maximum(a2, low), high)
            critic.update(s, a, r, s2, d, a2, masks=own["data"], slow_masks=own["target"])
            if step % 2 == 0:
                p = stretched(actor(s))
                v = critic.value(critic.nets, s, p, own["actor"])
                adam.zero_grad()
                (-2.5 / v.abs().mean().item() * v.mean() + ((p - a) ** 2).mean()).backward()
                adam.step()
                critic.sync()
                with torch.no_grad():
                    for x, y in zip(slow.parameters(), actor.parameters(), strict=True):
                        x.copy_(0.9 * x + 0.1 * y)
    for run, (critic, actor, slow, _) in enumerate(plain):
        assert critic.gap(learner.critic) < 1e-10
        for stack, net in ((learner.actor, actor), (learner.actor_target, slow)):
            assert all((x[run] - y).abs().max() < 1e-10 for x, y in zip(stack, net.flat(), strict=True))


@pytest.mark.parametrize("cls", [TD3BC, A2PR])
@pytest.mark.parametrize("options", [{"critic_dropout": 0.1}, {"beer": 0.1, "beer_bound": "author"}], ids=str)
def test_no_host_synchronisation_within_an_update(cls, options, monkeypatch):
    learner = small(cls, critic="stac", critic_combine="min_pess", **options)
    learner._skip_rows = False
    learner.update(2)

    def refuse(*_):
        raise AssertionError("an update reads a tensor back")

    for name in ("item", "__bool__", "tolist", "cpu", "numpy", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    learner.update(4)


def test_beer_changes_the_critic_and_is_off_by_default():
    plain, off, on = (small(TD3BC, **options) for options in ({}, {"beer": 0.0}, {"beer": 0.1}))
    for learner in (plain, off, on):
        learner.update(6)
    assert type(off.critic) is TwinCritic
    assert all(torch.equal(a, b) for a, b in zip(plain.critic.parameters, off.critic.parameters, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain.critic.parameters, on.critic.parameters, strict=True))
    assert {"beer_penalty", "beer_active", "beer_bound"} == on.metrics().keys() - plain.metrics().keys()
