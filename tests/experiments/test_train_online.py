"""Training in environments: true successors, starts, resume to the same bits, value errors, one error a mistake."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from envs.make import env_facts, make_env
from experiments import pool, results
from experiments.cli import main
from experiments.evaluate import Evaluator
from experiments.train import train
from experiments.training_envs import TrainingEnvs, start_seed
from offline_rl import algorithm
from offline_rl.online.config import ONLINE_CONFIGS
from orbs import load_tensors
from tests.experiments.interacting import Differing, options, register, small, values
from tests.experiments.training import DATASET, ROOT, assert_same, poison


@pytest.fixture(autouse=True)
def _environments():
    register()


def replay(folder):
    """The checkpoint's transitions of each run: obs (R, n, 2), next_obs, terminal of the environment `Far`."""
    rows = load_tensors(folder / "checkpoint.safetensors")[0]["replay"]
    return rows[..., :2].numpy(), rows[..., 5:].numpy(), rows[..., 4].numpy()


@pytest.mark.parametrize("env", ["orbs-test/Far-v0", "orbs-test/FarLimit-v0"])
def test_successor_is_the_last_observation_not_the_next_start(tmp_path, env):
    """Of every transition; and only the environment's own end is a terminal."""
    (folder,) = train(options(tmp_path, env=env))
    obs, successor, terminal = replay(folder)
    length = 3 if env == "orbs-test/Far-v0" else 5
    step = np.arange(60) % length + 1
    np.testing.assert_array_equal(successor[..., 1], np.broadcast_to(100.0 + step, (2, 60)))
    np.testing.assert_array_equal(successor[..., 0], obs[..., 0])  # of the same episode
    np.testing.assert_array_equal(terminal, np.broadcast_to((length == 3) & (step == 3), (2, 60)))


def test_starts_are_functions_of_seed_run_and_episode(tmp_path):
    (three,) = train(options(tmp_path / "a", env="orbs-test/Far-v0", runs=3))
    (one,) = train(options(tmp_path / "b", env="orbs-test/Far-v0", runs=1, first_run=2))
    starts = replay(three)[0][:, ::3, 0]
    np.testing.assert_array_equal(replay(one)[0][0, ::3, 0], starts[2])
    assert len(np.unique(starts)) == starts.size
    for episode in (0, 4):
        start, _ = make_env("orbs-test/Far-v0").reset(seed=start_seed(0, 2, episode))
        assert start[0] == starts[2, episode]


def test_episodes_are_logged_where_some_ended(tmp_path):
    (folder,) = train(options(tmp_path, env="orbs-test/FarLimit-v0", log_every=4, steps=12, eval_every=12))
    assert values(folder, "train/episode_return") == {(run, step): 5.0 for run in (0, 1) for step in (8, 12)}
    assert values(folder, "train/episode_length") == {(run, step): 5.0 for run in (0, 1) for step in (8, 12)}


def test_run_folder_is_that_of_training_on_a_dataset(tmp_path):
    (folder,) = train(options(tmp_path, algos=("sac",)))
    assert folder == tmp_path / "Pendulum-v1" / "sac"
    config = json.loads((folder / "config.json").read_text())
    assert (config["status"], config["problem"], config["env"]) == ("complete", "Pendulum-v1", "Pendulum-v1")
    assert config["hyperparameters"]["hidden"] == [8, 8]
    frame = results.read_table(folder / "metrics.parquet")
    assert set(frame["env"]) == {"Pendulum-v1"}
    for metric in ("eval/return", "eval/length", "eval/score", "eval/value_error", "eval/representation_rank"):
        assert sorted(values(folder, metric)) == [(0, 30), (0, 60), (1, 30), (1, 60)]
    assert all(1 <= rank <= 8 for rank in values(folder, "eval/representation_rank").values())  # of 8 features
    assert sorted({step for _, step in values(folder, "train/critic_loss")}) == [10, 20, 30, 40, 50, 60]
    assert all(rate > 0 for rate in values(folder, "time/steps_per_second").values())
    assert np.isfinite(frame["value"]).all()


def test_evaluation_starts_are_those_of_every_algorithm(tmp_path):
    """What is recorded is what the evaluator plays with the agent of the checkpoint."""
    (folder,) = train(options(tmp_path))
    agent = algorithm("td3").load(folder / "checkpoint.safetensors")
    evaluator = Evaluator("Pendulum-v1", [0, 1], 1, 0)
    played = evaluator.evaluate(agent, 60)
    evaluator.close()
    found = values(folder, "eval/return")
    np.testing.assert_array_equal([found[run, 60] for run in (0, 1)], played.returns[:, 0])


@pytest.mark.parametrize("env", ["Pendulum-v1", "Hopper-v4"])
@pytest.mark.parametrize("name", ONLINE_CONFIGS)
def test_resume_equals_the_straight_run(tmp_path, env, name):
    """Stopped within an episode: its actions are played again."""
    given = dict(env=env, algos=(name,), steps=80, eval_every=40, log_every=20)
    (straight,) = train(options(tmp_path / "a", **given))
    (folder,) = train(options(tmp_path / "b", **{**given, "steps": 40}))
    episodes = load_tensors(folder / "checkpoint.safetensors")[1]["episodes"]
    assert all(len(episode["actions"]["bits"]) > 0 for episode in episodes)
    if env == "Hopper-v4":
        assert max(episode["episode"] for episode in episodes) > 0
    train(options(tmp_path / "b", **given, resume=True))
    assert_same(straight, folder)


def test_kill_and_resume_gives_the_same_bits(tmp_path):
    given = dict(env="Hopper-v4", steps=300, eval_every=150, checkpoint_seconds=0.0)
    (straight,) = train(options(tmp_path / "a", **given))
    words = [sys.executable, "-m", "experiments.cli", "train", "--algos", "td3", "--env", "Hopper-v4", "--runs", "2",
             "--steps", "300", "--eval-every", "150", "--eval-episodes", "1", "--log-every", "10", "--out",
             str(tmp_path / "b"), "--checkpoint-seconds", "0", "--set", *small("td3")]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=nowhere, stderr=nowhere)
    checkpoint = tmp_path / "b" / "Hopper-v4" / "td3" / "checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.002)
    time.sleep(0.05)
    process.kill()
    process.wait()
    assert load_tensors(checkpoint)[1]["interactions"] < 300, "the process was done before it was killed"
    (resumed,) = train(options(tmp_path / "b", **given, resume=True))
    assert_same(straight, resumed)


def test_resume_in_another_simulator_warns_and_goes_on(tmp_path, monkeypatch):
    from gymnasium.envs.classic_control import PendulumEnv

    given = options(tmp_path, steps=30)
    train(given)
    step = PendulumEnv.step

    def other(self, action):
        self.m = 1.1
        return step(self, action)

    monkeypatch.setattr(PendulumEnv, "step", other)
    with pytest.warns(UserWarning, match="simulator differs .* in run 0, 1"):
        train(dataclasses.replace(given, steps=60, resume=True))
    assert json.loads((tmp_path / "Pendulum-v1" / "td3" / "config.json").read_text())["status"] == "complete"


def test_replay_that_ends_early_starts_the_next_episode():
    envs = TrainingEnvs("orbs-test/Far-v0", [0], 0)
    envs.step(np.zeros((1, 1)))
    state = envs.state()
    state[0]["actions"]["shape"], state[0]["actions"]["bits"] = [4, 1], "AAAA" * 5 + "AA=="
    assert envs.restore(state) == [0]
    assert (envs.copies[0].episode, envs.obs[0, 1]) == (1, 0.0)
    assert envs.ended() == [None]
    envs.close()


def test_resume_of_a_complete_run_does_nothing_and_other_settings_are_refused(tmp_path, capsys):
    (folder,) = train(options(tmp_path))
    before = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    train(options(tmp_path, resume=True))
    assert "is complete at 60 steps: nothing to do" in capsys.readouterr().out
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="go on with --resume"):
        train(options(tmp_path))
    with pytest.raises(ValueError, match=r"discount: 0\.99 there, 0\.5 here"):
        train(options(tmp_path, resume=True, set=(*small("td3"), "td3.discount=0.5")))
    with pytest.raises(ValueError, match="at least 60"):
        train(options(tmp_path, resume=True, steps=30))


def test_diverged_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    """Its actions are no numbers, which neither the environments nor the other runs may meet."""
    (straight,) = train(options(tmp_path / "a"))
    poison(monkeypatch, algorithm("td3"), 15)
    (folder,) = train(options(tmp_path / "b"))
    config = json.loads((folder / "config.json").read_text())
    assert config["diverged"] == {"1": 24}  # at the first action after the 15th update
    assert config["status"] == "complete"
    assert capsys.readouterr().err.count("run 1 diverged") == 1
    found, expected = values(folder, "eval/return"), values(straight, "eval/return")
    assert found[0, 60] == expected[0, 60]
    assert np.isnan(found[1, 60])
    assert np.isnan(values(folder, "eval/value_error")[1, 60])
    assert main(["evaluate", str(folder), "--episodes", "1"]) == 0
    assert "    1     diverged" in capsys.readouterr().out


def test_diverged_run_stays_diverged_at_a_resume_and_is_not_played(tmp_path, monkeypatch, capsys):
    """Even where its numbers are finite again, as they are here."""
    kind = algorithm("td3")
    finite = kind.finite

    monkeypatch.setattr(kind, "finite", lambda self: np.array([True, self.interactions < 20]))
    (folder,) = train(options(tmp_path, steps=30))
    assert results.read_config(folder)["diverged"] == {"1": 20}
    monkeypatch.setattr(kind, "finite", finite)
    capsys.readouterr()
    skipped, evaluate = [], Evaluator.evaluate

    def recorded(self, learner, step, skip=(), keep_steps=False):
        skipped.append((step, list(skip)))
        return evaluate(self, learner, step, skip, keep_steps)

    monkeypatch.setattr(Evaluator, "evaluate", recorded)
    train(options(tmp_path, resume=True))
    assert skipped == [(60, [1])]
    config = results.read_config(folder)
    assert (config["diverged"], config["status"]) == ({"1": 20}, "complete")
    assert load_tensors(folder / "checkpoint.safetensors")[1]["diverged"] == {"1": 20}
    found = values(folder, "eval/return")
    assert np.isnan([found[1, 30], found[1, 60]]).all()
    assert np.isfinite([found[0, 30], found[0, 60]]).all()
    assert "diverged" not in capsys.readouterr().err  # said once, by the first session


def test_updates_come_in_blocks_on_their_grid(tmp_path, monkeypatch):
    """Every 5 steps of the environment, 2 for each of them, once the 10 random steps are over."""
    kind = algorithm("td3")
    calls, update = [], kind.update

    def recorded(self, n=1):
        calls.append((self.interactions, n))
        update(self, n)

    monkeypatch.setattr(kind, "update", recorded)
    settings = (*small("td3"), "td3.update_every=5", "td3.updates_per_step=2")
    (folder,) = train(options(tmp_path, steps=33, eval_every=11, log_every=11, set=settings))
    assert calls == [(step, 10) for step in (10, 15, 20, 25, 30)]
    meta = load_tensors(folder / "checkpoint.safetensors")[1]
    assert (meta["steps"], meta["interactions"]) == (50, 33)


def test_notes_name_the_algorithm_that_was_asked_for(tmp_path, capsys):
    """Stable-Baselines3's need one step more than ours, which have the same hyperparameters."""
    train(options(tmp_path, algos=("td3", "sb3-td3"), steps=10, eval_every=10))
    said = [line for line in capsys.readouterr().out.splitlines() if "nothing is learned" in line]
    assert [line.partition(":")[0] for line in said] == ["sb3-td3"]


def test_ctrl_c_keeps_the_last_checkpoint(tmp_path, monkeypatch, capsys):
    calls = iter([False] * 4)
    monkeypatch.setattr(pool, "stopped", lambda: next(calls, True))
    with pytest.raises(KeyboardInterrupt):
        train(options(tmp_path))
    folder = tmp_path / "Pendulum-v1" / "td3"
    assert results.read_config(folder)["status"] == "stopped"
    assert load_tensors(folder / "checkpoint.safetensors")[1]["interactions"] == 30
    assert "the last checkpoint is kept" in capsys.readouterr().err


def test_jobs_side_by_side_give_the_same_numbers(tmp_path):
    alone = train(options(tmp_path / "a", algos=("td3", "beer"), steps=30))
    together = train(options(tmp_path / "b", algos=("td3", "beer"), steps=30, jobs=2))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": None}, "--env: expected the environment that td3 interact with, got none"),
        ({"dataset": DATASET}, "--dataset: expected none, because td3 interact"),
        ({"algos": ("td3", "bc")}, "bc, which learn from a dataset, and td3, which interact"),
        ({"algos": ("bc",)}, "--dataset: expected the data that bc learn from, got none"),
        ({"algos": ("staac",)}, "did you mean 'stac'"),
        ({"env": "orbs-test/Discrete-v0"}, "continuous actions"),
        ({"env": "orbs-test/Unbounded-v0"}, "bounded actions"),
        ({"env": "orbs-test/Differing-v0"}, "env: expected the same spaces in every copy"),
        ({"env": "Hoper-v4"}, "did you mean 'Hopper-v4'"),
        ({"set": ("td3.bta=1",)}, "a field of TD3Config"),
        ({"set": ("td3.tau=2",)}, "td3.tau: expected"),
        ({"steps": 0}, "--steps: expected at least 1"),
        ({"critic": "stac"}, "--critic: expected algorithms that learn from a dataset, got it with td3"),
        ({"clip_actions": True}, "--clip-actions: expected algorithms that learn from a dataset"),
    ],
)
def test_bad_options_are_one_clear_error_and_nothing_is_written(tmp_path, changes, message):
    Differing.made = 0
    env_facts.cache_clear()
    with pytest.raises(ValueError, match=message):
        train(options(tmp_path / "out", **{"set": (), **changes}))
    assert not (tmp_path / "out").exists()


def test_observation_that_is_no_number_is_one_error(tmp_path):
    with pytest.raises(ValueError, match=r"td3.observe.next_obs: expected finite numbers, got a NaN"):
        train(options(tmp_path, env="orbs-test/FarNaN-v0"))
    assert results.read_config(tmp_path / "orbs-test-FarNaN-v0" / "td3")["status"] == "failed"


def test_train_report_evaluate_from_end_to_end(tmp_path, capsys):
    words = ["train", "--algos", "stac", "--env", "Pendulum-v1", "--runs", "2", "--steps", "30", "--eval-every", "15",
             "--eval-episodes", "1", "--out", str(tmp_path), "--set", *small("stac")]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "stac: preset '*'" in shown
    assert "Pendulum-v1 (steps: 30; Pendulum-v1, gymnasium " in shown
    assert main(["evaluate", str(tmp_path / "Pendulum-v1" / "stac"), "--episodes", "1"]) == 0
    assert "stac after 30 steps, 1 episodes in Pendulum-v1" in capsys.readouterr().out
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("  rebrac ") < shown.index("Agents that interact") < shown.index("  stac ")
    assert "  sb3-td3 " in shown


# stac.md, section 5: beta, p_pi, p_Q, target entropy.
STAC = {
    "Ant-v4": (0.25, 0.01, 0.01, -8), "BipedalWalker-v3": (0.375, 0, 0.01, -4),
    "BipedalWalkerHardcore-v3": (0.125, 0.01, 0, -4), "HalfCheetah-v4": (0.0, 0, 0, -6),
    "Hopper-v4": (0.5, 0.01, 0.01, -3), "Humanoid-v4": (0.25, 0.01, 0, -17),
    "LunarLanderContinuous-v3": (0.0, 0.01, 0.01, -2), "Swimmer-v4": (0.0, 0.01, 0, -1),
    "Walker2d-v4": (0.125, 0.01, 0, -6), "Pendulum-v1": (0.25, 0.01, 0.01, None),
}  # fmt: skip


def test_presets_by_environment():
    from experiments.presets import preset, rules

    for name, kind in ONLINE_CONFIGS.items():
        assert rules(name)[-1].pattern == "*"
        for rule in rules(name):
            kind(**rule.values)
            assert rule.source
    for env, row in STAC.items():
        config = ONLINE_CONFIGS["stac"](**preset("stac", env).values)
        assert (config.beta, config.actor_dropout, config.critic_dropout, config.target_entropy) == row
    assert len(rules("stac")) == len(STAC)
    assert [preset("beer", env).values["mask_terminal"] for env in ("dm_control/walker-run-v0", "Ant-v4")] == [
        False,
        True,
    ]


def test_missing_extra_of_the_control_suite_is_one_error(monkeypatch):
    from envs.make import missing_extra

    monkeypatch.setitem(sys.modules, "shimmy", None)
    with pytest.raises(ImportError, match=r"shimmy and dm-control, .*pip install \"orbs\[dm-control\]\""):
        make_env("dm_control/cheetah-run-v0")
    assert missing_extra("dm_control/cheetah-run-v0") == "dm-control"


@pytest.mark.extra
def test_control_suite_plays_an_episode(tmp_path):
    for package in ("dm_control", "shimmy"):
        pytest.importorskip(package, reason="the extra 'dm-control' is not installed")
    env = make_env("dm_control/humanoid-stand-v0")
    assert env.observation_space.shape == (67,)
    first, again = (env.reset(seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    env.close()
    given = dict(env="dm_control/cheetah-run-v0", runs=1, steps=1010, eval_every=1010, log_every=505)
    (straight,) = train(options(tmp_path / "a", **given, set=(*small("td3"), "td3.random_steps=990")))
    assert straight.parent.name == "dm_control-cheetah-run-v0"
    assert values(straight, "eval/length") == {(0, 1010): 1000.0}
    assert values(straight, "train/episode_length") == {(0, 1010): 1000.0}
    assert load_tensors(straight / "checkpoint.safetensors")[0]["replay"][..., 17 + 6 + 1].sum() == 0  # no terminal
    # The suite's random numbers are not Gymnasium's: a seed at each reset brings an episode back all the same.
    given |= dict(steps=40, eval_every=20, log_every=10)
    (straight,) = train(options(tmp_path / "b", **given))
    train(options(tmp_path / "c", **{**given, "steps": 20}))
    (resumed,) = train(options(tmp_path / "c", **given, resume=True))
    assert_same(straight, resumed)
