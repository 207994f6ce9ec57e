"""Files that are odd or wrong in ways that real ones are: types, links, storage, episodes without an end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from envs.datasets import from_arrays, load
from envs.datasets.hdf5 import write

Arrays = dict[str, np.ndarray]
ROWS = 40


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    end = np.arange(ROWS) % 10 == 9
    return {
        "observations": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": end & (np.arange(ROWS) < 20),
        "timeouts": end & (np.arange(ROWS) >= 20),
    }


def expect(path: Path, *parts: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(path)
    for part in (*parts, "expected", "got", "Fix: "):
        assert part in str(caught.value), str(caught.value)


WRONG_TYPES: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("observations", lambda x: x.astype(complex), "type complex128"),
    ("observations", lambda x: x.astype("S8"), "type |S8"),
    ("rewards", lambda x: x.astype("S8"), "type |S8"),
    ("rewards", lambda x: np.array([b"a"] * ROWS, dtype=h5py.string_dtype()), "type object"),
    ("actions", lambda x: x.astype(np.int64), "discrete actions are unsupported"),
    ("actions", lambda x: x > 0, "discrete actions are unsupported"),
    ("terminals", lambda x: x.astype(np.float32) * 0.5, "0 or 1"),
    ("terminals", lambda x: x.astype(np.int32) * 2, "0 or 1"),
    ("timeouts", lambda x: np.where(x, np.nan, 0.0), "0 or 1"),
    ("rewards", lambda x: np.zeros(ROWS, [("value", "f4")]), "type "),
]


@pytest.mark.parametrize(("key", "change", "part"), WRONG_TYPES)
def test_wrong_type(
    arrays: Arrays, tmp_path: Path, key: str, change: Callable[[np.ndarray], np.ndarray], part: str
) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=change(array) if name == key else array)
    expect(tmp_path / "a.hdf5", key, part)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_one_array_under_two_keys(arrays: Arrays, tmp_path: Path, kind: str) -> None:
    """Were it taken, every episode's end would be a terminal and a time-out."""
    path = tmp_path / "a.hdf5"
    write(path, arrays, {})
    with h5py.File(path, "a") as file:
        del file["timeouts"]
        file["timeouts"] = file["terminals"] if kind == "hard" else h5py.SoftLink("/terminals")
    expect(path, "timeouts: expected an array of its own", "the same array as 'terminals'")


def test_link_to_another_file(arrays: Arrays, tmp_path: Path) -> None:
    write(tmp_path / "secret.hdf5", arrays, {})
    write(tmp_path / "a.hdf5", arrays, {})
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["rewards"]
        file["rewards"] = h5py.ExternalLink("secret.hdf5", "/rewards")
    expect(tmp_path / "a.hdf5", "rewards: expected values in this file")


def test_dangling_link_is_a_missing_key(arrays: Arrays, tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5", arrays, {})
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["rewards"]
        file["rewards"] = h5py.SoftLink("/gone")
    expect(tmp_path / "a.hdf5", "rewards", "the key 'rewards'")


@pytest.mark.parametrize(
    "how", [{}, {"chunks": True}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}]
)
def test_storage_changes_nothing(arrays: Arrays, tmp_path: Path, how: dict[str, object]) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **how)
    data = load(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(data.obs, arrays["observations"])
    np.testing.assert_array_equal(data.terminal, arrays["terminals"])


def test_damaged_compressed_chunk(arrays: Arrays, tmp_path: Path) -> None:
    """An error, not zeros."""
    path = tmp_path / "a.hdf5"
    write(path, arrays, {})
    with h5py.File(path, "a") as file:
        del file["rewards"]
        space = h5py.h5s.create_simple((ROWS,))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((ROWS,))
        plist.set_deflate(4)
        data = h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, space, plist)
        data.write_direct_chunk((0,), b"\1\2\3", filter_mask=0)  # a cut chunk
    expect(path, "a whole HDF5 file", "truncated or corrupt")


def test_byte_orders_and_widths(arrays: Arrays, tmp_path: Path) -> None:
    """Big-endian, float16 and float64 columns give the float32 values."""
    for kind in (">f4", ">f8", "<f8", "<f2"):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            for name, array in arrays.items():
                file[name] = array.astype(kind) if array.dtype == np.float32 else array
        data = load(tmp_path / "a.hdf5")
        assert data.obs.dtype == np.float32
        assert data.obs.dtype.isnative
        np.testing.assert_array_equal(data.obs, arrays["observations"].astype(kind).astype(np.float32))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_numbers_beyond_float32(arrays: Arrays, tmp_path: Path, where: str) -> None:
    wide = {**arrays, "rewards": arrays["rewards"].astype(np.float64)}
    wide["rewards"][3] = 1e39
    write(tmp_path / "a.hdf5", wide, {})
    with pytest.raises(ValueError, match=r"rewards: expected finite numbers, got inf in row 3.*as float32"):
        load(tmp_path / "a.hdf5") if where == "file" else from_arrays(wide)


def test_an_episode_that_never_ends(arrays: Arrays, tmp_path: Path) -> None:
    """No end at all is an error; an unfinished last episode is not."""
    for key in ("terminals", "timeouts"):
        arrays[key] = np.zeros(ROWS, np.bool_)
    write(tmp_path / "a.hdf5", arrays, {})
    expect(tmp_path / "a.hdf5", "an episode end", "none in 40 rows")
    arrays["timeouts"][9] = True
    write(tmp_path / "a.hdf5", arrays, {})
    data = load(tmp_path / "a.hdf5")
    assert data.episode_lengths().tolist() == [10]
    assert len(data.transitions()) == 38
    assert "the last 30 rows are an unfinished episode" in data.summary()


def test_a_dictionary_gives_what_the_file_gives(arrays: Arrays, tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5", arrays, {})
    one = load(tmp_path / "a.hdf5").transitions()
    other = from_arrays({**arrays, "infos/qpos": np.zeros(3), "metadata/algorithm": "SAC"}, name="a").transitions()
    assert one.checksum() == other.checksum()
    arrays["rewards"] = arrays["rewards"][:, None]
    assert from_arrays(arrays, name="a").transitions().checksum() == one.checksum()


def test_a_dictionary_is_copied_and_checked(arrays: Arrays) -> None:
    data = from_arrays(arrays)
    arrays["observations"][:] = 7
    arrays["terminals"][:] = True
    assert not (data.obs == 7).any()
    assert data.terminal.sum() == 2
    with pytest.raises(ValueError, match="read-only"):
        data.obs[0] = 1
    with pytest.raises(ValueError, match=r"arrays: expected a dictionary of arrays, got list"):
        from_arrays([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rewards: expected the key 'rewards' in mine"):
        from_arrays({key: value for key, value in arrays.items() if key != "rewards"}, name="mine")
    with pytest.raises(ValueError, match=r"rewards: expected 40 rows"):
        from_arrays({**arrays, "rewards": arrays["rewards"][:7]})


def test_a_dictionary_under_d4rls_name_has_its_scores_and_environment() -> None:
    rng = np.random.default_rng(0)
    rows = 2500
    arrays = {
        "observations": rng.normal(size=(rows, 11)),
        "actions": rng.uniform(-1, 1, (rows, 3)),
        "rewards": np.ones(rows),
        "terminals": np.zeros(rows, np.bool_),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = from_arrays(arrays, name="hopper-medium-v2")
    assert data.env_id == "Hopper-v4"
    assert (data.min_score, data.max_score) == (-20.272305, 3234.3)
    assert data.episode_lengths().tolist() == [1000, 1000]  # D4RL's step limit, since the file has no time-outs
    assert data.env_note is not None
    assert "Hopper-v4" in data.env_note or "MuJoCo" in data.env_note
