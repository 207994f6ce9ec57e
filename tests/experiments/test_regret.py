"""Playing for regret: hand-computed numbers, paired noise, resume to the same bits, divergence, mistakes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bandits.online_learning.learner import OMD
from experiments import regret_player, results
from experiments.problems import PROBLEMS, settings
from experiments.regret import regret
from experiments.regret_options import Regret
from experiments.regret_session import record_rounds
from orbs import load_tensors

ROOT = Path(__file__).parents[2]


def options(out, **changes):
    fields = dict(out=out, problem="sea-iid", learners=("optimistic-omd", "ogd"), runs=3, horizon=200)
    return Regret(**{**fields, **changes})


def rows(folder):
    """The table but for clocks: {(metric, run): {round: value}} as a frame."""
    frame = results.read_table(folder / "metrics.parquet")
    return frame[~frame["metric"].str.startswith("time/")].reset_index(drop=True)


def values(folder, metric):
    """Rounds x runs."""
    frame = rows(folder)
    return frame[frame["metric"] == metric].pivot(index="step", columns="run", values="value")


def assert_same(one, other):
    pd.testing.assert_frame_equal(rows(one), rows(other), check_exact=True)
    (tensors, meta), (tensors2, meta2) = (load_tensors(f / "checkpoint.safetensors") for f in (one, other))
    assert meta == meta2
    assert tensors.keys() == tensors2.keys()
    assert all(torch.equal(tensors[name], tensors2[name]) for name in tensors)


def stop_at(monkeypatch, round_, error=KeyboardInterrupt, name="ogd"):
    """Stop in the middle of a learner's way to a round."""
    advance = regret_player.Player.advance

    def stopping(self, stop):
        if self.name == name and stop >= round_:
            advance(self, min(stop, max(round_, self.world.round)))
            raise error
        advance(self, stop)

    monkeypatch.setattr(regret_player.Player, "advance", stopping)


@pytest.mark.parametrize(("horizon", "points"), [(1, [1]), (10, [1, 2, 3, 5, 10]), (12, [1, 2, 3, 5, 10, 12])])
def test_record_points(horizon, points):
    # 10^(i/4) = 1, 1.78, 3.16, 5.62 (6), 10
    assert record_rounds(horizon, 4) == [6 if p == 5 else p for p in points]


def test_regret_by_hand(tmp_path):
    """One coordinate, losses 0.5, -1, +1, -1: projected gradient descent with eta = 2 / sqrt(t) on [-1, 1]."""
    (folder,) = regret(options(tmp_path, problem="linear-ftl-killer", learners=("ogd",), horizon=4, runs=2))
    x, loss, total, least = 0.0, 0.0, 0.0, {}
    for t, g in enumerate((0.5, -1.0, 1.0, -1.0), start=1):
        loss += g * x
        total += g
        least[t] = loss + abs(total)
        x = min(1.0, max(-1.0, x - 2.0 / np.sqrt(t) * g))
    found = values(folder, "regret/static")
    assert list(found.index) == [1, 2, 3, 4]
    np.testing.assert_allclose(found.to_numpy(), np.c_[list(least.values()), list(least.values())], atol=1e-15)
    bound = values(folder, "bound/path").to_numpy()[:, 0]
    np.testing.assert_allclose(bound, 1.5 * 2 * np.sqrt([1, 2, 3, 4]))


def test_folder_says_what_made_the_numbers(tmp_path):
    folders = regret(options(tmp_path, problem_set=("dimension=2",), set=("optimistic-omd.delta=0",)))
    assert [folder.relative_to(tmp_path) for folder in folders] == [
        Path("sea-iid,dimension=2/optimistic-omd"), Path("sea-iid,dimension=2/ogd")]  # fmt: skip
    config = results.read_config(folders[0])
    assert config["status"] == "complete"
    assert config["hyperparameters"] == {"diameter": None, "bound": None, "delta": 0}
    assert config["facts"]["domain"] == ["ball", {"dimension": 2, "radius": 1.0}]
    assert (config["steps"], config["runs"], config["horizon_matters"]) == (200, [0, 1, 2], "")
    metrics = set(rows(folders[0])["metric"])
    assert metrics == {"regret/static", "regret/sampled", "regret/dynamic", "bound/path"}, "no theorem with delta=0"
    # E ||x_1 - mu||^2 / 2 = 1/8 in round 1, whatever the noise.
    assert values(folders[0], "regret/static").loc[1].to_numpy() == pytest.approx(0.125)
    assert (values(folders[0], "regret/sampled") <= values(folders[0], "bound/path")).all(axis=None)


def test_bound_of_the_theorem(tmp_path):
    folder, _ = regret(options(tmp_path, horizon=100))
    expected = 5 * 10**0.5 * 4 + 2.5 * 5**0.5 * 2 * 2 + 5 * 2**0.5 * 2 * (100 * 0.25) ** 0.5
    assert values(folder, "bound/expected").loc[100].to_numpy() == pytest.approx(expected)


def test_learners_and_runs_are_independent(tmp_path):
    """Alone or beside others, a learner has the same numbers; so has a run."""
    together = regret(options(tmp_path / "a"))
    (alone,) = regret(options(tmp_path / "b", learners=("ogd",)))
    assert_same(together[1], alone)
    (one,) = regret(options(tmp_path / "c", learners=("ogd",), runs=1, first_run=2))
    assert one.name == "ogd-from-run-2"
    np.testing.assert_allclose(
        values(one, "regret/static")[2], values(alone, "regret/static")[2], rtol=1e-12, atol=1e-14
    )
    first = values(together[0], "regret/sampled").loc[1]
    assert first.nunique() == 3
    # Both play 0 first: on the same losses they have the same regret.
    np.testing.assert_array_equal(first, values(together[1], "regret/sampled").loc[1])


@pytest.mark.parametrize("problem", ["sea-iid", "portfolio"])
def test_resume_gives_the_bits_of_a_straight_run(tmp_path, monkeypatch, problem, capsys):
    learners = ("optimistic-omd", "ogd") if problem == "sea-iid" else ("ogd", "ons")
    given = dict(problem=problem, learners=learners, checkpoint_seconds=0.0, points_per_decade=4)
    straight = regret(options(tmp_path / "a", **given))
    with monkeypatch.context() as patch:
        stop_at(patch, 100)
        with pytest.raises(KeyboardInterrupt):
            regret(options(tmp_path / "b", **given))
    stopped = [tmp_path / "b" / problem / name for name in learners]
    assert {results.read_config(folder)["status"] for folder in stopped} == {"stopped"}
    assert "--resume" in capsys.readouterr().err
    resumed = regret(options(tmp_path / "b", resume=True, **given))
    assert resumed == stopped
    for one, other in zip(straight, resumed, strict=True):
        assert_same(one, other)
        assert len(results.read_config(other)["earlier"]) == 1
    before = (resumed[0] / "metrics.parquet").read_bytes()
    regret(options(tmp_path / "b", resume=True, **given))
    assert "nothing to do" in capsys.readouterr().out
    assert (resumed[0] / "metrics.parquet").read_bytes() == before


@pytest.mark.parametrize("problem", ["sea-iid", "portfolio"])
def test_a_larger_horizon_goes_on(tmp_path, problem):
    given = dict(problem=problem, learners=("ogd",))
    (straight,) = regret(options(tmp_path / "a", **given))
    regret(options(tmp_path / "b", horizon=90, **given))
    (longer,) = regret(options(tmp_path / "b", resume=True, **given))
    assert 90 not in values(longer, "regret/sampled").index, "no record point of the longer one"
    assert_same(straight, longer)
    with pytest.raises(ValueError, match="--horizon: expected at least 200"):
        regret(options(tmp_path / "b", resume=True, horizon=100, **given))


def test_a_learner_joins_later(tmp_path):
    first, second = regret(options(tmp_path / "a"))
    regret(options(tmp_path / "b", learners=("ogd",)))
    assert_same(first, regret(options(tmp_path / "b", resume=True))[0])
    assert_same(second, tmp_path / "b" / "sea-iid" / "ogd")


def test_a_horizon_that_matters_is_refused(tmp_path):
    given = dict(problem="experts-bernoulli", learners=("hedge",), set=("hedge.tuning=horizon",))
    regret(options(tmp_path, **given))
    with pytest.raises(ValueError, match=r"--horizon: expected 200, .* \(hedge is tuned to it\)"):
        regret(options(tmp_path, horizon=400, resume=True, **given))
    regret(options(tmp_path, problem="sea-drift", learners=("ogd",)))
    with pytest.raises(ValueError, match=r"another problem \(the circle takes all rounds\)"):
        regret(options(tmp_path, problem="sea-drift", learners=("ogd",), horizon=400, resume=True))


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_know_whether_the_horizon_matters(name):
    """Where it does not, the first rounds of a longer world are the same."""
    problem = PROBLEMS[name]
    losses = []
    for horizon in (64, 640):
        world = problem.make({}, horizon, 2, 3)
        d = world.region.dimension
        if world.region.dtype == torch.int64:
            actions = [torch.full((2,), t % d) for t in range(60)]
        elif world.region.name == "policies":
            actions = [torch.full((2, *world.region.shape), 1.0 / world.actions, dtype=torch.float64)] * 60
        else:
            actions = [torch.full((2, d), 1.0 / d, dtype=torch.float64)] * 60
        seen = torch.stack([world.step(x)[0].clone() for x in actions]).flatten()
        losses.append(torch.cat([seen, *world.regret().values()]))
    assert torch.equal(*losses) == (problem.horizon == "")
    assert problem.about
    for setting in problem.known:
        assert setting in type(world).__init__.__annotations__


def test_a_killed_process_goes_on(tmp_path):
    given = dict(learners=("ogd",), horizon=1500, checkpoint_seconds=0.0, points_per_decade=5)
    code = (
        "from pathlib import Path; from experiments.regret import regret; from experiments.regret_options import "
        f"Regret; regret(Regret(out=Path({str(tmp_path / 'b')!r}), runs=3, **{given!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    folder = tmp_path / "b" / "sea-iid" / "ogd"
    for _ in range(600):
        if (folder / "checkpoint.safetensors").exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert results.read_config(folder)["status"] == "running"
    regret(options(tmp_path / "b", resume=True, **given))
    (straight,) = regret(options(tmp_path / "a", **given))
    assert_same(straight, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.parquet",
    ]


def test_a_run_that_diverges_is_said_once_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    (fine,) = regret(options(tmp_path / "a", learners=("ogd",)))
    take = OMD._take

    def breaking(self, gradient, feedback):
        take(self, gradient, feedback)
        if self.rounds == 49:
            self._point[1] = np.nan
            self.secondary[1] = np.nan

    monkeypatch.setattr(OMD, "_take", breaking)
    folders = regret(options(tmp_path / "b"))
    assert results.read_config(folders[1])["diverged"] == {"1": 50}
    assert results.read_config(folders[0])["diverged"] == {}
    assert capsys.readouterr().err.count("run 1 diverged") == 1
    found, straight = values(folders[1], "regret/static"), values(fine, "regret/static")
    assert found[1].isna().to_numpy().tolist() == (found.index >= 50).tolist()
    np.testing.assert_array_equal(found[[0, 2]], straight[[0, 2]])


def test_a_learner_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    stop_at(monkeypatch, 50, RuntimeError("a broken learner"))
    with pytest.raises(ValueError, match=r"1 of 2 failed \(the others are complete\). ogd: a broken learner"):
        regret(options(tmp_path))
    status = {name: results.read_config(tmp_path / "sea-iid" / name)["status"] for name in ("optimistic-omd", "ogd")}
    assert status == {"optimistic-omd": "complete", "ogd": "failed"}
    assert "ogd: failed at round 51" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "--horizon: expected at least 1, got 0"),
        ({"runs": 0}, "--runs: expected at least 1, got 0"),
        ({"learners": ("ogd", "ogd")}, "--learners: expected one or more different learners"),
        ({"learners": ()}, "got none"),
        ({"learners": ("ogdd",)}, "did you mean 'ogd'"),
        ({"problem": "sea-idd"}, "did you mean 'sea-iid'"),
        ({"problem_set": ("dimensoin=3",)}, "did you mean 'dimension'"),
        ({"problem_set": ("dimension",)}, "expected NAME=VALUE"),
        ({"problem_set": ("dimension=0",)}, "expected an integer of at least 1"),
        ({"set": ("ogd.scael=1",)}, "did you mean 'scale'"),
        ({"set": ("hedge.rate=1",)}, "expected one of the algorithms"),
        ({"learners": ("hedge",)}, "hedge on sea-iid|hedge: expected a problem with a loss_high"),
        ({"learners": ("optimistic-omd-implicit",)}, "absolute or hinge losses"),
        ({"device": "cuda:99"} if not torch.cuda.is_available() else {"device": "nonsense"}, "--device"),
        ({"seed": -1}, "seed: expected"),
        ({"wandb": "project"}, "--wandb: expected one learner"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        regret(options(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_folders_in_use_and_other_settings(tmp_path):
    (folder,) = regret(options(tmp_path, learners=("ogd",)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="--out: expected a folder without this run"):
        regret(options(tmp_path))
    for changes, text in (({"seed": 1}, "seed: 0 there, 1 here"), ({"set": ("ogd.scale=2",)}, "hyperparameters.scale")):
        with pytest.raises(ValueError, match=f"--resume: expected the settings .*{text}"):
            regret(options(tmp_path, learners=("ogd",), resume=True, **changes))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "sea-iid" / "optimistic-omd").exists()
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json beside the checkpoint"):
        regret(options(tmp_path, learners=("ogd",), resume=True))


def test_settings_are_literals_or_words():
    assert settings(["dial=0.5", "domain=box", "noise=none"]) == {"dial": 0.5, "domain": "box", "noise": None}
    with pytest.raises(ValueError, match="dial twice"):
        settings(["dial=0", "dial=1"])


def test_options_have_texts():
    source = Path(sys.modules[Regret.__module__].__file__ or "").read_text()
    assert source.split("class Regret:")[1].count('"""') == 2 * (1 + len(dataclasses.fields(Regret)))
