"""TD3+BC against hand values, a second implementation and its limits (BC, TD3)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from offline_rl import BC, TD3BC
from offline_rl.td3_bc import scaled_value_loss, smoothed_action
from tests.offline_rl.reference import Reference, make_data

F64 = torch.float64
SMALL = {"runs": 2, "dtype": F64, "hidden": (16, 12), "batch_size": 20, "learning_rate": 3e-3}


def trained(data, steps, cls=TD3BC, **arguments):
    learner = cls.for_dataset(data, **{**SMALL, **arguments})
    learner.update(steps)
    return learner


def same(a, b, names=("actor", "critic")):
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[n], theirs[n]) for n in ours if n.startswith(names))


def test_smoothed_action_by_hand():
    """Box [-2, 2]: noise 0.2 * 2 * n clipped at 0.5 * 2, sum clipped to the box."""
    box = [torch.tensor([x]) for x in (2.0, -2.0, 2.0)]
    action = torch.tensor([0.5, 0.5, 0.5, 1.5, -1.9])[None, :, None]
    noise = torch.tensor([1.0, 9.0, -9.0, 9.0, -1.0])[None, :, None]
    found = smoothed_action(action, noise, 0.2, 0.5, *box)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.9, 1.5, -0.5, 2.0, -2.0]))


def test_smoothed_action_in_an_asymmetric_box():
    """Box [0, 1] x [-1, 5]: half ranges 0.5 and 3, so the clipped noise is 0.25 and 1.5."""
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 5.0])
    found = smoothed_action(
        torch.tensor([[[0.5, 2.0], [0.9, -0.9]]]),
        torch.tensor([[[9.0, 9.0], [9.0, -9.0]]]),
        0.2,
        0.5,
        (high - low) / 2,
        low,
        high,
    )
    torch.testing.assert_close(found, torch.tensor([[[0.75, 3.5], [1.0, -1.0]]]))


def test_scaled_value_loss_by_hand():
    """Values 2 and -4, mean |Q| = 3, alpha = 2.5: lambda = 2.5/3, loss = -lambda * (-1)."""
    loss, scale = scaled_value_loss(torch.tensor([[2.0, -4.0]]), torch.tensor([3.0]), 2.5)
    assert loss.item() == pytest.approx(2.5 / 3)
    assert scale.item() == pytest.approx(2.5 / 3)


def test_scaled_value_loss_has_a_constant_lambda():
    """d loss / d Q_b = -lambda / B, whatever the normaliser was made of; the values' own gradient is right."""
    value = torch.tensor([[2.0, -4.0]], dtype=F64, requires_grad=True)
    loss, scale = scaled_value_loss(value, value.abs().mean(1), 2.5)
    (grad,) = torch.autograd.grad(loss.sum(), value)
    torch.testing.assert_close(grad, torch.full_like(grad, -2.5 / 3 / 2))
    assert not scale.requires_grad
    constant = torch.tensor([3.0], dtype=F64)
    assert torch.autograd.gradcheck(lambda q: scaled_value_loss(q, constant, 2.5)[0], (value,))


CASES = {
    "default": ({}, {}),
    "A=2, d_a=1": ({"action_dim": 1, "low": -2.0, "high": 2.0}, {}),
    "asymmetric box": ({"low": [-0.3, 1.0], "high": [0.7, 4.0]}, {}),
    "d_a=3, shaped reward": ({"action_dim": 3}, {"reward_scale": 3.0, "reward_shift": -1.0}),
    "period 1, three layers": ({}, {"policy_period": 1, "hidden": (8, 7, 6)}),
    "period 3, loud noise": ({}, {"policy_period": 3, "policy_noise": 1.5, "noise_clip": 0.7, "tau": 0.3}),
    "discount, alpha": ({}, {"discount": 0.5, "alpha": 40.0}),
    "raw observations": ({}, {"normalise_obs": False}),
    "float32 statistics": ({}, {"stats_dtype": "float32"}),
}


@pytest.mark.parametrize(("shape", "arguments"), CASES.values(), ids=CASES)
def test_updates_equal_the_second_implementation(shape, arguments):
    """Four updates, two of them with an actor step (six where the period is 3), to 1e-10 in float64."""
    data = make_data(**shape)
    learner = TD3BC.for_dataset(data, **{**SMALL, **arguments})
    references = [Reference(learner, data, run) for run in (0, 1)]
    steps = 6 if arguments.get("policy_period") == 3 else 4
    learner.update(steps)
    for reference in references:
        assert reference.td3(steps).worst_gap() < 1e-10


def test_float32_stays_near_the_second_implementation():
    """Spec, section 9: 1e-6 absolute after a few updates where the order of operations differs."""
    data = make_data()
    single = TD3BC.for_dataset(data, **{**SMALL, "dtype": torch.float32, "learning_rate": 3e-4})
    double = TD3BC.for_dataset(data, **{**SMALL, "learning_rate": 3e-4})
    double.load_state_dict({n: t.to(F64) if "count" not in n else t for n, t in single.state_dict().items()}, 0)
    double.attach(data)
    single.update(4)
    double.update(4)
    for name, tensor in single.state_dict().items():
        if name.startswith(("actor.", "critic.online")):
            assert (tensor - double.state_dict()[name]).abs().max() < 1e-5, name


def test_metrics_are_those_of_the_formulas():
    """After one update with period 1: critic loss and Q at the start, actor terms after the critic's step."""
    data = make_data()
    learner = TD3BC.for_dataset(data, policy_period=1, **SMALL)
    obs = (data.obs - data.obs.mean(0, dtype=np.float64)) / (data.obs.std(0, dtype=np.float64) + 1e-3)
    rows = learner.philox.integers("batch", len(data), 1, 1, 20)[:, 0]
    start = learner.act(data.obs[rows.numpy()])
    learner.update(1)
    found = learner.metrics()
    action = torch.tensor(start)
    value = learner.critic.actor_value(torch.tensor(obs)[rows], action).detach()
    np.testing.assert_allclose(found["q_policy"], value.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found["scale"], 2.5 / value.abs().mean(1), rtol=1e-6)
    penalty = (start - data.action[rows.numpy()]) ** 2
    np.testing.assert_allclose(found["penalty"], penalty.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["actor_loss"], found["penalty"] - found["scale"] * found["q_policy"], rtol=1e-9)


def test_a_terminal_stops_bootstrapping_and_a_timeout_does_not():
    data = make_data()
    none, every = np.zeros(len(data)), np.ones(len(data))
    elsewhere = data.next_obs[::-1].copy()

    def variant(**fields):
        return trained(dataclasses.replace(data, **fields), 4)

    assert same(variant(terminal=none, timeout=every), variant(terminal=none, timeout=none))
    assert not same(variant(terminal=none, timeout=every), variant(terminal=none, timeout=every, next_obs=elsewhere))
    assert same(variant(terminal=every, timeout=none), variant(terminal=every, timeout=none, next_obs=elsewhere))


def test_alpha_0_with_period_1_is_behaviour_cloning():
    """Same seed, hence the same weights and batches; the actor's Adam then takes the same steps."""
    data = make_data(low=[-0.3, 1.0], high=[0.7, 4.0])
    ours, theirs = trained(data, 30, alpha=0.0, policy_period=1), trained(data, 30, BC)
    for a, b in zip(ours.actor, theirs.actor, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def actor_gradient(alpha, monkeypatch):
    """Flat gradients (runs, -1) of the first actor step, and the learner before it moved."""
    learner = TD3BC.for_dataset(make_data(), **SMALL, alpha=alpha)
    grads = []
    monkeypatch.setattr(learner.actor_optimiser, "step", grads.extend)
    learner.update(2)
    return torch.cat([g.flatten(1) for g in grads], 1), learner


def test_a_large_alpha_gives_td3_s_direction(monkeypatch):
    """The actor's gradient then points along that of -mean Q1(s, pi(s)), TD3's loss, in each run."""
    found, learner = actor_gradient(1e9, monkeypatch)
    data = make_data()
    rows = learner.philox.integers("batch", len(data), 2, 1, 20)[:, 0]
    for run in (0, 1):
        reference = Reference(learner, data, run)  # the critics as they are now: the actor has not moved
        s = reference.s[rows[run]]
        q = torch.cat([s, reference.policy(s, reference.actor)], 1)
        for W, b in reference.critics[0][:-1]:
            q = torch.relu(q @ W + b)
        W, b = reference.critics[0][-1]
        leaves = [p for layer in reference.actor for p in layer]
        wanted = torch.cat([g.flatten() for g in torch.autograd.grad(-(q @ W + b).mean(), leaves)])
        assert torch.nn.functional.cosine_similarity(found[run], wanted, dim=0) > 1 - 1e-12
    assert torch.nn.functional.cosine_similarity(actor_gradient(0.0, monkeypatch)[0][0], wanted, dim=0) < 0.9


def test_shaped_rewards_equal_a_dataset_with_those_rewards():
    data = make_data()
    shaped = dataclasses.replace(data, reward=4.0 * data.reward - 2.0)
    assert (
        trained(data, 4, reward_scale=4.0, reward_shift=-2.0)
        .critic.parameters[0]
        .sub(trained(shaped, 4).critic.parameters[0])
        .abs()
        .max()
        < 1e-7
    )  # the dataset rounds its rewards to float32


def test_normalising_by_hand_first_changes_nothing():
    """Statistics of float32 data are taken in float64: a normalised copy trains the same without normaliser."""
    data = make_data()
    mean, std = data.obs.mean(0, dtype=np.float64), data.obs.std(0, dtype=np.float64) + 1e-3
    ready = dataclasses.replace(data, obs=(data.obs - mean) / std, next_obs=(data.next_obs - mean) / std)
    ours, theirs = trained(data, 4), trained(ready, 4, normalise_obs=False)
    assert max((a - b).abs().max() for a, b in zip(ours.actor, theirs.actor, strict=True)) < 1e-5


def test_float32_statistics_are_numpy_s_own_call():
    """The authors' arithmetic, bit for bit: obs.mean(0), obs.std(0) + 1e-3 on float32 arrays."""
    rng = np.random.default_rng(0)
    data = make_data(rows=5000)
    data = dataclasses.replace(data, obs=rng.normal(50.0, 0.1, data.obs.shape))
    single = TD3BC.for_dataset(data, stats_dtype="float32", hidden=(4,))
    double = TD3BC.for_dataset(data, hidden=(4,))
    np.testing.assert_array_equal(single.obs_mean.numpy(), data.obs.mean(0))
    np.testing.assert_array_equal(single.obs_std.numpy(), data.obs.std(0) + 1e-3)
    assert not torch.equal(single.obs_mean, double.obs_mean)
    np.testing.assert_array_equal(double.obs_std.numpy(), (data.obs.std(0, dtype=np.float64) + 1e-3).astype(np.float32))
