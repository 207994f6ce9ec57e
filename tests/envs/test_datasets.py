"""Reading, checking and viewing datasets: every error, and the q-learning view against a loop."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from envs.datasets import Dataset, load, names
from envs.datasets.hdf5 import write

Arrays = dict[str, np.ndarray]
ROWS, LENGTH = 60, 10


@pytest.fixture
def arrays() -> Arrays:
    """Six episodes of ten rows; the odd ones end in a terminal, the even ones in a time-out."""
    rng = np.random.default_rng(0)
    end = np.arange(ROWS) % LENGTH == LENGTH - 1
    odd = (np.arange(ROWS) // LENGTH) % 2 == 1
    return {
        "observations": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(ROWS, 2)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": end & odd,
        "timeouts": end & ~odd,
    }


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def put(arrays: Arrays, **attributes: Any) -> Path:
        write(tmp_path / "data.hdf5", arrays, attributes)
        return tmp_path / "data.hdf5"

    return put


def expect(path: str | Path, *parts: str, **options: Any) -> None:
    """Loading raises one ValueError that holds all parts and a fix."""
    with pytest.raises(ValueError) as caught:
        load(str(path), **options)
    for part in (*parts, "expected", "got", "Fix: "):
        assert part in str(caught.value), str(caught.value)


def plain_view(data: dict[str, np.ndarray], limit: int | None, terminate_on_end: bool) -> list[tuple[Any, ...]]:
    """D4RL's q-learning view, row by row, as its code has it (tests/envs/test_referee.py asks the package itself)."""
    rows, steps = [], 0
    for i in range(len(data["rewards"]) - 1):
        final = bool(data["timeouts"][i]) if "timeouts" in data else limit is not None and steps == limit - 1
        terminal = bool(data["terminals"][i])
        if final and not terminate_on_end:
            steps = 0
            continue
        steps = 1 if final or terminal else steps + 1
        obs = data["observations"]
        rows.append((obs[i], data["actions"][i], data["rewards"][i], obs[i + 1], float(terminal)))
    return rows


def assert_view(data: Dataset, rows: list[tuple[Any, ...]]) -> None:
    view = data.transitions()
    fields = (view.obs, view.action, view.reward, view.next_obs, view.terminal)
    for got, wanted in zip(fields, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(got, np.array(wanted, np.float32))


@pytest.mark.parametrize("terminate_on_end", [False, True])
def test_view_equals_plain_loop(arrays: Arrays, put: Callable[..., Path], terminate_on_end: bool) -> None:
    data = load(put(arrays), terminate_on_end=terminate_on_end)
    assert_view(data, plain_view(arrays, None, terminate_on_end))


@pytest.mark.parametrize("terminate_on_end", [False, True])
def test_view_without_timeouts_uses_the_step_limit(
    arrays: Arrays, put: Callable[..., Path], terminate_on_end: bool
) -> None:
    del arrays["timeouts"]
    data = load(put(arrays), step_limit=7, terminate_on_end=terminate_on_end)
    assert_view(data, plain_view(arrays, 7, terminate_on_end))
    # Ten plain rows, then ten up to a terminal: cut after 7 and 14, then the count restarts after row 19.
    assert np.flatnonzero(data.timeout).tolist() == [6, 13, 26, 33, 46, 53]


def test_step_limit_that_falls_on_a_terminal_stays_a_terminal(arrays: Arrays, put: Callable[..., Path]) -> None:
    del arrays["timeouts"]
    arrays["terminals"] = np.arange(ROWS) % LENGTH == LENGTH - 1
    data = load(put(arrays), step_limit=LENGTH)
    assert not data.timeout.any()
    assert data.terminal.sum() == 6


def test_timeout_marks_the_last_kept_row(arrays: Arrays, put: Callable[..., Path]) -> None:
    view = load(put(arrays)).transitions()
    # Episodes: 9 kept rows (time-out), 10 kept rows (terminal), in turn; the last terminal row is lost with the file's
    # end, so row 8 of the last episode closes it.
    assert np.flatnonzero(view.timeout).tolist() == [8, 27, 46, 55]
    assert np.flatnonzero(view.terminal).tolist() == [18, 37]
    kept = load(put(arrays), terminate_on_end=True).transitions()
    assert np.flatnonzero(kept.terminal).tolist() == [19, 39]
    assert np.flatnonzero(kept.timeout).tolist() == [9, 29, 49, 58]


def test_trailing_episode_counts_in_rows_not_in_statistics(arrays: Arrays, put: Callable[..., Path]) -> None:
    cut = {key: array[:57] for key, array in arrays.items()}
    data = load(put(cut))
    assert data.episode_lengths().tolist() == [10] * 5
    wanted = arrays["rewards"][:50].astype(np.float64).reshape(5, 10).sum(1)
    np.testing.assert_allclose(data.episode_returns(), wanted, rtol=1e-12)
    assert len(data.transitions()) == 56 - 3
    assert np.flatnonzero(data.transitions().timeout).tolist() == [8, 27, 46]  # unfinished is not ended
    assert "the last 7 rows are an unfinished episode" in data.summary()


def test_layouts_that_pass(arrays: Arrays, tmp_path: Path) -> None:
    """Columns for vectors, float flags, float64, chunks, other keys: the same rows."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["observations"] = arrays["observations"].astype(np.float64)
        file.create_dataset("actions", data=arrays["actions"], chunks=(7, 1), compression="lzf")
        for key in ("rewards", "terminals", "timeouts"):
            file[key] = arrays[key].astype(np.float32)[:, None]
        file["next_observations"] = np.full((3, 3), np.nan)
        file["infos/qpos"] = np.full(2, np.nan)
        file["metadata/algorithm"] = "SAC"
    data = load(path)
    assert data.obs.dtype == data.reward.dtype == np.float32
    assert_view(data, plain_view(arrays, None, False))
    assert not data.obs.flags.writeable


def test_attributes_give_the_bounds(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["actions"] *= 3
    path = put(arrays, action_low=[-3.0, -4.0], action_high=3.0, env_id="Nobody-v0", max_episode_steps=5)
    data = load(path)
    assert data.action_low.tolist() == [-3.0, -4.0]
    assert data.env_id == "Nobody-v0"  # a label: an id in a file never makes an environment
    assert load(put(arrays, action_low=-3.0, action_high=3.0, env_id="Hopper-v4")).max_score == 3234.3
    expect(put(arrays, action_low=-3.0, action_high=3.0, env_id="os:Env-v0"), "env_id", "'os:Env-v0'", "--env")
    expect(put(arrays, action_low=[-3.0, np.nan], action_high=3.0), "action_low", "finite")
    expect(put(arrays, action_low=np.zeros(5), action_high=3.0), "action_low", "2 finite numbers")


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_missing_key(arrays: Arrays, put: Callable[..., Path], key: str) -> None:
    del arrays[key]
    expect(put(arrays), f"the key '{key}'", "rename or add it")


def test_missing_timeouts_need_a_step_limit(arrays: Arrays, put: Callable[..., Path]) -> None:
    del arrays["timeouts"]
    expect(put(arrays), "timeouts", "a known step limit", "--env", "step_limit")
    assert load(put(arrays, max_episode_steps=7)).timeout.sum() == 6
    expect(put(arrays), "step_limit", "at least 2", step_limit=1)


@pytest.mark.parametrize(
    ("key", "change", "parts"),
    [
        ("observations", lambda x: x[:, 0], ("observations", "shape (N, dim)", "shape (60,)", "reshape")),
        ("observations", lambda x: x[:, :, None], ("observations", "shape (60, 3, 1)")),
        ("observations", lambda x: x[:, :0], ("observations", "at least one column")),
        ("observations", lambda x: x.astype("S4"), ("observations", "numbers", "|S4")),
        ("actions", lambda x: x[:, 0], ("actions", "shape (N, dim)", "shape (60,)")),
        ("actions", lambda x: x[:-1], ("actions", "60 rows", "59", "align")),
        ("actions", lambda x: np.sign(x).astype(np.int64), ("actions", "int64", "discrete actions are unsupported")),
        ("actions", lambda x: np.sign(x[:, 0]).astype(np.int32), ("actions", "discrete actions are unsupported")),
        ("rewards", lambda x: np.stack((x, x), 1), ("rewards", "shape (N,)", "shape (60, 2)")),
        ("rewards", lambda x: x[1:], ("rewards", "60 rows", "59")),
        ("terminals", lambda x: x.astype(int) * 2, ("terminals", "0 or 1", "2 in row 19")),
        ("timeouts", lambda x: x[1:], ("timeouts", "60 rows", "59")),
    ],
)
def test_wrong_layout(arrays: Arrays, put: Callable[..., Path], key: str, change: Any, parts: tuple[str, ...]) -> None:
    arrays[key] = change(arrays[key])
    expect(put(arrays), *parts)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite(arrays: Arrays, put: Callable[..., Path], key: str, value: float) -> None:
    arrays[key] = arrays[key].astype(np.float64)
    arrays[key][17] = value
    expect(put(arrays), key, "finite numbers", "in row 17", "drop or mend")


def test_terminal_and_timeout_both_set(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["timeouts"][19] = True
    expect(put(arrays), "terminals/timeouts", "at most one", "both in row 19", "keep the terminal")


def test_no_episode_end(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["terminals"][:] = arrays["timeouts"][:] = False
    expect(put(arrays), "an episode end", "none in 60 rows", "mark the last step")
    del arrays["timeouts"]
    expect(put(arrays), "an episode end", "none in 60 rows", step_limit=61)


def test_empty_episode(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["timeouts"][20] = True
    expect(put(arrays), "empty episode in row 20", "drop these rows")
    assert load(put(arrays), terminate_on_end=True).episode_lengths().tolist() == [10, 10, 1, 9, 10, 10, 10]
    arrays["timeouts"][20], arrays["terminals"][20] = False, True  # one row that ended by itself is a transition
    assert len(load(put(arrays)).episode_lengths()) == 7
    arrays["timeouts"][58] = True
    expect(put(arrays), "empty episode in row 59")


def test_too_few_rows(arrays: Arrays, put: Callable[..., Path]) -> None:
    for rows in (0, 1):
        expect(put({key: array[:rows] for key, array in arrays.items()}), "observations", "at least two rows")


def test_actions_outside(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["actions"][31, 1] = 1.5
    expect(put(arrays), "actions", "[-1, 1]", "1.5 in row 31, column 1", "--clip-actions", "--env")
    clipped = load(put(arrays), clip_actions=True)
    assert clipped.action[31, 1] == 1.0
    np.testing.assert_array_equal(np.delete(clipped.action, 31, 0), np.delete(arrays["actions"], 31, 0))


def test_rounding_of_actions_is_forgiven(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["actions"][3, 0] = -1.0 - 9e-6
    assert load(put(arrays)).action[3, 0] == -1.0
    arrays["actions"][3, 0] = -1.0 - 2e-5
    expect(put(arrays), "actions", "row 3, column 0")


def test_constant_column_is_warned_about(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["observations"][:, 1] = 0.3
    with pytest.warns(UserWarning, match=r"1 of 3 columns never change \(columns 1\)") as caught:
        load(put(arrays))
    assert caught[0].filename == __file__  # it points at the caller
    arrays["observations"][7, 1] = 0.4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(put(arrays))


def test_missing_folder_truncated_and_foreign_files(arrays: Arrays, put: Callable[..., Path], tmp_path: Path) -> None:
    path = put(arrays)
    expect(tmp_path / "date.hdf5", "an existing HDF5 file", "date.hdf5", "that folder holds data.hdf5")
    expect(tmp_path, "the folder")
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        expect(path, "HDF5 file", "data.hdf5")
    (tmp_path / "notes.txt").write_text("observations")
    expect(tmp_path / "notes.txt", "an HDF5 file", "no HDF5 signature")


def test_corrupt_chunk(arrays: Arrays, put: Callable[..., Path]) -> None:
    path = put(arrays)
    with h5py.File(path) as file:
        chunk = file["observations"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)
    expect(path, "a whole HDF5 file", "truncated or corrupt")


def test_group_in_place_of_an_array(arrays: Arrays, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("observations")
        for key in ("actions", "rewards", "terminals"):
            file[key] = arrays[key]
    expect(tmp_path / "a.hdf5", "observations", "an array", "Group")


def test_arrays_that_live_in_other_files(arrays: Arrays, put: Callable[..., Path], tmp_path: Path) -> None:
    """A virtual dataset reads as zeros where its source is gone: never load one."""
    layout = h5py.VirtualLayout((ROWS,), np.float32)
    layout[:] = h5py.VirtualSource("gone.hdf5", "rewards", (ROWS,))
    path = put(arrays)
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_virtual_dataset("rewards", layout)
    expect(path, "rewards", "values in this file")


@pytest.mark.parametrize("seed", range(50))
def test_views_of_random_flags(seed: int) -> None:
    """Against plain loops: rows of the view, and the marks on the rows that close an episode's kept part."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 40))
    kind = rng.choice(3, rows, p=[0.7, 0.15, 0.15])
    kind[0] = 0  # so that there is a transition
    arrays = {
        "observations": rng.normal(size=(rows, 2)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": kind == 1,
        "timeouts": kind == 2,
    }
    for terminate_on_end in (False, True):
        data = Dataset(
            "random", *arrays.values(), -np.ones(1), np.ones(1), Path(), "", terminate_on_end=terminate_on_end
        )
        assert_view(data, plain_view(arrays, None, terminate_on_end))
        marks, last, final = [], None, rows - 1
        for i in range(rows):
            kept = i < final and (kind[i] != 2 or terminate_on_end)
            if kept:
                marks.append(float(kind[i] == 2))
                last = len(marks) - 1
            elif kind[i] > 0 and last is not None:
                marks[last] = 1.0
            if kind[i] > 0:
                last = None  # the next row opens another episode
        timeout = data.transitions().timeout
        assert timeout is not None
        assert timeout.tolist() == marks


def test_unknown_name() -> None:
    expect("local/pendulum-middle-v0", "did you mean 'local/pendulum-medium-v0'", "path of an HDF5 file")
    expect("hopper-medum-v2", "did you mean 'hopper-medium-v2'", "path of an HDF5 file")
    expect("zzzz", "orbs data list shows all names", "path of an HDF5 file")
    assert "local/pendulum-medium-replay-v0" in names()


def test_environment_gives_bounds_limit_and_scores(arrays: Arrays, put: Callable[..., Path]) -> None:
    arrays["actions"] = 2 * arrays["actions"][:, :1]
    data = load(put(arrays), env="Pendulum-v1")
    assert data.action_low.tolist() == [-2.0]
    assert data.action_high.tolist() == [2.0]
    assert data.env_id == "Pendulum-v1"
    assert data.normalized_score(data.max_score or 0.0) == 100.0
    arrays["actions"] *= 2
    expect(put(arrays), "[-2, 2]", "--clip-actions", env="Pendulum-v1")
    arrays["actions"] = np.repeat(arrays["actions"], 2, axis=1)
    expect(put(arrays), "actions", "1 columns, as Pendulum-v1 has", env="Pendulum-v1")
    arrays["observations"] = arrays["observations"][:, :2]
    expect(put(arrays), "observations", "3 columns, as Pendulum-v1 has", env="Pendulum-v1")


def test_environments_that_cannot_serve(arrays: Arrays, put: Callable[..., Path]) -> None:
    expect(put(arrays), "env", "did you mean 'Pendulum-v1'", env="Pendulun-v1")
    expect(put(arrays), "env", "discrete actions are unsupported", env="CartPole-v1")


def test_score_without_reference(arrays: Arrays, put: Callable[..., Path]) -> None:
    data = load(put(arrays))
    assert data.min_score is None
    with pytest.raises(ValueError, match=re.escape("score: expected a dataset with reference returns")):
        data.normalized_score(1.0)


def test_summary_and_checksum(arrays: Arrays, put: Callable[..., Path]) -> None:
    data = load(put(arrays))
    assert data.summary().startswith("data: 60 rows in 6 episodes of 10 to 10 steps, 3 ended by a terminal and 3 by")
    again = load(put(arrays))
    assert data.sha256 == again.sha256  # the writer stores no times
    assert data.transitions().checksum() == again.transitions().checksum()
