"""The contract that every offline learner passes: updates, resuming, metrics, acting, actor and critic.

Files and bad input are in test_contract_files.py. An algorithm joins by one line in contract.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch

import offline_rl
from offline_rl import dropout_stack
from offline_rl import learner as learner_module
from tests.offline_rl.contract import DATA, assert_same
from tests.offline_rl.reference import make_data, moved, snapshot


def per_run(state, runs):
    """Run-major views of a state's tensors, without what all runs share."""
    shared = {"obs_mean", "obs_std"}
    return {n: t.reshape(runs, -1) for n, t in state.items() if t.ndim and n not in shared}


# Determinism and resuming


def test_same_seed_same_bits_and_another_seed_other_ones(case):
    first, again, other = (case.build(runs=2, seed=seed) for seed in (7, 7, 8))
    for learner in (first, again, other):
        learner.update(10)
    assert_same(snapshot(first), snapshot(again))
    assert moved(snapshot(first), snapshot(other), "actor.")


def test_runs_differ_from_each_other(case):
    learner = case.build(runs=3)
    for weights in (learner.actor[0].clone(), (learner.update(5), learner.actor[0])[1]):
        assert not any(torch.equal(weights[i], weights[j]) for i, j in itertools.combinations(range(3), 2))


# Random numbers are drawn a block at a time: short blocks, so that few updates cross their edges.
SHORT = 16


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(learner_module, "BLOCK", SHORT)
    monkeypatch.setattr(dropout_stack, "BLOCK", SHORT // 2)


@pytest.mark.parametrize(("a", "b"), [(13, 9), (1, 2), (SHORT, 3)])
def test_update_a_then_b_equals_update_a_plus_b(case, a, b, short_blocks):
    split, whole = case.build(runs=2), case.build(runs=2)
    split.update(a)
    split.update(b)
    whole.update(a + b)
    assert split.steps == whole.steps == a + b
    assert_same(snapshot(split), snapshot(whole))


def test_fit_equals_attach_and_update(case, short_blocks):
    fitted = case.build().fit(DATA, SHORT + 3, progress=False)
    updated = case.build()
    updated.update(SHORT + 3)
    assert_same(snapshot(fitted), snapshot(updated))


def test_resume_equals_straight_run(case, tmp_path):
    straight = case.build(runs=2)
    straight.update(45)
    stopped = case.build(runs=2)
    stopped.update(31)
    stopped.save(tmp_path / "checkpoint.safetensors")
    resumed = offline_rl.load(tmp_path)
    assert type(resumed) is case.kind
    assert resumed.config == stopped.config
    assert resumed.steps == 31
    resumed.attach(DATA)
    assert_same(snapshot(resumed), snapshot(stopped))
    resumed.update(14)
    assert_same(snapshot(resumed), snapshot(straight))


@pytest.mark.parametrize(
    ("dtype", "updates", "tolerance"), [(torch.float64, 100, 1e-12), (torch.float32, 20, 1e-5)], ids=str
)
def test_one_run_of_five_equals_the_run_alone(case, dtype, updates, tolerance):
    together = case.build(runs=5, dtype=dtype)
    together.update(updates)
    expected = per_run(together.state_dict(), 5)
    for run in (0, 4):
        alone = case.build(runs=[run], dtype=dtype)
        alone.update(updates)
        for name, tensor in per_run(alone.state_dict(), 1).items():
            assert (tensor[0] - expected[name][run]).abs().max() <= tolerance, (run, name)


def test_one_diverged_run_is_named_and_leaves_the_others_alone(case):
    healthy, poisoned = case.build(runs=3), case.build(runs=3)
    for learner in (healthy, poisoned):
        learner.update(4)
    with torch.no_grad():
        poisoned.actor[0][1] = float("nan")
    for learner in (healthy, poisoned):
        learner.update(20)
    assert healthy.finite().tolist() == [True, True, True]
    assert poisoned.finite().tolist() == [True, False, True]
    theirs = per_run(poisoned.state_dict(), 3)
    for name, tensor in per_run(healthy.state_dict(), 3).items():
        assert torch.equal(tensor[[0, 2]], theirs[name][[0, 2]]), name
    good, bad = healthy.metrics(), poisoned.metrics()
    for name in good:
        np.testing.assert_array_equal(bad[name][[0, 2]], good[name][[0, 2]])
    assert np.isnan(bad["actor_loss"][1])


def test_going_on_on_other_data_says_what_stays_and_what_is_made_anew(case):
    """The normaliser stays; rows and rewards are the new data's. The same data, or an untrained learner, no warning."""
    learner = case.build()
    other = dataclasses.replace(DATA, obs=DATA.obs + 1, reward=7 * DATA.reward - 1, name="other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.attach(other)
        learner.attach(DATA)
        learner.update(2)
        learner.attach(DATA)
    before, rewards = learner.obs_mean.clone(), learner._data[:, 5].clone()
    told = f"{learner.name} goes on on other data .other. than before .{DATA.name}.; its observation normaliser stays "
    with pytest.warns(
        UserWarning, match=f"^{told}that of the old data, .* rewards are scaled follow from the new data$"
    ):
        learner.attach(other)
    assert torch.equal(learner.obs_mean, before)
    assert not torch.equal(learner._data[:, 5], rewards)


# Metrics


def test_metrics_are_finite_one_per_run_and_reset_by_reading(case):
    learner = case.build(runs=3)
    learner.update(6)
    values = learner.metrics()
    assert "actor_loss" in values
    for name, value in values.items():
        assert value.shape == (3,), name
        assert np.isfinite(value).all(), name
    assert learner.metrics() == {}


def test_metrics_are_means_since_the_last_reading(case):
    one, both = case.build(runs=2), case.build(runs=2)
    one.update(2)
    first = one.metrics()
    one.update(2)
    second = one.metrics()
    both.update(4)
    for name, value in both.metrics().items():
        np.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-6)


# Acting


@pytest.mark.parametrize("runs", [1, 3])
def test_act_answers_in_shape_and_kind(case, runs):
    learner = case.build(runs=runs)
    lead = () if runs == 1 else (runs,)
    for shape, expected in (((3,), (*lead, 2)), ((7, 3), (*lead, 7, 2)), ((runs, 7, 3), (runs, 7, 2))):
        array = np.random.default_rng(0).normal(size=shape)
        action = learner.act(array)
        assert isinstance(action, np.ndarray)
        assert action.shape == expected
        assert action.dtype == np.float32
        tensor = learner.act(torch.tensor(array))
        assert isinstance(tensor, torch.Tensor)
        assert not tensor.requires_grad
        np.testing.assert_array_equal(tensor.numpy(), action)
        np.testing.assert_array_equal(learner.act(array, deterministic=False), action)


def test_act_takes_lists_views_and_no_rows(case):
    learner = case.build()
    np.testing.assert_array_equal(learner.act(DATA.obs[::-1]), learner.act(DATA.obs)[::-1])
    np.testing.assert_array_equal(learner.act(DATA.obs[0].tolist()), learner.act(DATA.obs[0]))
    assert learner.act(np.zeros((0, 3))).shape == (0, 2)


def test_act_gives_each_run_its_own_observation_and_policy(case):
    learner = case.build(runs=3)
    obs = np.random.default_rng(1).normal(size=(3, 7, 3))
    own = learner.act(obs)
    for run in range(3):
        shared = learner.act(obs[run])
        np.testing.assert_allclose(shared[run], own[run], atol=1e-6)
        np.testing.assert_allclose(learner.act(obs[run, 0])[run], own[run, 0], atol=1e-6)
    assert not np.allclose(own[0], learner.act(obs[0])[1], atol=1e-4)


def test_actions_never_leave_an_asymmetric_box(case):
    """Also where centre + scale * tanh rounds past the bound."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        low = rng.uniform(-3, 1, 4).astype(np.float32)
        high = (low + rng.uniform(0.1, 3, 4)).astype(np.float32)
        learner = case.kind(2, 4, low, high, **{"hidden": (4,), **case.hyperparameters})
        with torch.no_grad():
            learner.actor[-1].fill_(50.0 if trial % 2 else -50.0)
        action = learner.act(np.zeros(2))
        assert (action >= low).all()
        assert (action <= high).all()
        np.testing.assert_allclose(action, high if trial % 2 else low, rtol=1e-5, atol=1e-6)


def mapped(learner, obs, run):
    """The policy's map once more from the saved tensors: normaliser, perceptron, tanh (or none), stretch."""
    state = {name: tensor.numpy() for name, tensor in snapshot(learner).items()}
    x = (obs - state["obs_mean"]) / state["obs_std"]
    layers = [state[f"actor.{i}"][run] for i in range(len(learner.actor))]
    normed = getattr(learner.config, "actor_layer_norm", False)
    while len(layers) > 2:
        x = np.maximum(x @ layers[0] + layers[1], 0)
        if normed:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * layers[2] + layers[3]
        layers = layers[4 if normed else 2 :]
    x = x @ layers[0] + layers[1]
    x = np.tanh(x) if getattr(learner.config, "tanh_mean", True) else np.clip(x, -1, 1)
    low, high = DATA.action_low.astype(np.float64), DATA.action_high.astype(np.float64)
    return (low + high) / 2 + (high - low) / 2 * x


def test_act_is_the_policy_stretched_over_an_asymmetric_box(case):
    learner = case.build(runs=2, dtype=torch.float64)
    with torch.no_grad():
        learner.actor[-2].mul_(1.0 / learner.actor[-2].abs().max())  # outputs from one end of the box to the other
    obs = DATA.obs[:50].astype(np.float64)
    action = learner.act(obs)
    for run in (0, 1):
        np.testing.assert_allclose(action[run], mapped(learner, obs, run), rtol=0, atol=1e-12)
    inside = (action > DATA.action_low + 1e-6) & (action < DATA.action_high - 1e-6)
    assert inside.mean() > 0.3
    assert (action.std((0, 1)) > 0.05 * (DATA.action_high - DATA.action_low)).all()


def test_act_takes_raw_observations(case):
    """act applies the learner's own normaliser: (s - mean) / (std + 1e-3), statistics of the rows learned from."""
    learner = case.build(dtype=torch.float64)
    rows = learner._select(DATA).obs.astype(np.float64)
    np.testing.assert_allclose(learner.obs_mean.numpy(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(learner.obs_std.numpy(), rows.std(0) + 1e-3, rtol=1e-12)
    plain = case.build(dtype=torch.float64, normalise_obs=False)
    assert plain.obs_mean.tolist() == [0.0] * 3
    assert plain.obs_std.tolist() == [1.0] * 3
    raw = DATA.obs[:9].astype(np.float64)
    scaled = (raw - rows.mean(0)) / (rows.std(0) + 1e-3)
    np.testing.assert_allclose(learner.act(raw), plain.act(scaled), rtol=1e-10)


def test_a_column_without_variance_is_harmless(case):
    obs = DATA.obs.copy()
    obs[:, 1] = 3.0
    next_obs = DATA.next_obs.copy()
    next_obs[:, 1] = 3.0
    flat = make_data(low=DATA.action_low, high=DATA.action_high)
    learner = case.build(dataclasses.replace(flat, obs=obs, next_obs=next_obs))
    learner.update(10)
    assert learner.finite().all()
    assert np.isfinite(learner.act(obs)).all()


# Actor and critic


def test_gradients_stay_at_home(actor_critic, monkeypatch):
    """The critic trains the same with and without the actor's step; a step without it leaves the actor alone."""
    with_actor, without = actor_critic.build(runs=2), actor_critic.build(runs=2)
    monkeypatch.setattr(without, "_actor_step", lambda *_: None)
    start = snapshot(with_actor)
    with_actor.update(1)
    assert not moved(start, snapshot(with_actor), "actor")
    assert moved(start, snapshot(with_actor), "critic.online")
    with_actor.update(1)
    without.update(2)
    ours, theirs = snapshot(with_actor), snapshot(without)
    for name in ours:
        if name.startswith(("critic.online", "critic.adam")):
            assert torch.equal(ours[name], theirs[name]), name
    assert moved(ours, theirs, "actor.")
    assert all(p.grad is None for p in [*with_actor.actor, *with_actor.critic.parameters])


@pytest.mark.parametrize("period", [1, 2, 3])
def test_actor_and_targets_move_every_policy_period_updates_alone(actor_critic, period):
    learner = actor_critic.build(policy_period=period)
    for step in range(1, 7):
        before = snapshot(learner)
        learner.update(1)
        after = snapshot(learner)
        assert moved(before, after, "critic.online")
        for prefix in ("actor.", "actor_adam.", "actor_target.", "critic.target."):
            assert moved(before, after, prefix) == (step % period == 0), (prefix, step)


def test_target_networks_start_as_copies(actor_critic):
    state = snapshot(actor_critic.build(runs=2))
    for name, tensor in state.items():
        if name.startswith("actor."):
            assert torch.equal(tensor, state[name.replace("actor.", "actor_target.")])
        if name.startswith("critic.online."):
            assert torch.equal(tensor, state[name.replace("online", "target")])
    assert not torch.equal(state["critic.online.0"][0], state["critic.online.0"][1])
