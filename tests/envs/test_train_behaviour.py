"""Training behaviour agents: what it leaves, and that a stopped training goes on."""

from __future__ import annotations

import dataclasses
import shutil
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped after half of the steps; only to look at."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EVAL_EPISODES", 2)
        train(dataclasses.replace(QUICK, steps=400), folder)
    return folder


@pytest.fixture
def half(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on from."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


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


def test_resume_restores_every_tensor(half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tensors(tmp_path)
    agents: list[Any] = []
    made = module._agent
    monkeypatch.setattr(module, "_agent", lambda *given: agents.append(made(*given)) or agents[-1])
    drawn: list[Any] = []
    saved = module._resume
    monkeypatch.setattr(
        module,
        "_resume",
        lambda *given: (saved(*given), drawn.append((torch.get_rng_state(), np.random.get_state())))[0],  # noqa: NPY002
    )
    found = train(dataclasses.replace(QUICK, steps=400), tmp_path)
    assert found["steps"] == 400
    for name, tensor in agents[0].tensors().items():
        assert torch.equal(tensor, kept[name]), name
    assert torch.equal(drawn[0][0], kept["torch_generator"])
    np.testing.assert_array_equal(drawn[0][1][1], kept["numpy_generator"].numpy())
    assert agents[0].replay_buffer.pos == 200
    # The library's own modules see the restored values: they are views of the same memory.
    first = agents[0].actor.latent_pi[0].weight
    assert first.data_ptr() == agents[0].flat_actor.value.data_ptr()


def test_another_recipe_in_the_folder_is_refused(half: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: expected an empty folder, or one of this recipe, .*another seed in"):
        train(dataclasses.replace(QUICK, seed=5), tmp_path)


def test_bad_input(tmp_path: Path) -> None:
    for name, value in (
        ("steps", 0),
        ("num_envs", 0),
        ("width", 0),
        ("eval_every", 0),
        ("batch_size", -1),
        ("seed", -1),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected an integer of at least"):
            dataclasses.replace(QUICK, **{name: value})
    with pytest.raises(ValueError, match="learning_rate: expected a number between 0 and 1"):
        dataclasses.replace(QUICK, learning_rate=0.0)
    with pytest.raises(ValueError, match="discount, tau: expected numbers"):
        dataclasses.replace(QUICK, discount=2.0)
    with pytest.raises(ValueError, match="env: expected a task with reference returns"):
        train(dataclasses.replace(QUICK, env="MountainCarContinuous-v0"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_terminals_and_rewards_of_the_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hopper's random episodes end by terminals; each environment's rows are the replay's, one after the other."""
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    recipe = dataclasses.replace(QUICK, env="Hopper-v4", steps=400, eval_every=400)
    train(recipe, tmp_path, until_medium=True)
    data, (replay, _) = load(tmp_path / "medium-replay.hdf5"), load_tensors(tmp_path / "replay.safetensors")
    start = 0
    for env in range(2):
        done = replay["dones"][:, env].numpy() > 0
        rows = 199 if done[-2] else 200  # an episode that had only begun is left out
        part = slice(start, start + rows)
        np.testing.assert_array_equal(data.terminal[part], done[:rows])
        np.testing.assert_array_equal(data.reward[part], replay["rewards"][:rows, env])
        assert data.timeout[part].sum() == (0 if done[rows - 1] else 1)
        start += rows
    assert start == len(data)
    assert data.terminal.sum() > 5


def test_a_begun_episode_of_one_row_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    train(dataclasses.replace(QUICK, steps=402, eval_every=402), tmp_path, until_medium=True)
    data = load(tmp_path / "medium-replay.hdf5")  # 201 steps of each: 200, and the first of another episode
    assert np.flatnonzero(data.timeout).tolist() == [199, 399]
    assert len(data) == 400


def test_medium_needs_its_lower_bound_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (1e8, 1e9))
    assert train(dataclasses.replace(QUICK, steps=400), tmp_path)["medium_step"] is None


def test_a_better_policy_from_after_the_checkpoint_is_kept(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the training had been killed between an export and the next checkpoint."""
    best = BehaviourPolicy.read(tmp_path / "best.safetensors")
    dataclasses.replace(best, meta={**best.meta, "step": 600, "score": 1e6}).save(tmp_path / "best.safetensors")
    found = train(QUICK, tmp_path)
    assert found["best_score"] == 1e6
    assert BehaviourPolicy.read(tmp_path / "best.safetensors").meta["step"] == 600


def test_a_newer_replay_is_cut_to_the_checkpoint(half: Path, tmp_path: Path) -> None:
    """As if the training had been killed between the two files."""
    old = (tmp_path / "checkpoint.safetensors").read_bytes()
    train(QUICK, tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(old)
    train(QUICK, tmp_path)
    _, meta = load_tensors(tmp_path / "checkpoint.safetensors")
    assert meta["updates"] == 600  # nothing was refilled
    assert meta["rows"] == 400


def test_a_resumed_training_meets_other_starts_and_writes_no_replay(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEDIUM_SCORES", (-1e9, 1e9))
    train(QUICK, tmp_path)
    assert not (tmp_path / "medium-replay.hdf5").exists()  # it would not hold what an uninterrupted training saw
    obs = load_tensors(tmp_path / "replay.safetensors")[0]["observations"]
    assert not torch.equal(obs[0], obs[200])


def test_refill_without_a_replay_acts_by_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(dataclasses.replace(QUICK, steps=400), tmp_path, keep_replay=False)
    recipe = dataclasses.replace(QUICK, steps=500)
    agent = module._agent(recipe, 400)
    module._resume(agent, module._Progress(), recipe, tmp_path)
    calls: list[bool] = []
    monkeypatch.setattr(
        type(agent),
        "predict",
        lambda self, obs, deterministic: (calls.append(True), (np.zeros((2, 1), np.float32), None))[1],
    )
    agent.learn(20, reset_num_timesteps=False)
    assert len(calls) == 10
    assert agent._n_updates == 200  # it acts, and does not learn yet


def test_the_callers_generators_go_on(tmp_path: Path) -> None:
    import random

    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    wanted = (float(torch.rand(())), float(np.random.rand()), random.random())  # noqa: NPY002
    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    train(dataclasses.replace(QUICK, steps=200), tmp_path)
    assert (float(torch.rand(())), float(np.random.rand()), random.random()) == wanted  # noqa: NPY002
