"""Files of the interacting agents: a resume goes on to the same bits, with the replay or, to act, without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import offline_rl
from tests.offline_rl.online.contract import assert_same, play, snapshot


@pytest.mark.parametrize("stop", [30, 77], ids=["while-random", "while-learning"])
def test_resume_equals_straight_run(agent_case, tmp_path, stop):
    """77 lies within blocks of updates and interactions, 30 before the first update."""
    straight, stopped = agent_case.build(runs=2), agent_case.build(runs=2)
    expected = play(straight, 110)
    play(stopped, stop)
    stopped.save(tmp_path / "checkpoint.safetensors", note="kept")
    resumed = offline_rl.load(tmp_path)
    assert type(resumed) is agent_case.kind
    assert resumed.config == stopped.config
    assert (resumed.interactions, resumed.steps) == (stopped.interactions, stopped.steps)
    assert_same(snapshot(resumed), snapshot(stopped))
    np.testing.assert_array_equal(play(resumed, 110 - stop), expected[stop:])
    assert_same(snapshot(resumed), snapshot(straight))


def test_resume_after_the_ring_has_wrapped(agent_case, tmp_path):
    straight, stopped = (agent_case.build(capacity=60) for _ in range(2))
    play(straight, 90)
    play(stopped, 75)
    assert stopped.replay.size == 60
    stopped.save(tmp_path / "file.safetensors")
    resumed = agent_case.kind.load(tmp_path / "file.safetensors")
    play(resumed, 15)
    assert_same(snapshot(resumed), snapshot(straight))


def test_a_file_without_the_replay_is_small_and_acts_alike(agent_case, tmp_path):
    agent = agent_case.build(capacity=4000)
    play(agent, 60)
    agent.replay.add(np.zeros((1, 10), np.float32))
    agent.save(tmp_path / "whole.safetensors")
    agent.save(tmp_path / "small.safetensors", replay=False)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[0] - sizes[1] > 61 * 10 * 4 - 200
    small = offline_rl.load(tmp_path / "small.safetensors")
    assert (small.interactions, small.steps) == (agent.interactions, agent.steps)
    assert small.replay.size == 0
    assert not small.ready
    obs = np.ones((5, 3))
    for deterministic in (True, False):
        np.testing.assert_array_equal(small.act(obs, deterministic), agent.act(obs, deterministic))
    np.testing.assert_array_equal(small.explore(obs[:1]), agent.explore(obs[:1]))
    play(small, 40)  # goes on with a replay of its own
    assert small.replay.size == 40
    assert small.steps > agent.steps


def test_loading_into_a_used_agent_replaces_its_replay(agent_case):
    source, used = agent_case.filled(60, runs=2), agent_case.filled(99, runs=2, seed=5)
    used.update(3)
    used.load_state_dict(snapshot(source), source.steps)
    assert_same(snapshot(used), snapshot(source))
    assert used.interactions == 60


def test_a_state_that_does_not_fit_changes_nothing(agent_case):
    agent, state = agent_case.filled(), snapshot(agent_case.filled(70))
    before = snapshot(agent)
    short = {**state, "replay": state["replay"][:, :-1]}
    narrow = {**state, "replay": state["replay"][..., :-1]}
    missing = {name: tensor for name, tensor in state.items() if name != "interactions"}
    other = {**state, "actor.0": torch.zeros(1, 2, 3)}
    for bad, said in (
        (short, "state_dict.replay"), (narrow, "state_dict.replay"), (missing, "interactions"), (other, "actor.0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            agent.load_state_dict(bad, 0)
        assert_same(snapshot(agent), before)


def test_no_memory_is_taken_before_the_first_row(agent_case):
    agent = agent_case.build(capacity=1_000_000_000_000)
    assert agent.act(np.zeros((4, 3))).shape == (4, 2)
    assert agent.state_dict()["replay"].shape == (1, 0, 10)
    with pytest.raises(ValueError, match=r"^capacity: expected a replay that fits the memory of cpu, got 37252.9 GiB"):
        play(agent, 1)


def test_meta_says_how_many_interactions(agent_case):
    agent = agent_case.filled(60)
    agent.update(2)
    assert (agent.meta()["interactions"], agent.meta()["steps"]) == (60, 2)
