"""Evaluations that are still being played: what table, checkpoint and resume make of them."""

import json
import shutil

import numpy as np
import pytest

from experiments import evaluations, results
from experiments.eval_workers import policy_of
from experiments.evaluate import Evaluator, play
from experiments.session import Point
from experiments.train import train
from offline_rl import TD3BC
from orbs import load_tensors
from tests.experiments import interacting, training
from tests.experiments.training import assert_same, options


class Last:
    """Stands in for worker processes that are never done before they are waited for."""

    closed = False

    def __init__(self, setup, count):
        self.evaluator = Evaluator(setup.env_id, setup.runs, setup.episodes, setup.seed)

    def begin(self, task):
        self.task = task

    def ready(self):
        return False

    def collect(self):
        task = self.task
        return play(self.evaluator, policy_of(task.copy), task.step, task.skip, task.valued)

    def close(self):
        self.evaluator.close()
        type(self).closed = True


@pytest.fixture
def last(monkeypatch):
    monkeypatch.setattr(evaluations, "Workers", Last)


def stopped_with_a_pending_evaluation(out, monkeypatch, make=options, at=45, **changes):
    """A training that ends at step `at`, where the evaluation of step 30 is not there yet; returns its folder."""

    def interrupted(self, stop, bar):
        if stop > at:
            raise KeyboardInterrupt
        advance(self, stop, bar)

    from experiments.train import _OfflineSession
    from experiments.train_online import _AgentSession

    kind = _OfflineSession if make is options else _AgentSession
    advance, Last.closed = kind.advance, False
    with monkeypatch.context() as patch:
        patch.setattr(kind, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(make(out, eval_workers=1, **changes))
    assert Last.closed
    (folder,) = {path.parent for path in out.rglob("config.json")}
    return folder


@pytest.mark.parametrize("make", [options, interacting.options], ids=["dataset", "environment"])
def test_resume_plays_the_evaluation_that_was_pending(tmp_path, make, last, monkeypatch):
    """From the policy of its step; the table is the straight training's, and so are its rows' places."""
    (expected,) = train(make(tmp_path / "a", eval_episodes=2, eval_workers=0))
    folder = stopped_with_a_pending_evaluation(tmp_path / "b", monkeypatch, make, eval_episodes=2)
    header = load_tensors(folder / "checkpoint.safetensors")[1]
    assert header.get("interactions", header["steps"]) == 30
    assert header["pending"]["rows"]
    assert results.read_table(folder / "metrics.parquet")["step"].max() == 20
    copied = tmp_path / "c" / folder.relative_to(tmp_path / "b")
    shutil.copytree(folder, copied)
    train(make(tmp_path / "b", eval_episodes=2, eval_workers=0, resume=True))
    assert_same(expected, folder)
    train(make(tmp_path / "c", eval_episodes=2, eval_workers=1, resume=True))
    assert_same(expected, copied)
    assert results.read_config(copied)["earlier"][0]["evaluation_seconds"] >= 0


def test_resume_to_the_step_of_the_pending_evaluation_plays_it(tmp_path, last, monkeypatch):
    (expected,) = train(options(tmp_path / "a", steps=30, eval_workers=0))
    folder = stopped_with_a_pending_evaluation(tmp_path / "b", monkeypatch)
    train(options(tmp_path / "b", steps=30, eval_workers=0, resume=True))
    assert_same(expected, folder)


def test_rows_of_the_table_beyond_the_pending_evaluation_are_not_doubled(tmp_path, last, monkeypatch):
    """The table may be written, with the evaluation in it, after the checkpoint that lacks it."""
    (expected,) = train(options(tmp_path / "a", eval_workers=0))
    folder = stopped_with_a_pending_evaluation(tmp_path / "b", monkeypatch)
    later = results.drop_after(results.read_table(expected / "metrics.parquet"), 40)
    results.write_table(later, folder / "metrics.parquet")
    train(options(tmp_path / "b", eval_workers=0, resume=True))
    assert_same(expected, folder)


def test_checkpoint_later_than_the_evaluation_waits_for_it(tmp_path, last, monkeypatch):
    """One at every log point: each has every evaluation before it."""
    from experiments.session import Session

    seen, save = [], Session._save

    def noted(self):
        save(self)
        table = results.read_table(self.unit.folder / "metrics.parquet")
        header = load_tensors(self.unit.folder / "checkpoint.safetensors")[1]
        evaluated = table.loc[table["metric"] == "eval/return", "step"].max()
        seen.append((header["steps"], "pending" in header, None if np.isnan(evaluated) else int(evaluated)))

    monkeypatch.setattr(Session, "_save", noted)
    train(options(tmp_path, steps=50, eval_workers=1, checkpoint_seconds=0.0))
    assert seen == [
        (10, False, None), (20, False, None), (30, True, None), (40, False, 30), (50, False, 50),
    ]  # fmt: skip


def test_header_keeps_every_bit_of_the_rows():
    rows = [({"train/a": np.array([0.1 + 0.2, np.nan]), "time/b": np.array([1e-310, np.inf])}, [3, 4])]
    point = Point(30, rows, {"eval/c": np.array([1 / 3, 2.0])}, [4])
    again = Point.of_header(30, json.loads(json.dumps(point.header())), [4])
    assert again.rows[0][1] == [3, 4]
    for one, other in ((rows[0][0], again.rows[0][0]), (point.measured, again.measured)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_diverged_runs_are_not_played_by_workers_either(tmp_path, last, monkeypatch):
    training.poison(monkeypatch, TD3BC, 25)
    folders = [train(options(tmp_path / str(count), eval_workers=count))[0] for count in (0, 1)]
    frames = [training.comparable(folder)[0] for folder in folders]
    assert frames[0].equals(frames[1])
    lengths = interacting.values(folders[1], "eval/length")
    assert np.isnan([lengths[1, 30], lengths[1, 60]]).all()
