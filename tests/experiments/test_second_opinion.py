"""Stable-Baselines3 as an algorithm: our hyperparameters, our starts, our table; runs that do not touch each other."""

import json
import random

import numpy as np
import pytest
import torch

from experiments import results
from experiments.agents import SECOND_OPINIONS, config_of
from experiments.cli import main
from experiments.second_opinion import SecondOpinion, arguments
from experiments.train import train
from experiments.training_envs import TrainingEnvs
from tests.experiments.interacting import options, register, small, values


@pytest.fixture(autouse=True)
def _environments():
    register()


def learner(name, runs=(0, 1), env="Pendulum-v1", **changes):
    given = dict(hidden=(8, 9), batch_size=8, random_steps=10, capacity=500) | changes
    config = config_of(name)(**given)
    envs = TrainingEnvs(env, list(runs), 0)
    return SecondOpinion(name, envs, config, 0, "cpu"), envs


def test_td3_has_our_hyperparameters():
    changes = dict(learning_rate=2e-4, discount=0.9, tau=0.01, exploration_noise=0.3)
    opinion, _ = learner("sb3-td3", policy_noise=0.1, noise_clip=0.4, policy_period=3, **changes)
    for model in opinion.models:
        assert type(model).__name__ == "TD3"
        assert (model.batch_size, model.learning_starts, model.buffer_size, model.gamma, model.tau) == (
            8,
            10,
            500,
            0.9,
            0.01,
        )
        assert (model.target_policy_noise, model.target_noise_clip, model.policy_delay) == (0.1, 0.4, 3)
        assert (model.train_freq.frequency, model.gradient_steps) == (1, 1)
        np.testing.assert_array_equal(model.action_noise._sigma, [0.3])
        for network in (model.actor.mu, model.critic.qf0, model.critic.qf1):
            layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
            assert [layer.out_features for layer in layers] == [8, 9, 1]
            assert any(isinstance(layer, torch.nn.ReLU) for layer in network)
        for optimiser in (model.actor.optimizer, model.critic.optimizer):
            assert optimiser.param_groups[0]["lr"] == 2e-4


def test_sac_has_our_hyperparameters():
    opinion, _ = learner("sb3-sac", initial_alpha=0.5, target_entropy=-2.0)
    for model in opinion.models:
        assert type(model).__name__ == "SAC"
        assert float(model.log_ent_coef.detach().exp()) == pytest.approx(0.5)
        assert model.ent_coef_optimizer.param_groups[0]["lr"] == model.actor.optimizer.param_groups[0]["lr"] == 3e-4
        assert model.target_entropy == -2.0
        assert model.target_update_interval == 1
        assert model.action_noise is None
    assert learner("sb3-sac")[0].models[0].target_entropy == -1.0
    fixed = learner("sb3-sac", initial_alpha=0.3, alpha_learning_rate=0.0)[0].models[0]
    assert fixed.ent_coef_optimizer is None
    assert float(fixed.ent_coef_tensor) == pytest.approx(0.3)


@pytest.mark.parametrize("name", SECOND_OPINIONS)
def test_every_field_of_ours_is_set_or_refused(name):
    """A field that they do not have may only stay at its default."""
    import dataclasses

    config = config_of(name)()
    assert arguments(name, config, 1)["learning_starts"] == config.random_steps

    @dataclasses.dataclass(frozen=True)
    class More(config_of(name)):
        novelty: float = 0.0

    arguments(name, More(), 1)
    with pytest.raises(ValueError, match=rf"{name}.novelty: expected a field that Stable-Baselines3 has, got 1.0"):
        arguments(name, More(novelty=1.0), 1)


def test_runs_are_the_same_whichever_rides_along_and_the_process_streams_are_left_alone():
    both, _ = learner("sb3-sac")
    one, _ = learner("sb3-sac", runs=[1])
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    for opinion in (both, one):
        opinion.learn(15, lambda slot: None)
        opinion.learn(10, lambda slot: None)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    for ours, theirs in zip(both.models[1].policy.parameters(), one.models[0].policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(both.models[0].policy.parameters()), next(both.models[1].policy.parameters()))


def test_starts_are_ours_and_parts_make_a_whole():
    """One episode goes on from part to part; a time limit is no terminal."""
    opinion, envs = learner("sb3-td3", env="orbs-test/FarLimit-v0")
    for steps in (3, 4, 5):
        opinion.learn(steps, lambda slot: None)
    assert envs.ended() == [(5.0, 5.0)] * 2
    plain = TrainingEnvs("orbs-test/FarLimit-v0", [0, 1], 0)
    for slot, model in enumerate(opinion.models):
        stored = model.replay_buffer
        starts = [stored.observations[row, 0, 0] for row in (0, 5, 10)]
        assert starts[0] == plain.obs[slot, 0]
        assert len(set(starts)) == 3
        np.testing.assert_array_equal(stored.next_observations[:12, 0, 1], [100 + step % 5 + 1 for step in range(12)])
        assert (stored.dones * (1 - stored.timeouts))[:12].sum() == 0


def test_random_actions_of_the_start_get_no_noise():
    """With noise as wide as the box, half of the actions would lie on its bounds; a uniform one never does."""
    opinion, _ = learner("sb3-td3", exploration_noise=1.0, random_steps=60)
    opinion.learn(30, lambda slot: None)
    opinion.learn(70, lambda slot: None)
    for model in opinion.models:
        bound = np.abs(model.replay_buffer.actions[:100, 0, 0]) == 1.0
        assert not bound[:60].any()
        assert 4 <= bound[60:].sum() <= 36


@pytest.mark.parametrize("name", SECOND_OPINIONS)
def test_critic_loss_is_the_sum_of_both_errors_as_ours(name, monkeypatch):
    errors = []
    real = torch.nn.functional.mse_loss

    def recorded(*arguments):
        errors.append(real(*arguments))
        return errors[-1]

    opinion, _ = learner(name)
    monkeypatch.setattr(torch.nn.functional, "mse_loss", recorded)
    opinion.learn(11, lambda slot: None)
    of_two_models = torch.stack(errors).detach().view(2, 2).sum(1).numpy()
    np.testing.assert_allclose(opinion.metrics()["critic_loss"], of_two_models, rtol=1e-6)


def test_same_table_and_evaluation_as_ours(tmp_path):
    given = options(tmp_path, algos=("td3", "sb3-td3", "sb3-sac"))
    ours, *theirs = train(given)
    for folder in theirs:
        assert folder.parent == ours.parent
        frame = results.read_table(folder / "metrics.parquet")
        assert set(frame["algorithm"]) == {folder.name}
        assert sorted(values(folder, "eval/return")) == sorted(values(ours, "eval/return"))
        assert sorted(values(folder, "time/steps_per_second")) == sorted(values(ours, "time/steps_per_second"))
        assert {step for _, step in values(folder, "train/critic_loss")} <= {20, 30, 40, 50, 60}
        config, own = (json.loads((place / "config.json").read_text()) for place in (folder, ours))
        assert (config["status"], config["threads"]) == ("complete", own["threads"])
        assert "stable-baselines3" in config["versions"]
    assert json.loads((theirs[0] / "config.json").read_text())["hyperparameters"] == own["hyperparameters"]


def test_evaluation_is_the_deterministic_policy():
    opinion, _ = learner("sb3-sac")
    obs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    found = opinion.act(obs)
    for slot, model in enumerate(opinion.models):
        np.testing.assert_array_equal(found[slot], model.predict(obs[slot], deterministic=True)[0])
    assert found.shape == (2, 4, 1)


def test_streams_of_the_gpu_are_each_models_own_too(monkeypatch):
    """No GPU is asked for: its stream is a number that each draw adds to."""
    state = {"now": torch.tensor([100])}
    asked = set()

    def get(device):
        asked.add(str(device))
        return state["now"].clone()

    def put(new, device):
        asked.add(str(device))
        state["now"] = new.clone()

    monkeypatch.setattr(torch.cuda, "get_rng_state", get)
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)
    opinion, _ = learner("sb3-td3")
    assert not asked  # on the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    opinion._streams = type(opinion._streams)("cuda:0")
    for slot, own in enumerate(opinion._own):
        opinion._own[slot] = (*own[:3], torch.tensor([10 * slot]))
    seen = []

    def learn(self, steps, **others):
        seen.append(int(state["now"]))
        state["now"] += steps

    monkeypatch.setattr(type(opinion.models[0]), "learn", learn)
    opinion.learn(3, lambda slot: None)
    opinion.learn(4, lambda slot: None)
    assert seen == [0, 10, 3, 13]
    assert int(state["now"]) == 100  # the process's own
    assert asked == {"cuda:0"}


def test_a_unit_starts_again_or_is_complete(tmp_path, capsys):
    (folder,) = train(options(tmp_path, algos=("sb3-td3",), steps=30))
    before = (folder / "metrics.parquet").read_bytes()
    train(options(tmp_path, algos=("sb3-td3",), steps=30, resume=True))
    assert "is complete at 30 steps: nothing to do" in capsys.readouterr().out
    assert (folder / "metrics.parquet").read_bytes() == before
    train(options(tmp_path, algos=("sb3-td3",), resume=True))
    assert "starts again from step 0" in capsys.readouterr().out
    (straight,) = train(options(tmp_path / "b", algos=("sb3-td3",)))
    assert values(folder, "eval/return") == values(straight, "eval/return")
    with pytest.raises(ValueError, match="at least 60"):
        train(options(tmp_path, algos=("sb3-td3",), steps=30, resume=True))
    assert main(["evaluate", str(folder)]) == 2
    assert "a run folder with a checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.zip"))


@pytest.mark.parametrize("name", SECOND_OPINIONS)
def test_diverged_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys, name):
    """Also where Stable-Baselines3 stops over a distribution that is none."""
    (straight,) = train(options(tmp_path / "a", algos=(name,)))
    learn = SecondOpinion.learn

    def poisoned(self, steps, each):
        if self.steps == 20:
            with torch.no_grad():
                for parameter in self.models[1].policy.actor.parameters():
                    parameter.fill_(float("nan"))
        learn(self, steps, each)

    monkeypatch.setattr(SecondOpinion, "learn", poisoned)
    (folder,) = train(options(tmp_path / "b", algos=(name,)))
    config = json.loads((folder / "config.json").read_text())
    assert (config["diverged"], config["status"]) == ({"1": 30}, "complete")
    assert "run 1 diverged" in capsys.readouterr().err
    found, expected = values(folder, "eval/return"), values(straight, "eval/return")
    assert found[0, 60] == expected[0, 60]
    assert np.isnan(found[1, 60])


def test_rates_of_its_temperature_that_it_cannot_have_are_refused_before_anything_is_written(tmp_path):
    settings = (*small("sb3-sac"), "sb3-sac.alpha_learning_rate=0.1")
    with pytest.raises(ValueError, match=r"sb3-sac.alpha_learning_rate: expected learning_rate \(0.0003\)"):
        train(options(tmp_path / "out", algos=("sb3-sac",), set=settings))
    with pytest.raises(ValueError, match=r"sb3-td3.hiden"):
        train(options(tmp_path / "out", algos=("sb3-td3",), set=("sb3-td3.hiden=3",)))
    assert not (tmp_path / "out").exists()
