"""Exporting to Minari: read back, it gives the view that it came from; nothing is half-written."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.datasets import Dataset, load
from envs.datasets.hdf5 import RawFile
from envs.datasets.minari import read
from envs.datasets.minari_export import export

minari = pytest.importorskip("minari", reason='needs pip install "orbs[minari]"')
pytestmark = pytest.mark.extra

ID = "pendulum/test-v0"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's folder is the test's own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def as_dataset(raw: RawFile) -> Dataset:
    low, high = raw.attributes["action_low"], raw.attributes["action_high"]
    timeout = raw.timeout
    assert timeout is not None
    fields = (raw.obs, raw.action, raw.reward, raw.terminal, timeout, low, high)
    return Dataset("read", *fields, Path(), raw.sha256, final_obs=raw.final_obs)


def assert_round_trip(data: Dataset, dataset_id: str = ID) -> None:
    """The export holds the rows of the view. It has one more where the view cannot: the file's last terminal row."""
    before, after = data.transitions(), as_dataset(read(dataset_id)).transitions()
    extra = int(data.final_obs is None and bool(data.terminal[-1]))
    assert len(after) == len(before) + extra
    rows, running = slice(len(before)), before.terminal == 0
    assert before.timeout is not None
    assert after.timeout is not None
    for field in ("obs", "action", "reward", "terminal"):
        np.testing.assert_array_equal(getattr(after, field)[rows], getattr(before, field), err_msg=field)
    np.testing.assert_array_equal(after.next_obs[rows][running], before.next_obs[running])
    closed = before.timeout.copy()
    if extra:  # its episode ends in that row, not in the one before
        closed[-1] = 0.0
        assert after.terminal[-1] == 1.0
        np.testing.assert_array_equal(after.reward[-1], data.reward[-1])
    elif not data.timeout[-1]:
        closed[-1] = 1.0 - before.terminal[-1]  # an unfinished episode reads as one that was cut
    np.testing.assert_array_equal(after.timeout[rows], closed)


def test_shipped_dataset_through_the_export(home: Path) -> None:
    data = load("local/pendulum-medium-replay-v0")
    assert export(data, ID, author="orbs", algorithm="SAC", description="A replay buffer.") == ID
    assert_round_trip(data)
    dataset = minari.load_dataset(ID)  # by Minari's own reader
    assert dataset.total_episodes == len(data.episode_lengths())
    assert dataset.total_steps == len(data) - data.timeout.sum()
    assert dataset.env_spec.id == "Pendulum-v1"
    metadata = dataset.storage.metadata
    assert metadata["author"] == {"orbs"}
    assert metadata["algorithm_name"] == "SAC"
    assert metadata["description"].startswith(f"A replay buffer. Exported by orbs 0.1.0 from {data.name}")
    assert "one step shorter here" in metadata["description"]
    scores = minari.get_normalized_score(dataset, np.array([data.min_score, data.max_score]))
    np.testing.assert_allclose(scores, [0.0, 1.0], atol=1e-12)
    assert list(minari.list_local_datasets()) == [ID]
    for index, part in enumerate(dataset.iterate_episodes()):
        assert len(part.observations) == len(part.rewards) + 1
        assert part.truncations[-1], index


def random_dataset(lengths: list[int], kinds: list[str], final: bool, seed: int) -> Dataset:
    """`kinds`: how each episode ends; `open` leaves the last one unfinished."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminal, timeout = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    for end, kind in zip(ends, kinds, strict=True):
        terminal[end], timeout[end] = kind == "terminal", kind == "timeout"
    count = int(terminal.sum() + timeout.sum())
    return Dataset(
        "random",
        rng.normal(size=(rows, 3)).astype(np.float32),
        rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        terminal,
        timeout,
        np.full(2, -1, np.float32),
        np.full(2, 1, np.float32),
        Path(),
        "0" * 64,
        final_obs=rng.normal(size=(count, 3)).astype(np.float32) if final else None,
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(2, 6)),
    ends=st.lists(st.sampled_from(["terminal", "timeout"]), min_size=6, max_size=6),
    unfinished=st.booleans(),
    final=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_round_trip_of_random_episodes(
    lengths: np.ndarray, ends: list[str], unfinished: bool, final: bool, seed: int
) -> None:
    kinds = ends[: len(lengths)]
    if unfinished and len(lengths) > 1:
        kinds[-1] = "open"
    data = random_dataset(lengths.tolist(), kinds, final, seed)
    export(data, ID, overwrite=True)
    assert_round_trip(data)


def test_export_keeps_the_reward_of_a_terminal() -> None:
    data = random_dataset([3, 4], ["terminal", "terminal"], False, 0)
    export(data, ID)
    raw = read(ID)
    np.testing.assert_array_equal(raw.reward, data.reward)
    np.testing.assert_array_equal(raw.final_obs, data.obs[[2, 6]])


def test_export_of_short_ends() -> None:
    with pytest.raises(ValueError, match=r"dataset: expected episodes of at least two steps.*row 3"):
        export(random_dataset([3, 1, 4], ["timeout"] * 3, False, 0), ID)
    export(random_dataset([3, 1], ["timeout", "open"], False, 0), ID)  # the view has no such row either
    assert len(read(ID).obs) == 2


def test_export_refuses_and_leaves_nothing_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (random_dataset([3, 4], ["timeout", "terminal"], True, seed) for seed in (1, 2))
    export(first, ID)
    before = (home / ID / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(ValueError, match=r"an id that is free.*overwrite=True"):
        export(second, ID)
    with pytest.raises(ValueError, match=r"\(namespace/\)name-vN"):
        export(second, "no version")
    (home / "pendulum" / "group-v0").mkdir()
    with pytest.raises(ValueError, match="an id that is free"):
        export(second, "pendulum/group-v0", overwrite=True)  # a folder of something else
    storage = type(minari.load_dataset(ID).storage)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "update_episodes", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
        for name in (ID, "other/new-v0"):
            with pytest.raises(OSError, match="disk full"):
                export(second, name, overwrite=True)
    assert (home / ID / "data" / "main_data.hdf5").read_bytes() == before
    assert not (home / "other").exists()
    export(second, ID, overwrite=True)
    np.testing.assert_array_equal(read(ID).obs, second.obs)
    assert sorted(path.name for path in home.iterdir()) == ["pendulum"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(minari.list_local_datasets()) == [ID]


def test_export_names_the_environment_without_building_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make", lambda *args, **kwargs: pytest.fail("an environment was built"))
    data = load("local/pendulum-medium-replay-v0")
    object.__setattr__(data, "env_id", "Unregistered-v7")
    export(data, ID)
    assert read(ID).attributes["env_id"] == "Unregistered-v7"
