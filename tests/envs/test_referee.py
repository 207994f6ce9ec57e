"""The d4rl package itself as the referee: its tables, its scores, its q-learning view, its dictionaries.

It lives in an environment of its own (`make referee`), since it needs gym. Every number must be equal, not close.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from envs.datasets import d4rl, hdf5
from envs.datasets.qlearning import qlearning_view
from envs.datasets.registry import from_arrays

pytestmark = pytest.mark.extra

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("ORBS_D4RL_PYTHON") or CHECKOUT / ".venv-d4rl" / "bin" / "python")
CASES = 120


def ask(*arguments: str | Path, default_place: bool = False) -> None:
    """Run the program there. The package makes a folder for datasets when it is imported: not in the user's home."""
    if not PYTHON.is_file():
        pytest.skip(f"no Python with the d4rl package at {PYTHON}: run `make referee`, or set ORBS_D4RL_PYTHON")
    command = [PYTHON, Path(__file__).with_name("referee_program.py"), *arguments]
    outside = {} if default_place else {"D4RL_DATASET_DIR": str(Path(arguments[-1]).parent / "datasets")}
    done = subprocess.run(command, env={**os.environ, **outside}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def case(seed: int) -> dict[str, Any]:
    """Random episodes; the even ones with time-outs in the file, the odd ones with a step limit alone.

    Both flags may stand in one row, episodes may have one row, terminals may lie on a cut and beside it.
    """
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 150))
    share = rng.choice([0.0, 0.03, 0.1, 0.4, 0.9])
    data = {
        "observations": rng.normal(size=(rows, 11)).astype(rng.choice([np.float32, np.float64])),
        "actions": rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": (rng.random(rows) < share).astype(rng.choice([np.bool_, np.float32, np.uint8])),
        "limit": rng.integers(1, 12),
    }
    if seed % 2 == 0:
        data["timeouts"] = (rng.random(rows) < 0.1).astype(rng.choice([np.bool_, np.float32]))
    return data


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Theirs of every case: "<case>/<terminate_on_end>/<key>"."""
    folder = tmp_path_factory.mktemp("views")
    flat = {f"{i}/{key}": array for i in range(CASES) for key, array in case(i).items()}
    np.savez(folder / "cases.npz", count=CASES, **flat)
    ask("views", folder / "cases.npz", folder / "views.npz")
    return dict(np.load(folder / "views.npz"))


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], prefix: str) -> None:
    for key, array in ours.items():
        wanted = theirs[f"{prefix}/{key}"]
        assert wanted.size == array.size, (prefix, key)  # theirs has no columns where no row is left
        np.testing.assert_array_equal(array.reshape(wanted.shape), wanted, f"{prefix}: {key}")


@pytest.mark.parametrize("terminate_on_end", [False, True])
def test_views(views: dict[str, np.ndarray], terminate_on_end: bool) -> None:
    for i in range(CASES):
        data = case(i)
        raw = hdf5.from_arrays(data, f"case {i}")
        view = qlearning_view(
            raw.terminal, raw.timeout, step_limit=int(data["limit"]), terminate_on_end=terminate_on_end
        )
        ours = {
            "observations": raw.obs[:-1][view.keep],
            "actions": raw.action[:-1][view.keep],
            "rewards": raw.reward[:-1][view.keep],
            "next_observations": raw.obs[1:][view.keep],
            "terminals": view.terminal,
        }
        assert_equal(ours, views, f"{i}/{int(terminate_on_end)}")


@pytest.mark.parametrize("terminate_on_end", [False, True])
@pytest.mark.filterwarnings("ignore:observations")
def test_transitions_of_datasets(views: dict[str, np.ndarray], terminate_on_end: bool) -> None:
    """The same through all of our code, for data that go by a name of D4RL."""
    compared = 0
    for i in range(CASES):
        data = case(i)
        limit = int(data.pop("limit"))
        try:
            found = from_arrays(data, name="hopper-medium-v2", step_limit=limit, terminate_on_end=terminate_on_end)
            rows = found.transitions()
        except ValueError as error:  # what the package takes without a word
            known = ("an episode end", "at least 2 steps", "at least one row")
            if not any(text in str(error) for text in known):
                raise
            continue
        ours = {
            "observations": rows.obs,
            "actions": rows.action,
            "rewards": rows.reward,
            "next_observations": rows.next_obs,
            "terminals": rows.terminal,
        }
        assert_equal(ours, views, f"{i}/{int(terminate_on_end)}")
        compared += 1
    assert compared > CASES // 2


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tables")
    ask("tables", folder / "tables.json")
    found: dict[str, Any] = json.loads((folder / "tables.json").read_text())
    return found


def test_tables(tables: dict[str, Any]) -> None:
    assert {name: entry.url for name, entry in d4rl.ENTRIES.items()} == tables["urls"]
    scored = {name: entry for name, entry in d4rl.ENTRIES.items() if entry.minimum is not None}
    assert {name: entry.minimum for name, entry in scored.items()} == tables["minimum"]
    assert {name: entry.maximum for name, entry in scored.items()} == tables["maximum"]
    assert len(tables["urls"]) == 155
    assert len(tables["minimum"]) == 147


def test_scores(tables: dict[str, Any]) -> None:
    """Theirs are fractions, ours are times 100."""
    for name, wanted in tables["scores"].items():
        np.testing.assert_allclose(d4rl.normalized_score(name, np.array([-1234.5, 0.0, 777.7])) / 100, wanted, 1e-14)


def test_step_limits(tables: dict[str, Any]) -> None:
    limits = {name: tables["step_limits"].get(name) for name in d4rl.ENTRIES}
    assert limits == {name: entry.step_limit for name, entry in d4rl.ENTRIES.items()}


def test_places(tables: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tables["places"]["hopper-medium-v2"]).parent
    monkeypatch.setenv("D4RL_DATASET_DIR", str(folder))
    assert {name: str(d4rl.place(name)) for name in d4rl.ENTRIES} == tables["places"]


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    ask("tables", tmp_path / "tables.json", default_place=True)
    places = json.loads((tmp_path / "tables.json").read_text())["places"]
    assert {name: str(d4rl.place(name)) for name in d4rl.ENTRIES} == places


def test_a_dictionary_of_get_dataset_is_taken_as_the_file_is(tmp_path: Path) -> None:
    """Columns, groups and scalars of metadata as in D4RL's own files."""
    rng = np.random.default_rng(0)
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(40, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
        file["rewards"] = rng.normal(size=(40, 1)).astype(np.float32)
        file["terminals"] = (np.arange(40) % 10 == 9).astype(np.float32)[:, None]
        file["timeouts"] = np.arange(40) == 25
        file["infos/qpos"] = np.zeros((40, 5), np.float32)
        file["metadata/algorithm"] = np.bytes_("SAC")
        file["metadata/iteration"] = np.int32(7)
    ask("dictionary", path, tmp_path / "dictionary.npz")
    handed = dict(np.load(tmp_path / "dictionary.npz"))
    assert {"infos/qpos", "metadata/algorithm", "metadata/iteration"} < set(handed)
    ours, theirs = hdf5.read(path), hdf5.from_arrays(handed, "dictionary")
    for field in ("obs", "action", "reward", "terminal", "timeout"):
        np.testing.assert_array_equal(getattr(theirs, field), getattr(ours, field))
