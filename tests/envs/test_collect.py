"""Recording a learning agent: protocol, determinism, attributes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.collect import Recording, SACSettings, collect_replay, main, measure_reference, play
from envs.datasets import load

QUICK = SACSettings(width=8, learning_starts=200, batch_size=8, train_freq=8)


def test_replay_follows_the_protocol_and_the_seed() -> None:
    arrays, stated = collect_replay("Pendulum-v1", 450, 7, QUICK)
    assert {key: array.shape for key, array in arrays.items()} == {
        "observations": (450, 3),
        "actions": (450, 1),
        "rewards": (450,),
        "terminals": (450,),
        "timeouts": (450,),
    }
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [199, 399]
    assert stated["max_episode_steps"] == 200
    again, _ = collect_replay("Pendulum-v1", 450, 7, QUICK)
    other, _ = collect_replay("Pendulum-v1", 450, 8, QUICK)
    for key in arrays:
        np.testing.assert_array_equal(arrays[key], again[key])
    assert not np.array_equal(arrays["actions"], other["actions"])


def test_command_line_writes_a_file_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "replay.hdf5"
    main(["replay", "--env", "Pendulum-v1", "--steps", "400", "--width", "8", "--train-freq", "8", "--out", str(out)])
    assert "400 rows, 2 episodes" in capsys.readouterr().out
    data = load(out)
    assert data.env_id == "Pendulum-v1"
    assert data.action_high.tolist() == [2.0]
    assert [path.name for path in out.parent.iterdir()] == ["replay.hdf5"]


def test_terminal_wins_over_timeout() -> None:
    recording = Recording()
    recording.add(np.zeros(1), np.zeros(1), 0.0, True, True)
    assert recording.arrays()["terminals"].tolist() == [True]
    assert recording.arrays()["timeouts"].tolist() == [False]


def test_reference_returns() -> None:
    random, good = measure_reference("Pendulum-v1", 250, 2, 0, QUICK)
    assert random.shape == good.shape == (2,)
    assert (random < 0).all()
    assert play("Pendulum-v1", lambda obs: np.zeros(1), 1, 5) == play("Pendulum-v1", lambda obs: np.zeros(1), 1, 5)


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        collect_replay("Pendulum-v1", 0, 0)
    with pytest.raises(ValueError, match="episodes: expected at least 1"):
        play("Pendulum-v1", lambda obs: np.zeros(1), 0, 0)
    with pytest.raises(ValueError, match="discrete actions are unsupported"):
        collect_replay("CartPole-v1", 100, 0)
