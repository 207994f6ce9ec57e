"""Real files: counts, returns and scores equal the tables in their SOURCE.md, or the documented error is raised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.datasets import load

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.filterwarnings("ignore:observations. .* columns never change:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FOLDERS = ("pendulum", "adroit-door-human", "mujoco-small", "maze2d-smodice")
# Where the files' action space is not [-1, 1]: the environment that knows, or attributes of the SOURCE.md.
ENVIRONMENTS = {
    "d3rlpy-replay-v1.1.0": "Pendulum-v1",
    "imitation-expert": "Pendulum-v1",
    "sb-expert": "Pendulum-v1",
    "opolo-invertedpendulum-expert": "InvertedPendulum-v4",
}
SCORED = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}
UNFINISHED = {"maze2d-umaze-v1-expert": 103, "maze2d-example-v1-expert": 45}
OUTSIDE = ("cs285-", "drex-")  # actions before clipping


def table(folder: Path) -> dict[str, list[str]]:
    """file stem -> cells of its row in SOURCE.md."""
    lines = [line for line in (folder / "SOURCE.md").read_text().splitlines() if ".hdf5 |" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].removesuffix(".hdf5"): row for row in rows}


def environment(stem: str) -> str | None:
    task = next((SCORED[part] for part in stem.split("-") if part in SCORED), None)
    return ENVIRONMENTS.get(stem, task)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_loads_as_its_table_says(shared_data: Path, folder: str) -> None:
    rows = table(shared_data / folder)
    paths = sorted((shared_data / folder).glob("*.hdf5"))
    assert {path.stem for path in paths} == set(rows)
    for path in paths:
        _, transitions, obs, act, _, _, returns, ends, score = rows[path.stem]
        env = environment(path.stem)
        if path.stem.startswith(OUTSIDE):
            with pytest.raises(ValueError, match=r"^actions: expected values in the action space.*--clip-actions"):
                load(str(path), env=env)
        data = load(str(path), env=env, clip_actions=path.stem.startswith(OUTSIDE))
        view = data.transitions()
        terminals, timeouts = map(int, ends.split("/"))
        got = data.episode_returns()
        assert (len(data), data.obs_dim, data.action_dim) == (int(transitions), int(obs), int(act)), path.stem
        assert (data.terminal.sum(), data.timeout.sum(), len(got)) == (terminals, timeouts, terminals + timeouts)
        assert len(data) - data.episode_lengths().sum() == UNFINISHED.get(path.stem, 0)
        # Every time-out row goes, and the file's last row unless it is one of these.
        assert len(view) == len(data) - timeouts - (not data.timeout[-1])
        assert f"{got.mean():.1f} ± {got.std():.1f} [{got.min():.1f}, {got.max():.1f}]" == returns
        if env in SCORED.values():
            assert f"{data.normalized_score(got.mean()):.1f}" == score
            assert "D4RL reference" in str(data.score_source)


def test_stored_next_observations_agree_with_the_view(shared_data: Path) -> None:
    """Where a file holds next_observations of its own, the view's (from the next row) are the same."""
    import h5py

    path = shared_data / "mujoco-small" / "opolo-hopper-expert.hdf5"
    data = load(str(path))
    with h5py.File(path) as file:
        stored = file["next_observations"][()]
    kept = ~data.timeout[:-1]
    close = np.isclose(data.transitions().next_obs, stored[:-1][kept], atol=1e-5)
    assert close.all()


def test_discrete_actions_are_named_as_unsupported(shared_data: Path) -> None:
    paths = sorted((shared_data / "cartpole").glob("*.hdf5"))
    assert paths
    for path in paths:
        with pytest.raises(ValueError, match="discrete actions are unsupported"):
            load(str(path))


def test_door_file_fits_its_environment(shared_data: Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason='needs pip install "orbs[robotics]"')
    data = load(str(shared_data / "adroit-door-human" / "door-human-dapg.hdf5"), env="AdroitHandDoor-v1")
    assert (data.obs_dim, data.action_dim) == (39, 28)
    assert f"{data.normalized_score(data.episode_returns().mean()):.1f}" == "29.0"
