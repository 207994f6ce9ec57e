"""Training behaviour agents: what it leaves, and that a stopped training goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs.train_behaviour as module
from envs.behaviours import BehaviourPolicy
from envs.datasets import load
from envs.train_behaviour import Recipe, train
from orbs import load_tensors

QUICK = Recipe(
    "Pendulum-v1", steps=800, num_envs=2, width=8, batch_size=16, learning_starts=200, eval_every=200,
    checkpoint_every=400,
)  # fmt: skip


@pytest.fixture(autouse=True)
def short_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVAL_EPISODES", 2)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoint.safetensors")[0]


def same(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_training_and_medium_replay_is_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    reports: list[int] = []
    found = train(QUICK, tmp_path / "a", report=lambda step, figures: reports.append(step))
    train(QUICK, tmp_path / "b")
    other = train(dataclasses.replace(QUICK, seed=1), tmp_path / "c")
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")
    assert reports == [200, 400, 600, 800]
    assert found["steps"] == 800
    assert found["medium_step"] == 200
    assert found["best_score"] == max(row["score"] for row in found["evaluations"])
    assert other["evaluations"] != found["evaluations"]
    data = load(tmp_path / "a" / "medium-replay.hdf5")
    assert len(data) == 200  # 100 steps of each of two environments
    assert np.flatnonzero(data.timeout).tolist() == [99, 199]
    replay = load_tensors(tmp_path / "a" / "replay.safetensors")[0]
    for env in range(2):
        np.testing.assert_array_equal(data.obs[100 * env : 100 * env + 100], replay["observations"][:100, env])
        wanted = 2 * replay["actions"][:100, env].numpy()  # the buffer holds actions scaled to [-1, 1]
        np.testing.assert_allclose(data.action[100 * env : 100 * env + 100], wanted, atol=1e-6)


def test_time_outs_and_terminals_of_the_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    train(dataclasses.replace(QUICK, eval_every=800), tmp_path, until_medium=True)
    data = load(tmp_path / "medium-replay.hdf5")
    assert np.flatnonzero(data.timeout).tolist() == [199, 399, 599, 799]
    assert not data.terminal.any()


def test_until_medium_stops_and_a_jump_past_medium_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    assert train(QUICK, tmp_path / "a", until_medium=True)["steps"] == 200
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-2e9, -1e9))
    found = train(QUICK, tmp_path / "b", until_medium=True)
    assert found["steps"] == 800
    assert found["medium_step"] is None
    assert not (tmp_path / "b" / "medium.safetensors").exists()


@pytest.mark.parametrize("keep_replay", [True, False])
def test_stopped_training_goes_on(tmp_path: Path, keep_replay: bool) -> None:
    train(dataclasses.replace(QUICK, steps=400), tmp_path, keep_replay=keep_replay)
    before = tensors(tmp_path)
    assert (tmp_path / "replay.safetensors").exists() == keep_replay
    found = train(QUICK, tmp_path, keep_replay=keep_replay)
    assert [row["step"] for row in found["evaluations"]] == [200, 400, 600, 800]
    after, meta = load_tensors(tmp_path / "checkpoint.safetensors")
    assert not torch.equal(before["actor.value"], after["actor.value"])
    # 200 steps of random actions, then an update a step; without its replay the agent first acts again.
    refill = 0 if keep_replay else 200
    assert meta["updates"] == 600 - refill
    assert int(after["critic.step"]) == 600 - refill
    assert meta["resumed"]
    assert BehaviourPolicy.read(tmp_path / "best.safetensors").meta["resumed"] in (True, False)


def test_resume_restores_every_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(dataclasses.replace(QUICK, steps=400), tmp_path)
    kept = tensors(tmp_path)
    agents: list[Any] = []
    made = module._agent
    monkeypatch.setattr(module, "_agent", lambda recipe: agents.append(made(recipe)) or agents[-1])
    found = train(dataclasses.replace(QUICK, steps=400), tmp_path)
    assert found["steps"] == 400
    for name, tensor in agents[0].tensors().items():
        assert torch.equal(tensor, kept[name]), name
    assert torch.equal(torch.get_rng_state(), kept["torch_generator"])
    assert agents[0].replay_buffer.pos == 200
    # The library's own modules see the restored values: they are views of the same memory.
    first = agents[0].actor.latent_pi[0].weight
    assert first.data_ptr() == agents[0].flat_actor.value.data_ptr()


def test_another_recipe_in_the_folder_is_refused(tmp_path: Path) -> None:
    train(dataclasses.replace(QUICK, steps=400), tmp_path)
    with pytest.raises(ValueError, match=r"folder: expected an empty folder, or one of this recipe, .*another seed in"):
        train(dataclasses.replace(QUICK, seed=5), tmp_path)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        train(dataclasses.replace(QUICK, steps=0), tmp_path)
    with pytest.raises(ValueError, match="env: expected a task with reference returns"):
        train(dataclasses.replace(QUICK, env="MountainCarContinuous-v0"), tmp_path)
    assert not list(tmp_path.iterdir())
