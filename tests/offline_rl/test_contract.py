"""The contract that every offline learner passes; an algorithm joins by one line in contract.py."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import offline_rl
from offline_rl.config import CONFIGS
from offline_rl.learner import BLOCK
from orbs import Transitions, load_tensors, save_tensors
from tests.offline_rl.contract import CASES, DATA
from tests.offline_rl.reference import make_data, moved, snapshot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(params=[case for case in CASES if case.actor_critic], ids=lambda case: case.name)
def actor_critic(request):
    return request.param


def assert_same(a, b):
    """Two snapshots are equal to the last bit."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


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


@pytest.mark.parametrize(("a", "b"), [(100, 57), (1, 2), (BLOCK, 3)])
def test_update_a_then_b_equals_update_a_plus_b(case, a, b):
    split, whole = case.build(runs=2), case.build(runs=2)
    split.update(a)
    split.update(b)
    whole.update(a + b)
    assert split.steps == whole.steps == a + b
    assert_same(snapshot(split), snapshot(whole))


def test_fit_equals_attach_and_update(case):
    fitted = case.build().fit(DATA, 130, progress=False)
    updated = case.build()
    updated.update(130)
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
    for run in range(5):
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


def test_actions_never_leave_an_asymmetric_box():
    """Also where centre + scale * tanh rounds past the bound."""
    rng = np.random.default_rng(0)
    for trial in range(40):
        low = rng.uniform(-3, 1, 4).astype(np.float32)
        high = (low + rng.uniform(0.1, 3, 4)).astype(np.float32)
        for case in CASES[:1] + CASES[2:4]:
            learner = case.kind(2, 4, low, high, hidden=(4,), **case.hyperparameters)
            with torch.no_grad():
                learner.actor[-1].fill_(50.0 if trial % 2 else -50.0)
            action = learner.act(np.zeros(2))
            assert (action >= low).all()
            assert (action <= high).all()
            np.testing.assert_allclose(action, high if trial % 2 else low, rtol=1e-5, atol=1e-6)


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


# State on disk


def test_state_dict_round_trip(case):
    trained, fresh = case.build(runs=2), case.build(runs=2, seed=5)
    trained.update(9)
    fresh.load_state_dict(snapshot(trained), trained.steps)
    assert_same(snapshot(fresh), snapshot(trained))
    assert fresh.steps == 9


def test_loaded_learner_acts_the_same_without_data(case, tmp_path):
    learner = case.build(runs=2)
    learner.update(5)
    path = tmp_path / "some.safetensors"
    learner.save(path, note="extra")
    assert load_tensors(path)[1]["note"] == "extra"
    loaded = case.kind.load(path)
    np.testing.assert_array_equal(loaded.act(DATA.obs), learner.act(DATA.obs))
    assert loaded.data_name == DATA.name
    with pytest.raises(ValueError, match="attach"):
        loaded.update(1)


@pytest.mark.parametrize("damage", ["missing name", "extra name", "shape", "dtype"])
def test_a_foreign_state_is_refused_and_nothing_is_half_loaded(case, damage):
    learner = case.build(runs=2)
    before = snapshot(learner)
    state = {name: tensor + 1 for name, tensor in before.items()}
    last = list(state)[-1]
    if damage == "missing name":
        del state[last]
    elif damage == "extra name":
        state["surplus"] = torch.zeros(1)
    else:
        state[last] = state[last].double() if damage == "dtype" else state[last].reshape(1, *state[last].shape)
    with pytest.raises(ValueError, match="state_dict"):
        learner.load_state_dict(state, 3)
    assert learner.steps == 0
    assert_same(snapshot(learner), before)


def test_a_damaged_checkpoint_is_a_value_error(case, tmp_path):
    learner = case.build()
    learner.save(tmp_path / "checkpoint.safetensors")
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    broken = [b"", whole[:5], whole[:200], whole[: len(whole) // 2], whole[:-1], b"\xff" * 64 + whole[64:], b"{}"]
    for data in broken:
        (tmp_path / "checkpoint.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match="checkpoint"):
            case.kind.load(tmp_path / "checkpoint.safetensors")
        with pytest.raises(ValueError, match="checkpoint"):
            offline_rl.load(tmp_path)


def test_a_checkpoint_with_a_wrong_header_is_a_value_error(case, tmp_path):
    learner = case.build()
    path = tmp_path / "checkpoint.safetensors"
    learner.save(path)
    tensors, meta = load_tensors(path)
    wrong = [{key: value for key, value in meta.items() if key != gone} for gone in meta]
    wrong += [{**meta, "dtype": "no_such"}, {**meta, "obs_dim": "3x"}, {**meta, "config": {**meta["config"], "x": 1}}]
    wrong += [{**meta, "obs_dim": 4}, {**meta, "runs": [0, 1]}, {**meta, "algorithm": "unheard"}]
    for header in wrong:
        save_tensors(path, tensors, header)
        with pytest.raises(ValueError):
            offline_rl.load(path)


def test_a_checkpoint_of_another_algorithm_is_refused(case, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    case.build().save(path)
    for other in CASES:
        if other.cls != case.cls:
            with pytest.raises(ValueError, match=r"offline_rl\.load"):
                other.kind.load(path)
    with pytest.raises(ValueError, match="existing file"):
        offline_rl.load(tmp_path / "nowhere")


def test_meta_is_plain_json(case):
    meta = case.build(runs=[4, 2]).meta()
    assert json.loads(json.dumps(meta))["runs"] == [4, 2]
    assert meta["algorithm"] in CONFIGS


# Bad input


def test_an_unknown_hyperparameter_is_named_and_the_nearest_suggested(case):
    with pytest.raises(ValueError, match=r"learning_rat.*did you mean 'learning_rate'"):
        case.build(learning_rat=1e-3)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("batch_size", [0, -1, 2.5, "32", True]),
        ("learning_rate", [0.0, -1e-3, float("nan"), float("inf"), "x", None]),
        ("hidden", [(), (0,), (32, -1), 5, (32.5,), "ab"]),
        ("stats_dtype", ["float16", None]),
        ("reward_scale", [0.0, -1.0, float("inf")]),
        ("reward_shift", [float("nan"), float("inf")]),
        ("normalise_obs", [1, "yes"]),
    ],
)
def test_hyperparameters_out_of_range(case, field, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"\.{field}: expected .* Fix: "):
            case.build(**{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("alpha", [-1.0, float("nan"), "x"]),
        ("discount", [-0.1, 1.1, float("nan")]),
        ("tau", [-0.1, 1.1]),
        ("policy_noise", [-0.1]),
        ("noise_clip", [-0.1]),
        ("policy_period", [0, 1.5]),
    ],
)
def test_actor_critic_hyperparameters_out_of_range(actor_critic, field, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"\.{field}: expected .* Fix: "):
            actor_critic.build(**{field: value})


@pytest.mark.parametrize("runs", [0, -2, [], [0, 0], [-1, 2], 2.5, "many", [0.5], [2**32], None])
def test_bad_runs(case, runs):
    with pytest.raises(ValueError, match="runs: expected"):
        case.build(runs=runs)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "x", None])
def test_bad_seeds(case, seed):
    with pytest.raises(ValueError, match="seed: expected"):
        case.build(seed=seed)


def test_numpy_integers_are_integers(case):
    learner = case.build(runs=np.int64(2), seed=np.int64(3))
    assert (learner.runs, learner.seed) == (2, 3)
    assert json.dumps(learner.meta())


def test_a_list_of_widths_is_as_good_as_a_tuple(case, tmp_path):
    learner = case.build(hidden=[6, 5])
    learner.save(tmp_path / "checkpoint.safetensors")
    assert learner.config == case.build(hidden=(6, 5)).config == offline_rl.load(tmp_path).config


def test_bad_shapes_bounds_device_and_dtype(case):
    make = case.kind
    for bad in (
        {"obs_dim": 0},
        {"action_dim": 0},
        {"action_low": 1.0},
        {"action_low": float("nan")},
        {"action_high": float("inf")},
        {"action_low": [0.0, 0.0, 0.0]},
        {"device": "abacus"},
        {"dtype": torch.float16},
    ):
        with pytest.raises(ValueError):
            make(**{"obs_dim": 3, "action_dim": 2, **case.hyperparameters, **bad})


def test_update_and_fit_refuse_nonsense(case):
    learner = case.kind(3, 2, **case.hyperparameters)
    with pytest.raises(ValueError, match="attach"):
        learner.update(1)
    for n in (0, -3, 2.5, float("nan"), True, "5"):
        with pytest.raises(ValueError, match=r"update\.n"):
            case.build().update(n)
        with pytest.raises(ValueError, match=r"fit\.steps"):
            learner.fit(DATA, n)


def test_attach_refuses_other_shapes_and_things_that_are_no_dataset(case):
    learner = case.build()
    for data in (make_data(obs_dim=4), make_data(action_dim=1)):
        with pytest.raises(ValueError, match="for_dataset"):
            learner.attach(data)
    with pytest.raises(ValueError, match="dataset: expected"):
        case.kind.for_dataset({"obs": 1}, **case.hyperparameters)


def test_a_dataset_object_offers_its_transitions(case):
    class Dataset:
        def transitions(self):
            return DATA

    learner = case.build(Dataset())
    learner.update(3)
    plain = case.build()
    plain.update(3)
    assert_same(snapshot(learner), snapshot(plain))


@pytest.mark.parametrize("shape", [(), (4,), (5, 4), (2, 5, 3), (1, 1, 1, 3)])
def test_act_refuses_other_shapes(case, shape):
    with pytest.raises(ValueError, match=r"act\.obs"):
        case.build(runs=3).act(np.zeros(shape))


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


# The package


def test_unknown_names():
    with pytest.raises(ValueError, match="did you mean 'prdc'"):
        offline_rl.algorithm("prcd")
    assert offline_rl.algorithm("TD3+BC") is offline_rl.TD3BC
    with pytest.raises(AttributeError, match="PRDC"):
        offline_rl.__getattr__("PDRC")
    assert {offline_rl.algorithm(name).name for name in CONFIGS} == set(CONFIGS)
    for name, config in CONFIGS.items():
        assert offline_rl.algorithm(name).config_class is config


def test_data_with_a_nan_never_reaches_a_learner():
    reward = DATA.reward.copy()
    reward[17] = np.nan
    with pytest.raises(ValueError, match=r"transitions\.reward.*row 17"):
        Transitions(DATA.obs, DATA.action, reward, DATA.next_obs, DATA.terminal)


def loaded_by(code):
    """Names of the modules that a fresh interpreter has after running `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_reading_hyperparameters_imports_no_torch():
    assert not loaded_by("import offline_rl.config") & {"torch", "numpy", "scipy", "pandas"}


def test_importing_every_algorithm_imports_no_world():
    found = loaded_by("import offline_rl\nfor n in offline_rl.__all__: getattr(offline_rl, n)")
    assert "torch" in found
    assert not found & {"gymnasium", "envs", "pandas", "experiments", "bandits", "stable_baselines3", "matplotlib"}
