"""D4RL by name: the table, the places, files that are there, files that are not."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from envs.datasets import d4rl, download, records

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(download.urllib.request, "urlopen", connect)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """hopper-medium-v2 at an address where nobody listens."""
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:9/hopper_medium-v2.hdf5"
    entry = dataclasses.replace(d4rl.entry("hopper-medium-v2"), url=url)
    monkeypatch.setattr(d4rl, "ENTRIES", {"hopper-medium-v2": entry})
    return url


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((5000, 3), np.float32)
    return path


def test_the_table() -> None:
    assert len(d4rl.names()) == len(d4rl.ENTRIES) == 155
    assert d4rl.names() == sorted(d4rl.ENTRIES)
    scored = [entry for entry in d4rl.ENTRIES.values() if entry.minimum is not None]
    assert len(scored) == 147
    assert all(entry.maximum is not None and entry.maximum > entry.minimum for entry in scored)  # type: ignore[operator]
    assert {name for name, entry in d4rl.ENTRIES.items() if entry.maximum is None} == {
        "ant-random-expert-v0",
        "carla-town-full-v0",
        *(f"maze2d-eval-{size}{dense}-v1" for size in ("umaze", "medium", "large") for dense in ("", "-dense")),
    }
    assert all(entry.url.startswith(URL) and entry.url.endswith(".hdf5") for entry in d4rl.ENTRIES.values())


@pytest.mark.parametrize(
    ("name", "minimum", "maximum", "step_limit", "address"),
    [
        ("halfcheetah-medium-expert-v2", -280.178953, 12135.0, 1000, "gym_mujoco_v2/halfcheetah_medium_expert-v2"),
        ("hopper-medium-v2", -20.272305, 3234.3, 1000, "gym_mujoco_v2/hopper_medium-v2"),
        ("walker2d-medium-replay-v0", 1.629008, 4592.3, 1000, "gym_mujoco/walker_mixed"),
        ("pen-human-v1", 96.262799, 3076.8331017826877, 100, "hand_dapg_v1/pen-human-v1"),
        ("relocate-expert-v1", -6.425911, 4233.877797728884, 200, "hand_dapg_v1/relocate-expert-v1"),
        ("maze2d-umaze-dense-v1", 68.537689, 193.66285642381482, 300, "maze2d/maze2d-umaze-dense-v1"),
        ("maze2d-large-v1", 6.7, 273.99, 800, "maze2d/maze2d-large-sparse-v1"),
        ("kitchen-mixed-v0", 0.0, 4.0, 280, "kitchen/kitchen_microwave_kettle_bottomburner_light-v0"),
        (
            "antmaze-umaze-v2",
            0.0,
            1.0,
            700,
            "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed",
        ),
    ],
)
def test_entries(name: str, minimum: float, maximum: float, step_limit: int, address: str) -> None:
    assert d4rl.entry(name) == d4rl.Entry(name, minimum, maximum, step_limit, f"{URL}{address}.hdf5")


def test_no_two_names_share_a_place() -> None:
    """Neither where upper and lower case are the same: whatever lies at a place is that dataset."""
    assert len({entry.file_name.lower() for entry in d4rl.ENTRIES.values()}) == 155
    assert not any(name.lower().endswith((".json", ".part")) for name in (e.file_name for e in d4rl.ENTRIES.values()))


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert d4rl.place("hopper-medium-v2") == tmp_path / ".d4rl/datasets/hopper_medium-v2.hdf5"
    monkeypatch.setenv("D4RL_DATASET_DIR", "/data/d4rl")
    assert d4rl.place("hopper-medium-v2") == Path("/data/d4rl/hopper_medium-v2.hdf5")


def test_unknown_name() -> None:
    with pytest.raises(
        ValueError, match=r"one of D4RL's 155 names, got 'hoper-medium-v2'.*did you mean 'hopper-medium-v2"
    ):
        d4rl.fetch("hoper-medium-v2")
    with pytest.raises(ValueError, match="got 'zzzz'"):
        d4rl.place("zzzz")


def test_scores() -> None:
    assert d4rl.normalized_score("hopper-medium-v2", 3234.3) == 100.0
    np.testing.assert_allclose(d4rl.normalized_score("kitchen-mixed-v0", np.array([0.0, 1.0, 4.0])), [0, 25, 100])
    with pytest.raises(ValueError, match="'carla-town-full-v0', which has none"):
        d4rl.normalized_score("carla-town-full-v0", 1.0)


@pytest.mark.usefixtures("no_network")
def test_a_folder_of_files_needs_no_network(folder: Path) -> None:
    path = put(folder / "hopper_medium-v2.hdf5")
    for _ in range(2):
        assert d4rl.fetch("hopper-medium-v2") == path
    status = d4rl.status("hopper-medium-v2")
    assert (status.present, status.size, status.partial) == (True, path.stat().st_size, 0)
    assert status.sha256 == records.digest(path)
    assert d4rl.verify("hopper-medium-v2").sentence() == f"{status.size} bytes, SHA-256 {status.sha256}, as recorded"


@pytest.mark.usefixtures("no_network")
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes in every folder")
def test_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    path = put(folder / "hopper_medium-v2.hdf5")
    folder.chmod(0o555)
    try:
        assert d4rl.fetch("hopper-medium-v2") == path
        assert d4rl.verify("hopper-medium-v2").sha256 is None
    finally:
        folder.chmod(0o755)


@pytest.mark.usefixtures("no_network")
def test_a_record_that_cannot_be_written_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    path = put(folder / "hopper_medium-v2.hdf5")
    monkeypatch.setattr(records, "write_atomically", refuse)
    assert d4rl.fetch("hopper-medium-v2") == path
    assert d4rl.verify("hopper-medium-v2").sha256 == records.digest(path)


@pytest.mark.usefixtures("no_network")
def test_verify(folder: Path) -> None:
    assert d4rl.status("pen-human-v1").sentence() == f"not at {folder / 'pen-human-v1.hdf5'}"
    with pytest.raises(ValueError, match=rf"expected a file at {folder / 'pen-human-v1.hdf5'}, got none"):
        d4rl.verify("pen-human-v1")
    path = put(folder / "pen-human-v1.hdf5")
    assert d4rl.verify("pen-human-v1").note == "recorded now, for the first time"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(5, 5))
    for look in (d4rl.verify, d4rl.fetch):
        with pytest.raises(ValueError, match="as recorded, got"):
            look("pen-human-v1")


@pytest.mark.usefixtures("no_network")
def test_what_a_broken_download_of_the_d4rl_package_left(folder: Path) -> None:
    path = put(folder / "hopper_medium-v2.hdf5")
    whole = path.read_bytes()
    for rest, said in ((whole[:-100], "damaged HDF5 file"), (b"<html>", "not HDF5"), (b"", "not HDF5")):
        path.write_bytes(rest)
        with pytest.raises(ValueError, match=rf"{path}, got .*{said}.*delete it and call again"):
            d4rl.fetch("hopper-medium-v2")
    assert not list(folder.glob("*.json"))


def test_no_network_says_what_to_do(folder: Path, nobody: str) -> None:
    path = folder / "hopper_medium-v2.hdf5"
    with pytest.raises(ValueError) as caught:
        d4rl.fetch("hopper-medium-v2", progress=False)
    text = str(caught.value)
    for part in (
        "dataset 'hopper-medium-v2': expected a file at ",
        f"no connection to {nobody} (Connection refused)",
        f"put the file at {path} by hand",
        "set D4RL_DATASET_DIR to a folder that has hopper_medium-v2.hdf5",
        "env.get_dataset()",
    ):
        assert part in text, text
    assert list(folder.iterdir()) == []
    put(path)
    assert d4rl.fetch("hopper-medium-v2") == path


def test_a_part_is_named(folder: Path, nobody: str) -> None:
    folder.mkdir()
    (folder / "hopper_medium-v2.hdf5.part").write_bytes(b"x" * 70)
    (folder / "hopper_medium-v2.hdf5.part.json").write_text(f'{{"url": "{nobody}", "etag": "\\"a\\"", "length": 900}}')
    with pytest.raises(ValueError, match=r"70 of 900 bytes lie in .*hopper_medium-v2\.hdf5\.part, and the next call"):
        d4rl.fetch("hopper-medium-v2", progress=False)
    assert d4rl.status("hopper-medium-v2").sentence().endswith("70 bytes of a broken download lie there")


def test_an_error_page_in_place_of_a_file(tmp_path: Path) -> None:
    """As a portal sends it with status 200: it fails the check of a download."""
    (tmp_path / "page.html").write_text("<html>Please log in</html>")
    wanted = "something that is not HDF5 (26 bytes, which begin with b'<html>Please log in</html>')"
    assert d4rl._damage(tmp_path / "page.html") == wanted
