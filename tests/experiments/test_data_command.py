"""`orbs data` and `orbs collect`, run as a user runs them."""

from __future__ import annotations

from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest

from envs.datasets import load
from experiments.cli import main
from experiments.data_plots import BINS, action_coverage

SHIPPED = "local/pendulum-medium-replay-v0"

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ORBS_DATASET_DIR", "orbs"), ("D4RL_DATASET_DIR", "d4rl"), ("MINARI_DATASETS_PATH", "minari")
    ):  # fmt: skip
        monkeypatch.setenv(name, str(tmp_path / value))


def lines(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    assert main(list(arguments)) == status
    return capsys.readouterr().out.splitlines()


def test_list_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "data", "list")
    assert found[-1].startswith("175 datasets.")
    hopper = next(line for line in found if line.startswith("hopper-medium-v2 "))
    assert hopper.split() == ["hopper-medium-v2", "downloaded", "on", "first", "use", "-20.272", "3234.3", "Hopper-v4"]
    some = lines(capsys, "data", "list", "local", "replay")
    assert [line.split()[0] for line in some[1:-1]] == [
        f"local/{task}-medium-replay-v0" for task in ("pendulum", "hopper", "halfcheetah", "walker2d")
    ]
    assert [line.split()[0] for line in lines(capsys, "data", "list", "--here")[1:-1]] == [SHIPPED]
    assert lines(capsys, "data", "list", "nothing-like-it") == [
        "No dataset of this description; `orbs data list` shows all."
    ]


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(lines(capsys, "data", "info", SHIPPED, "local/hopper-expert-v0", "antmaze-umaze-v2"))
    assert f"sha256 {load(SHIPPED).sha256}" in text
    assert "normalised score of the mean 38.7" in text
    assert "orbs data download local/hopper-expert-v0 makes it" in text
    assert "orbs data download antmaze-umaze-v2 fetches it" in text
    assert "http://rail.eecs.berkeley.edu" in text


def test_unknown_names_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", "local/walker2d-expert-v0"]) == 2
    assert "Fix: load 'local/walker2d-strong-v0'" in capsys.readouterr().err
    assert main(["data", "info", "local/hoper-expert-v0"]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("orbs: error: dataset: expected the name of a dataset")
    assert "did you mean 'local/hopper-expert-v0'?" in found.err
    assert main(["collect", "make", "local/hoper-expert-v0"]) == 2
    assert "NAME: expected the name of a local dataset" in capsys.readouterr().err


def test_download_makes_a_local_set_and_verify_finds_damage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name, path = "local/pendulum-random-v0", tmp_path / "orbs" / "pendulum-random-v0.hdf5"
    assert lines(capsys, "data", "download", name, "--quiet")[0].startswith(f"{name}: {path}, ")
    assert len(load(name)) == 100_000
    assert "checksum" in lines(capsys, "data", "verify")[1]
    with h5py.File(path, "a") as file:
        file["rewards"][3] += 1
    found = lines(capsys, "data", "verify", name, SHIPPED, status=1)
    assert found[0].startswith(f"{name}: WRONG: ")
    assert found[1].startswith(f"{SHIPPED}: comes with the suite")


def test_variant(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "small.hdf5"
    command = ["collect", "make", "local/pendulum-expert-v0", "--rows", "1000", "--seed", "9", "--quiet"]
    assert main(command) == 2
    assert "--out: expected a file for a variant" in capsys.readouterr().err
    assert lines(capsys, *command, "--out", str(out)) == [f"{out}: 1000 rows"]
    data = load(out)
    assert data.env_id == "Pendulum-v1"
    assert data.episode_lengths().tolist() == [200] * 5
    assert data.episode_returns().mean() > -300
    assert main(["collect", "make", SHIPPED]) == 2
    assert "a file that does not come with the suite" in capsys.readouterr().err


def test_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "a" / "picture.png"
    assert lines(capsys, "data", "picture", SHIPPED, "--out", str(out)) == [str(out)]
    image = matplotlib.image.imread(out)
    assert image.shape[0] > 300
    assert image.std() > 0.05
    assert main(["data", "picture", SHIPPED, "--out", str(tmp_path / "picture.doc")]) == 2
    assert "ends in .png, .pdf or .svg" in capsys.readouterr().err


def test_action_coverage() -> None:
    data = load(SHIPPED)
    coverage = action_coverage(data)
    assert coverage.shape == (1, BINS)
    np.testing.assert_allclose(coverage.sum(1), 1.0)
    assert coverage[0, -1] == ((data.action >= 2.0 - 4.0 / BINS).mean())


def test_collect_train_and_play(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = (
        "collect train --env Pendulum-v1 --steps 400 --num-envs 2 --width 8 --batch-size 8 --learning-starts 100 "
        f"--eval-every 200 --checkpoint-every 200 --out {tmp_path / 'sac'}"
    ).split()
    assert lines(capsys, *command)[-1].startswith("Pendulum-v1: 400 steps, best score ")
    assert lines(capsys, *command)[-1].startswith("Pendulum-v1: 400 steps, best score ")  # nothing is left to do
    found = lines(capsys, "collect", "play", str(tmp_path / "sac" / "best.safetensors"), "--episodes", "3")
    assert [line.split(":")[0] for line in found] == ["sampled  actions", "mean     actions"]
    assert "score" in found[0]
