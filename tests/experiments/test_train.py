"""The harness: training, run folders, resume to the same bits, diverged runs, errors before anything is written."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from envs.make import env_facts
from experiments import results
from experiments.options import overrides
from experiments.train import train
from tests.experiments.training import DATASET, assert_same, options, poison


def test_run_folder_holds_what_the_design_says(tmp_path):
    (folder,) = train(options(tmp_path, algos=("bc",)))
    config = json.loads((folder / "config.json").read_text())
    assert config["status"] == "complete"
    assert config["env"] == "Pendulum-v1"
    assert config["hyperparameters"]["hidden"] == [16, 16]
    assert {"torch", "gymnasium", "numpy", "python", "orbs", "mujoco"} <= config["versions"].keys()
    assert config["seed"] == 0
    assert config["git_commit"] is None or len(config["git_commit"]) >= 40
    frame = results.read_table(folder / "metrics.parquet")
    scores = frame[frame["metric"] == "eval/score"]
    assert sorted(scores["step"].unique()) == [30, 60]
    assert sorted(scores["run"].unique()) == [0, 1]
    assert sorted(frame[frame["metric"] == "train/actor_loss"]["step"].unique()) == [10, 20, 30, 40, 50, 60]


def test_every_row_says_what_scored_it(tmp_path):
    from importlib import metadata

    (folder,) = train(options(tmp_path, algos=("bc",)))
    frame = results.read_table(folder / "metrics.parquet")
    assert set(frame["env"]) == {"Pendulum-v1"}
    assert set(frame["simulator"]) == {f"gymnasium {metadata.version('gymnasium')}"}
    assert json.loads((folder / "config.json").read_text())["simulator"] == frame["simulator"][0]


def pendulum_file(path, env_id):
    """The built-in data in a file that names another environment, or none."""
    import shutil

    import h5py

    from envs.datasets import load

    shutil.copy(load(DATASET).path, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["env_id"]
        if env_id is not None:
            file.attrs["env_id"] = env_id
    return str(path)


def test_data_without_an_environment_trains_and_says_so(tmp_path, capsys):
    (folder,) = train(options(tmp_path / "out", algos=("bc",), dataset=pendulum_file(tmp_path / "a.hdf5", None)))
    out = capsys.readouterr().out
    assert out.count("cannot be scored: no environment is known for it (name one with --env).") == 1
    config = json.loads((folder / "config.json").read_text())
    assert (config["env"], config["simulator"]) == (None, None)
    assert config["env_note"].startswith("no environment is known")
    frame = results.read_table(folder / "metrics.parquet")
    assert frame["step"].max() == 60
    assert not frame["metric"].str.startswith("eval/").any()
    assert set(frame["env"]) == set(frame["simulator"]) == {""}


def test_data_whose_environment_needs_a_missing_extra_train_and_name_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    env_facts.cache_clear()  # another test may have made this environment
    path = pendulum_file(tmp_path / "a.hdf5", "AdroitHandDoor-v1")
    (folder,) = train(options(tmp_path / "out", algos=("bc",), dataset=path))
    wanted = 'AdroitHandDoor-v1, which scores it, needs an extra: pip install "orbs[robotics]"'
    assert f"cannot be scored: {wanted}." in capsys.readouterr().out
    assert json.loads((folder / "config.json").read_text())["env_note"] == wanted
    with pytest.raises(ImportError, match="robotics"):
        train(options(tmp_path / "asked", algos=("bc",), dataset=path, env="AdroitHandDoor-v1"))


def test_run_is_the_same_whichever_rides_along(tmp_path):
    """Runs 1 and 2 of three, trained as a block of their own: same evaluation starts, same numbers."""
    (three,) = train(options(tmp_path / "a", runs=3))
    (two,) = train(options(tmp_path / "b", runs=2, first_run=1))
    frame, frame2 = (results.read_table(folder / "metrics.parquet") for folder in (three, two))
    pick = (frame["metric"] == "eval/return") & (frame["run"] >= 1)
    pick2 = frame2["metric"] == "eval/return"
    assert frame[pick][["run", "step"]].values.tolist() == frame2[pick2][["run", "step"]].values.tolist()
    np.testing.assert_allclose(frame[pick]["value"], frame2[pick2]["value"], rtol=1e-3)


def test_resume_of_a_shorter_run_equals_the_straight_run(tmp_path):
    (straight,) = train(options(tmp_path / "a", algos=("prdc",)))
    train(options(tmp_path / "b", algos=("prdc",), steps=30))
    (resumed,) = train(options(tmp_path / "b", algos=("prdc",), resume=True))
    assert_same(straight, resumed)


def test_resume_of_a_complete_run_does_nothing(tmp_path, capsys):
    (folder,) = train(options(tmp_path))
    before = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    train(options(tmp_path, resume=True))
    assert "nothing to do" in capsys.readouterr().out
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_resume_with_rows_past_the_checkpoint_drops_them(tmp_path):
    """What a kill between the two files leaves: metrics ahead of the checkpoint."""
    (straight,) = train(options(tmp_path / "a"))
    (folder,) = train(options(tmp_path / "b", steps=30))
    frame = results.read_table(folder / "metrics.parquet")
    late = frame.assign(step=frame["step"] + 1000, value=-1.0)
    import pandas as pd

    results.write_table(pd.concat([frame, late], ignore_index=True), folder / "metrics.parquet")
    train(options(tmp_path / "b", resume=True))
    assert_same(straight, folder)


def test_diverged_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    from offline_rl import TD3BC

    poison(monkeypatch, TD3BC, 25)
    (folder,) = train(options(tmp_path, runs=3))
    config = json.loads((folder / "config.json").read_text())
    assert config["diverged"] == {"1": 30}
    assert config["status"] == "complete"
    assert "run 1 diverged" in capsys.readouterr().err
    frame = results.read_table(folder / "metrics.parquet")
    last = frame[(frame["metric"] == "eval/return") & (frame["step"] == 60)].set_index("run")["value"]
    assert np.isnan(last[1])
    assert np.isfinite(last[[0, 2]]).all()
    length = frame[(frame["metric"] == "eval/length") & (frame["step"] == 60)].set_index("run")["value"]
    assert np.isnan(length[1])
    from experiments.cli import main

    capsys.readouterr()
    assert main(["evaluate", str(folder), "--episodes", "1"]) == 0
    text = capsys.readouterr().out
    assert "    1     diverged" in text
    assert "normalised score" in text
    assert "nan" not in text
    from experiments.report import report

    assert "1 of 3 diverged" in report([folder], tmp_path / "report").text


def test_all_runs_diverged_stops_with_that_status(tmp_path, monkeypatch):
    from offline_rl import BC

    monkeypatch.setattr(BC, "finite", lambda self: np.zeros(self.runs, bool))
    (folder,) = train(options(tmp_path, algos=("bc",)))
    config = json.loads((folder / "config.json").read_text())
    assert config["status"] == "diverged"
    assert results.read_table(folder / "metrics.parquet")["step"].max() == 10


@pytest.mark.parametrize("status", ["diverged", "running"])
def test_resume_of_diverged_runs_goes_no_further(tmp_path, monkeypatch, status):
    """Also where it was killed after the last checkpoint, before the configuration said "diverged"."""
    from offline_rl import BC

    monkeypatch.setattr(BC, "finite", lambda self: np.zeros(self.runs, bool))
    (folder,) = train(options(tmp_path, algos=("bc",)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "status": status}))
    train(options(tmp_path, algos=("bc",), resume=True))
    assert results.read_table(folder / "metrics.parquet")["step"].max() == 10
    assert json.loads((folder / "config.json").read_text())["status"] == "diverged"


def test_resume_keeps_what_it_went_on_from(tmp_path, capsys):
    """The earlier session's command and versions stay; leftovers of a kill go; other kernels are said."""
    (folder,) = train(options(tmp_path, algos=("bc",), steps=30))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "git_commit": "an earlier one", "matmul": "bf16"}))
    for name in (".checkpoint.safetensors.ab12.safetensors", ".metrics.parquet.ab12.tmp"):
        (folder / name).write_bytes(b"half")
    train(options(tmp_path, algos=("bc",), resume=True, matmul="float32"))
    resumed = json.loads((folder / "config.json").read_text())
    assert [session["git_commit"] for session in resumed["earlier"]] == ["an earlier one"]
    assert resumed["earlier"][0]["steps"] == 30
    assert resumed["matmul"] == "float32"
    assert "matmul is float32 from here on" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.parquet",
    ]


def test_checkpoint_without_its_configuration_is_not_overwritten(tmp_path):
    (folder,) = train(options(tmp_path, algos=("bc",)))
    (folder / "config.json").unlink()
    for resume, message in ((False, "a folder without this run"), (True, "config.json beside the checkpoint")):
        with pytest.raises(ValueError, match=message):
            train(options(tmp_path, algos=("bc",), resume=resume))


def test_file_that_names_another_environment_is_one_error_before_training(tmp_path):
    import shutil

    import h5py

    from envs.datasets import load

    path = tmp_path / "odd name [1].hdf5"
    shutil.copy(load(DATASET).path, path)
    with h5py.File(path, "r+") as file:
        file.attrs["env_id"] = "MountainCarContinuous-v0"
    with pytest.raises(ValueError, match="observations are 3 real numbers"):
        train(options(tmp_path / "out", dataset=str(path)))
    assert not (tmp_path / "out").exists()
    with h5py.File(path, "r+") as file:
        file.attrs["env_id"] = "Pendulum-v1"
    (folder,) = train(options(tmp_path / "out", algos=("bc",), dataset=str(path)))
    assert folder == tmp_path / "out" / "odd name [1]" / "bc"
    assert json.loads((folder / "config.json").read_text())["dataset"] == str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps: expected at least 1, got 0"),
        ({"runs": 0}, "--runs: expected at least 1"),
        ({"dataset": "local/pendulum-medium-repaly-v0"}, "pendulum-medium-replay-v0"),
        ({"algos": ("prcd",)}, "did you mean 'prdc'"),
        ({"algos": ("bc", "bc")}, "each once"),
        ({"set": ("td3bc.alhpa=1",)}, "did you mean 'alpha'"),
        ({"set": ("td3bc.alpha=-1",)}, "td3bc.alpha: expected"),
        ({"set": ("td3bc.batch_size=2.5",)}, "td3bc.batch_size: expected an integer"),
        ({"set": ("bc.hidden=3,3",)}, "name one that is trained"),
        ({"set": ("alpha=1",)}, "ALGO.FIELD=VALUE"),
        ({"device": "gpu"}, "device: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"eval_episodes": 0}, "--eval-episodes"),
    ],
)
def test_bad_options_are_one_clear_error_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        train(options(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_folder_in_use_needs_resume_and_resume_needs_the_same_settings(tmp_path):
    first = options(tmp_path)
    train(first)
    with pytest.raises(ValueError, match="go on with --resume"):
        train(first)
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        train(dataclasses.replace(first, resume=True, seed=1))
    with pytest.raises(ValueError, match="experiment: train there, other here"):
        train(dataclasses.replace(first, resume=True, experiment="other"))
    with pytest.raises(ValueError, match=r"got hyperparameters\.discount: 0\.99 there, 0\.5 here\. Fix"):
        train(dataclasses.replace(first, resume=True, set=(*first.set, "td3bc.discount=0.5")))
    with pytest.raises(ValueError, match="at least 60"):
        train(dataclasses.replace(first, resume=True, steps=20))


def test_hyperparameter_younger_than_the_folder_counts_as_its_default_there(tmp_path):
    (folder,) = train(options(tmp_path))
    config = results.read_config(folder)
    del config["hyperparameters"]["critic"], config["hyperparameters"]["beer"]
    (folder / "config.json").write_text(json.dumps(config))
    train(options(tmp_path, resume=True, steps=90))
    assert results.read_config(folder)["hyperparameters"]["critic"] == "twin"
    del config["hyperparameters"]["batch_size"]  # was 32 there, its default is 256
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"hyperparameters.batch_size: 256 there, 32 here"):
        train(options(tmp_path, resume=True, steps=90))


def test_overrides_are_literals_or_words():
    assert overrides(["prdc.beta=7.5", "prdc.penalty=joint_norm", "bc.hidden=8,8"], ["prdc", "bc"]) == {
        "prdc": {"beta": 7.5, "penalty": "joint_norm"},
        "bc": {"hidden": (8, 8)},
    }


def test_tensorboard_files_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    (folder,) = train(options(tmp_path, algos=("bc",), tensorboard=True))
    assert list((folder / "tensorboard" / "run1").glob("events.*"))
