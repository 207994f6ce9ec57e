"""Linear bandits as worlds: means from the definition, moving parameters, features, regret, both checkers."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from envs.linear_bandit import KINDS, LinearBandit
from experiments.bandit_problems import BANDITS

SMALL: dict[str, Any] = dict(arms=4, dimension=3, horizon=40, runs=5, seed=2)


def features_of(world: LinearBandit, round: int) -> np.ndarray:
    """(R, K, d) of a round."""
    if world.fresh:
        return world.tape.round(round)[1].numpy()
    return np.broadcast_to(world.features.numpy(), (world.num_envs, world.arms, world.dimension))


def theta_of(world: LinearBandit, round: int) -> np.ndarray:
    """(R, d) by its definition."""
    first = world.axes[0].numpy()
    if world.kind == "rotating":
        angle = 2 * np.pi * round / world.horizon
        return np.cos(angle) * first + np.sin(angle) * world.axes[1].numpy()
    return -first if world.kind == "abrupt" and round >= world.horizon / 2 else first


def means_of(world: LinearBandit, round: int) -> np.ndarray:
    linear = np.einsum("rkd,rd->rk", features_of(world, round), theta_of(world, round))
    return 1 / (1 + np.exp(-linear)) if world.kind == "logistic" else linear


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [dict(), dict(fresh=True, norm=2.0), dict(shared=True, noise=0.0)])
def test_rewards_and_regret_are_those_of_the_definition(kind: str, options: dict[str, Any]) -> None:
    world = LinearBandit(**{**SMALL, **options, "kind": kind})
    norm = options.get("norm", 1.0)
    arms = np.random.default_rng(0).integers(0, 4, (40, 5))
    pseudo = realised = np.zeros(5)
    for t in range(40):
        np.testing.assert_allclose(np.linalg.norm(features_of(world, t), axis=-1), 1.0)
        np.testing.assert_allclose(np.linalg.norm(theta_of(world, t), axis=-1), norm)
        np.testing.assert_allclose(world.parameter(t).numpy(), theta_of(world, t), atol=1e-14)
        means, shown = means_of(world, t), world.context()
        if world.fresh:
            assert shown is not None
            np.testing.assert_array_equal(shown.numpy(), features_of(world, t))
        else:
            assert shown is None
        seen, reward, *_, info = world.step(torch.as_tensor(arms[t]))
        assert torch.equal(info["feedback"].reward, reward)
        assert info["feedback"].gradient is None
        mean, luck = means[np.arange(5), arms[t]], world.tape.round(t)[0].numpy()
        wanted = luck < mean if kind == "logistic" else mean + options.get("noise", 0.1) * luck
        np.testing.assert_allclose(reward.numpy(), wanted, atol=1e-14)
        pseudo, realised = pseudo + means.max(-1) - mean, realised + means.max(-1) - reward.numpy()
        if world.fresh:
            later = features_of(world, t + 1) if t < 39 else np.zeros((5, 4, 3))
            np.testing.assert_array_equal(seen.numpy(), later)
        else:
            assert torch.equal(seen[:, 0], reward)
    np.testing.assert_allclose(world.regret()["regret/pseudo"].numpy(), pseudo, atol=1e-12)
    np.testing.assert_allclose(world.regret()["regret/realised"].numpy(), realised, atol=1e-12)


def test_features_are_uniform_and_of_each_run() -> None:
    world = LinearBandit(arms=8, dimension=3, horizon=2, runs=2000)
    u = world.features.numpy().reshape(-1, 3)
    np.testing.assert_allclose(u.mean(0), 0, atol=4.5 * np.sqrt(1 / 3 / 16000))
    np.testing.assert_allclose(u.T @ u / 16000, np.eye(3) / 3, atol=0.01)
    np.testing.assert_allclose(world.axes[0].numpy().mean(0), 0, atol=4.5 * np.sqrt(1 / 3 / 2000))
    fewer = LinearBandit(arms=3, dimension=3, horizon=2, runs=[7, 3])
    np.testing.assert_array_equal(fewer.features.numpy(), world.features[[7, 3], :3].numpy())
    shared = LinearBandit(arms=8, dimension=3, horizon=2, runs=[4], shared=True)
    assert shared.features.shape == (8, 3)
    other = LinearBandit(arms=8, dimension=3, horizon=2, runs=3, shared=True)
    assert torch.equal(shared.features, other.features)
    assert not torch.equal(shared.features, LinearBandit(arms=8, dimension=3, runs=3, shared=True, seed=1).features)


def test_new_features_are_uniform_and_independent_of_the_past() -> None:
    world = LinearBandit(arms=2, dimension=2, horizon=50, runs=400, kind="contexts")
    x = np.stack([features_of(world, t) for t in range(50)], 1)
    assert abs(x.mean()) < 4.5 * np.sqrt(1 / 2 / x.size)
    for first, second in ((x[:, :-1], x[:, 1:]), (x[..., :1, :], x[..., 1:, :])):
        product = (first * second).sum(-1)
        assert abs(product.mean()) < 4.5 * np.sqrt(1 / 2 / product.size)


@pytest.mark.parametrize("kind", ["fixed", "contexts", "logistic"])
def test_noise_has_the_stated_law(kind: str) -> None:
    world = LinearBandit(arms=1, dimension=2, horizon=4, runs=8000, kind=kind, noise=0.3, norm=1.5)
    for t in range(4):
        means = world.means(t, world.context())[:, 0]
        _, reward, *_ = world.step(torch.zeros(8000, dtype=torch.int64))
        error = (reward - means).numpy()
        spread = np.sqrt((means * (1 - means)).mean().item()) if kind == "logistic" else 0.3
        assert abs(error.mean()) < 4.5 * spread / np.sqrt(8000)
        np.testing.assert_allclose(error.std(), spread, rtol=0.05)


def test_a_parameter_turns_once_and_one_jumps() -> None:
    turning = LinearBandit(**SMALL, kind="rotating", norm=2.0)
    steps = [(turning.parameter(t + 1) - turning.parameter(t)).norm(dim=-1) for t in range(40)]
    np.testing.assert_allclose(torch.stack(steps).numpy(), 2 * 2.0 * np.sin(np.pi / 40))
    np.testing.assert_allclose(turning.parameter(40).numpy(), turning.parameter(0).numpy(), atol=1e-14)
    assert turning.facts["variation"] == pytest.approx(4 * np.pi)
    jumping = LinearBandit(**SMALL, kind="abrupt", norm=2.0)
    moved = [t for t in range(39) if not torch.equal(jumping.parameter(t), jumping.parameter(t + 1))]
    assert moved == [19]
    assert jumping.facts["variation"] == 4.0


def test_facts() -> None:
    common = {
        "arms": 4, "dimension": 4, "domain": ("arms", {"dimension": 4}), "horizon": 40, "feature_dimension": 3,
        "feature_bound": 1.0, "parameter_bound": 1.0,
    }  # fmt: skip
    assert LinearBandit(**SMALL, kind="contexts").facts == {**common, "noise": 0.1}
    logistic = LinearBandit(**SMALL, kind="logistic", fresh=True)
    assert logistic.facts == {**common, "reward_low": 0.0, "reward_high": 1.0}
    world = LinearBandit(**SMALL)
    assert world.facts.keys() == {*common, "noise", "features"}
    assert world.facts["features"] is world.features
    before = world.features.clone()
    world.reset(seed=9)
    assert world.facts["features"] is world.features
    assert torch.equal(world.features, LinearBandit(**{**SMALL, "seed": 9}).features)
    assert not torch.equal(world.features, before)


@pytest.mark.parametrize("kind", KINDS)
def test_both_checkers_pass(kind: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check

    import envs  # noqa: F401

    env = gym.make("orbs/LinearBandit-v0", kind=kind, arms=3, horizon=30).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rewards have no bound; features are a matrix
        check_env(env, skip_render_check=True)
        check(env)


def test_problems_make_the_worlds() -> None:
    problems = {one.name: one for one in BANDITS if one.name.startswith("linear-bandit-")}
    assert set(problems) == {f"linear-bandit-{kind}" for kind in KINDS}
    for name, problem in problems.items():
        given = {"arms": 3, "dimension": 2, "norm": 0.5, "shared": True, "fresh": False}
        world = problem.make({key: given[key] for key in problem.known if key in given}, 10, 2)
        assert isinstance(world, LinearBandit)
        assert f"linear-bandit-{world.kind}" == name
        assert (world.arms, world.dimension, world.norm, world.shared) == (3, 2, 0.5, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arms=0), "LinearBandit.arms: expected an integer of at least 1"),
        (dict(dimension=0), "LinearBandit.dimension: expected an integer of at least 1"),
        (dict(dimension=1, kind="rotating"), "LinearBandit.dimension: expected an integer of at least 2"),
        (dict(kind="rotated"), "did you mean 'rotating'"),
        (dict(noise=-1.0), "LinearBandit.noise: expected a finite number of at least 0"),
        (dict(norm="big"), "LinearBandit.norm: expected a finite number of at least 0"),
        (dict(horizon=0), "horizon: expected an integer of at least 1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LinearBandit(**options)
