"""The contract of every offline learner, second part: files, hyperparameters, bad input, the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import offline_rl
from offline_rl.config import CONFIGS
from orbs import Transitions, load_tensors, save_tensors
from tests.offline_rl.contract import CASES, DATA, assert_same
from tests.offline_rl.reference import make_data, snapshot

ROOT = Path(__file__).resolve().parents[2]


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
        ("hidden", [(), (0,), (32, -1), 5, (32.5,), "ab", (True,), (np.True_,), (np.int64(0),)]),
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
        ("critic", [None, 3]),
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


@pytest.mark.parametrize(
    ("name", "field"), [("a2pr", "critic_hidden"), ("a2pr", "vae_hidden"), ("odice", "actor_hidden")]
)
def test_other_widths_are_checked_like_hidden(name, field):
    for value in ((True,), (0,), (4, 2.5), (), 5):
        with pytest.raises(ValueError, match=rf"{name}\.{field}: expected .* Fix: "):
            CONFIGS[name](**{field: value})
    assert getattr(CONFIGS[name](**{field: [np.int64(6), 5]}), field) == (6, 5)


def test_numpy_integers_are_integers(case):
    numbers = {"batch_size": np.int64(32), "hidden": (np.int32(6), 5), "reward_scale": np.float32(2)}
    learner = case.build(runs=np.int64(2), seed=np.int64(3), **numbers)
    assert (learner.runs, learner.seed) == (2, 3)
    assert learner.config == case.build(batch_size=32, hidden=(6, 5), reward_scale=2.0).config
    assert [type(value) for value in (learner.config.batch_size, *learner.config.hidden)] == [int] * 3
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
