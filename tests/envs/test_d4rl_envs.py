"""D4RL's mazes, kitchen and ant: layouts, starts, rewards and ends, and that recorded steps are repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.d4rl_envs import ANTMAZE, MAZE2D
from envs.make import make_env

KINDS = ("maze2d", "antmaze", "kitchen", "ant-")
IDS = sorted(env_id for env_id in gym.registry if env_id.startswith(tuple(f"orbs/{kind}" for kind in KINDS)))
ROBOTICS = [env_id for env_id in IDS if env_id != "orbs/ant-v2"]


@pytest.fixture
def robotics() -> None:
    pytest.importorskip("gymnasium_robotics", reason='needs pip install "orbs[robotics]"')


def test_ids() -> None:
    assert len(IDS) == 14 + 6 + 3 + 1


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", ROBOTICS)
def test_passes_gymnasiums_checker(env_id: str) -> None:
    env = make_env(env_id)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.filterwarnings("ignore")
def test_ant_observes_no_contact_forces() -> None:
    env, plain = make_env("orbs/ant-v2"), make_env("Ant-v4")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=1)
    plain.reset(seed=1)
    for _ in range(20):
        action = np.full(8, 0.5, np.float32)
        (obs, *rest), (wanted, *wanted_rest) = env.step(action)[:4], plain.step(action)[:4]
        np.testing.assert_array_equal(obs, np.concatenate([wanted, np.zeros(84)]))
        assert rest == wanted_rest


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("layout", MAZE2D)
def test_maze2d_starts_walls_and_rewards(layout: str) -> None:
    version = 0 if layout == "open" else 1
    sparse, dense = make_env(f"orbs/maze2d-{layout}-v{version}"), make_env(f"orbs/maze2d-{layout}-dense-v{version}")
    maze, base = MAZE2D[layout], sparse.unwrapped
    rng = np.random.default_rng(0)
    free = {(w, h) for w, row in enumerate(maze) for h, cell in enumerate(row) if cell != "#"}
    started = set()
    for seed in range(40):
        obs, _ = sparse.reset(seed=seed)
        np.testing.assert_array_equal(obs, dense.reset(seed=seed)[0])
        cell = np.rint(obs[:2])
        assert np.abs(obs[:2] - cell).max() <= 0.1
        started.add(tuple(cell.astype(int)))
        push = rng.uniform(-1, 1, 2).astype(np.float32)
        for _ in range(25):
            obs, reward, terminated, *_ = sparse.step(push)
            distance = np.linalg.norm(obs[:2] - base.goal)  # type: ignore[attr-defined]
            assert not terminated
            assert reward == float(distance <= 0.5)
            assert dense.step(push)[1] == pytest.approx(np.exp(-distance))
            # A cell's walls stand at -0.7 and 0.3 from the point that names it; the ball's radius is 0.1.
            assert tuple(np.floor(obs[:2] + 0.7).astype(int)) in free
    assert started <= free
    assert len(started) >= min(len(free), 15)
    assert maze[int(base.goal[0])][int(base.goal[1])] == "G"  # type: ignore[attr-defined]


@pytest.mark.extra
@pytest.mark.shared_data
@pytest.mark.usefixtures("robotics")
def test_recorded_maze2d_steps_are_repeated(shared_data: Path) -> None:
    """Set each recorded state, take the recorded action: the next recorded state to the rounding of float32."""
    with h5py.File(shared_data / "maze2d-smodice" / "maze2d-umaze-v1-expert.hdf5") as file:
        obs, action = file["observations"][()].astype(np.float64), file["actions"][()].astype(np.float64)
        goal, sparse, end = file["infos/goal"][()], file["infos/rewards_sparse_derived"][()], file["timeouts"][()]
    env: Any = make_env("orbs/maze2d-umaze-v1").unwrapped
    env.reset(seed=0)
    cells = np.floor(obs[:, :2] + 0.7).astype(int)
    assert all(MAZE2D["umaze"][w][h] != "#" for w, h in np.unique(cells, axis=0))
    assert np.abs(goal - env.goal).max() <= 0.1 + 1e-6  # each recorded episode moved the goal by up to 0.1
    worst, rewards = 0.0, 0
    for row in range(10000):
        if end[row]:
            continue
        env._simulator.set_state(obs[row, :2], obs[row, 2:])
        env.goal = goal[row]
        after, reward, *_ = env.step(action[row])
        worst = max(worst, float(np.abs(after - obs[row + 1]).max()))
        rewards += reward != sparse[row + 1]
    assert worst < 1e-6
    assert rewards <= 2  # the goal that the next row was judged by moves when it is reached


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("env_id", [env_id for env_id in ROBOTICS if "antmaze" in env_id])
def test_antmaze_starts_goals_and_ends(env_id: str) -> None:
    env: Any = make_env(env_id)
    base = env.unwrapped
    maze = ANTMAZE[env_id.split("-")[1]]
    (row, column), (start_row, start_column) = (
        next((i, line.index(mark)) for i, line in enumerate(maze) if mark in line) for mark in "GR"
    )
    middle = 4.0 * np.array([column - start_column, row - start_row])
    goals = []
    for seed in range(30):
        obs, info = env.reset(seed=seed)
        assert np.abs(obs[:2]).max() <= 0.1
        assert 0.65 <= obs[2] <= 0.85
        goals.append(info["goal"])
    offset = np.array(goals) - middle
    assert offset.min() >= 0.0
    assert offset.max() <= 1.5
    assert 0.3 < offset.std() < 0.45 * 1.5
    assert (base.model.opt.timestep, base.model.actuator_gear[0, 0]) == (0.02, 30.0)
    _, reward, terminated, *_ = env.step(np.zeros(8, np.float32))
    assert (reward, terminated) == (0.0, False)
    qpos = base.data.qpos.copy()
    qpos[:2] = base.goal + base._origin + 0.1
    base._simulator.set_state(qpos, np.zeros(14))
    obs, reward, terminated, truncated, _ = env.step(np.zeros(8, np.float32))
    assert np.linalg.norm(obs[:2] - base.goal) < 0.5
    assert (reward, terminated, truncated) == (1.0, True, False)
    # Walls: the ant's cells are free, and a block stands in each # cell.
    blocks = {
        tuple(np.rint((base.model.geom(i).pos[:2] - base._origin) / 4 + 1).astype(int)[::-1])
        for i in range(base.model.ngeom)
        if base.model.geom(i).name.startswith("block_")
    }
    assert blocks == {(i, j) for i, line in enumerate(maze) for j, cell in enumerate(line) if cell == "#"}


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize(("source", "last"), [("complete", "slide cabinet"), ("mixed", "bottom burner")])
def test_kitchen_pays_each_part_once_and_ends(source: str, last: str) -> None:
    env: Any = make_env(f"orbs/kitchen-{source}-v0")
    base = env.unwrapped
    obs, info = env.reset(seed=0)
    assert info["left"] == ["microwave", "kettle", "light switch", last]
    assert np.abs(obs[:30] - base.data.qpos).max() <= 0.0101
    assert np.abs(obs[:9] - base.data.qpos[:9]).max() > 0.003  # D4RL's noise, ten times gymnasium-robotics'
    goal = obs[30:]
    assert np.flatnonzero(goal).tolist() == sorted(np.flatnonzero(base._goal).tolist())
    assert goal[22] == -0.75
    paid, ends = [], []
    for part in ("microwave", "microwave", "kettle", "light switch", last):
        where = base._parts[part]
        qpos = base.data.qpos.copy()
        qpos[where] = goal[where]
        base._simulator.set_state(qpos, np.zeros(29))
        _, reward, terminated, *_ = env.step(np.zeros(9, np.float32))
        paid.append(reward)
        ends.append(terminated)
    assert paid == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert ends == [False] * 4 + [True]


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_kitchens_share_a_model_and_nothing_else() -> None:
    """Beside a second kitchen that is played too, the first goes the way that it goes alone."""
    first, second = make_env("orbs/kitchen-mixed-v0"), make_env("orbs/kitchen-mixed-v0")
    assert first.unwrapped.model is second.unwrapped.model  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 9))
    start, _ = first.reset(seed=0)
    alone = [first.step(action)[0] for action in actions]
    np.testing.assert_array_equal(first.reset(seed=0)[0], start)
    second.reset(seed=1)
    for action, wanted in zip(actions, alone, strict=True):
        second.step(-action)
        np.testing.assert_array_equal(first.step(action)[0], wanted)


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_bad_arguments_are_one_error() -> None:
    for env_id, wrong, message in (
        ("orbs/maze2d-umaze-v1", {"layout": "tiny"}, "layout: expected one of open"),
        ("orbs/maze2d-umaze-v1", {"reward": "none"}, "reward: expected 'sparse' or 'dense'"),
        ("orbs/antmaze-umaze-v2", {"layout": "tiny"}, "layout: expected one of umaze"),
        ("orbs/kitchen-mixed-v0", {"parts": ("toaster",)}, "parts: expected one or more of bottom burner"),
    ):
        with pytest.raises(ValueError, match=message):
            make_env(env_id, **wrong)


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_no_temporary_model_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for env_id in ("orbs/maze2d-umaze-v1", "orbs/antmaze-umaze-v2"):
        make_env(env_id).close()
    assert not list(tmp_path.iterdir())
