"""A training that ended off its grid and goes on: the table is that of the straight training, as far as it can be."""

import pandas as pd
import pytest

from experiments import results
from experiments.train import train
from orbs import load_tensors
from tests.experiments import interacting, training
from tests.experiments.training import assert_same


def metrics(folder):
    frame = results.read_table(folder / "metrics.parquet")
    return frame[~frame["metric"].str.startswith("time/")].reset_index(drop=True)


@pytest.mark.parametrize("options", [training.options, interacting.options], ids=["dataset", "environment"])
@pytest.mark.parametrize("end", [45, 50])
def test_resume_after_an_end_off_the_grid_has_the_straight_trainings_table(tmp_path, options, end):
    """Evaluations every 30 and training metrics every 10: 50 is off the first grid, 45 off both."""
    (straight,) = train(options(tmp_path / "a", steps=90))
    (folder,) = train(options(tmp_path / "b", steps=end))
    frame = results.read_table(folder / "metrics.parquet")
    assert sorted(set(frame.loc[frame["metric"] == "eval/return", "step"])) == [30, end]
    train(options(tmp_path / "b", steps=90, resume=True))
    if end == 50:
        assert_same(straight, folder)
        return
    one, other = metrics(straight), metrics(folder)
    key = [*results.IDENTITY, "step", "metric"]
    # An episode of the environment that ended between 40 and 45 would be missing at 50; none does.
    assert one[key].equals(other[key])
    evaluated = one["metric"].str.startswith("eval/")
    pd.testing.assert_frame_equal(one[evaluated], other[evaluated])
    assert set(one.loc[one["value"] != other["value"], "step"]) <= {50}  # means since 45, not since 40
    (tensors, meta), (tensors2, meta2) = (load_tensors(at / "checkpoint.safetensors") for at in (straight, folder))
    assert meta == meta2
    assert all(tensors[name].equal(tensors2[name]) for name in tensors)


@pytest.mark.parametrize("options", [training.options, interacting.options], ids=["dataset", "environment"])
def test_the_last_evaluation_is_kept_where_nothing_is_added(tmp_path, options):
    """Killed after the last checkpoint, before the configuration said that it is complete."""
    import json

    (folder,) = train(options(tmp_path, steps=45))
    before = results.read_table(folder / "metrics.parquet")
    config = results.read_config(folder)
    (folder / "config.json").write_text(json.dumps({**config, "status": "running"}))
    train(options(tmp_path, steps=45, resume=True))
    pd.testing.assert_frame_equal(results.read_table(folder / "metrics.parquet"), before)
    assert results.read_config(folder)["status"] == "complete"
