"""Contextual worlds: contexts and rewards of the stated means, regret from its definition, contexts as observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from envs.contextual_bandit import KINDS, ContextualBandit


def scalar_means(world: ContextualBandit, run: int, x: np.ndarray) -> list[float]:
    if world.kind == "linear":
        return [float(w @ x) for w in world.weights[run].numpy()]
    slope, arms = world.lipschitz, world.arms
    return [max(0.9 - slope * abs(x[0] - (a + 0.5) / arms), 0.1) for a in range(arms)]


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_are_those_of_the_definition(kind: str) -> None:
    runs, rounds = 4, 25
    world = ContextualBandit(3, rounds, runs, seed=2, kind=kind, dimension=4, noise=0.2, lipschitz=2.0)
    shown, luck = (part.numpy() for part in world._draw(0, rounds))
    arms = np.random.default_rng(0).integers(0, 3, (rounds, runs))
    seen, _ = world.reset()
    pseudo, best, total = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    for t in range(rounds):
        context = world.context()
        np.testing.assert_array_equal(context.numpy(), shown[:, t])
        np.testing.assert_array_equal(seen.numpy(), shown[:, t])
        seen, reward, _, ended, info = world.step(torch.as_tensor(arms[t]))
        assert (info["feedback"].gradient, info["feedback"].terms) == (None, {})
        assert torch.equal(info["feedback"].reward, reward)
        assert bool(ended.all()) == (t == rounds - 1)
        for r in range(runs):
            means = scalar_means(world, r, shown[r, t])
            mean, u = means[arms[t, r]], luck[r, t]
            wanted = mean + 0.2 * u if kind == "linear" else float(u < mean)
            assert float(reward[r]) == pytest.approx(wanted, abs=1e-12)
            pseudo[r] += max(means) - mean
            best[r] += max(means)
            total[r] += wanted
    assert torch.equal(seen, torch.zeros_like(seen))
    np.testing.assert_allclose(world.regret()["regret/pseudo"].numpy(), pseudo, atol=1e-12)
    np.testing.assert_allclose(world.regret()["regret/realised"].numpy(), best - total, atol=1e-12)
    assert (pseudo > 0).all()


def test_contexts_and_weights_are_uniform() -> None:
    world = ContextualBandit(3, 10, 4000, dimension=3)
    x = world._draw(0, 10)[0].numpy()
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(world.weights.numpy(), axis=-1), 1.0, rtol=1e-12)
    for found in (x.reshape(-1, 3), world.weights.numpy().reshape(-1, 3)):
        np.testing.assert_allclose(found.T @ found / len(found), np.eye(3) / 3, atol=5 / np.sqrt(len(found)))
        np.testing.assert_allclose(found.mean(0), 0.0, atol=5 / np.sqrt(3 * len(found)))
    x = ContextualBandit(3, 10, 4000, kind="lipschitz")._draw(0, 10)[0].numpy()
    assert x.shape == (4000, 10, 1)
    np.testing.assert_allclose(np.histogram(x, 10, (0, 1))[0] / x.size, 0.1, atol=5 * 0.3 / np.sqrt(x.size))


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_have_the_stated_means(kind: str) -> None:
    """Mean of reward - mean is 0 within four standard errors; the noise has its deviation."""
    world = ContextualBandit(3, 50, 2000, kind=kind, noise=0.3)
    excess = []
    for t in range(50):
        x = world.context()
        arm = torch.full((2000,), t % 3)
        reward = world.step(arm)[1]
        excess.append(reward - world.means(x)[:, t % 3])
    found = torch.stack(excess)
    assert abs(float(found.mean())) < 4 * float(found.std()) / found.numel() ** 0.5
    if kind == "linear":
        assert float(found.std()) == pytest.approx(0.3, rel=0.02)


def test_the_best_arm_is_the_one_whose_part_it_is() -> None:
    world = ContextualBandit(5, 10, 1000, kind="lipschitz")
    x = world.context()
    assert torch.equal(world.means(x).max(-1).indices, (x[:, 0] * 5).long())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_same_alone_resumed_and_again(kind: str) -> None:
    def rewards(world: ContextualBandit, first: int, last: int) -> torch.Tensor:
        return torch.stack([world.step(torch.full((world.num_envs,), t % 3))[1] for t in range(first, last)])

    def make(runs: Any = 4) -> ContextualBandit:
        return ContextualBandit(3, 40, runs, seed=5, kind=kind)

    whole = make()
    played = rewards(whole, 0, 40)
    assert torch.equal(rewards(make([2]), 0, 40)[:, 0], played[:, 2])
    half = make()
    rewards(half, 0, 17)
    rest = make()
    rest.load_state_dict(half.state_dict())
    assert torch.equal(rest.context(), half.context())
    assert torch.equal(rewards(rest, 17, 40), played[17:])
    assert torch.equal(rest.regret()["regret/pseudo"], whole.regret()["regret/pseudo"])
    assert torch.equal(rewards(whole.twin(), 0, 40), played)
    first, _ = whole.reset(seed=6)
    assert torch.equal(first, ContextualBandit(3, 40, 4, seed=6, kind=kind).context())
    assert not torch.equal(rewards(whole, 0, 40), played)


def test_facts() -> None:
    assert ContextualBandit(4, 7, dimension=2, noise=0.3).facts == {
        "arms": 4, "dimension": 4, "domain": ("arms", {"dimension": 4}), "horizon": 7, "context_dimension": 2,
        "feature_bound": 1.0, "parameter_bound": 1.0, "noise": 0.3, "context_low": -1.0, "context_high": 1.0,
    }  # fmt: skip
    assert ContextualBandit(4, 7, kind="lipschitz", lipschitz=2.0).facts == {
        "arms": 4, "dimension": 4, "domain": ("arms", {"dimension": 4}), "horizon": 7, "context_dimension": 1,
        "feature_bound": 1.0, "lipschitz": 2.0, "context_low": 0.0, "context_high": 1.0, "reward_low": 0.0,
        "reward_high": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arms=0), "ContextualBandit.arms: expected an integer of at least 1"),
        (dict(dimension=0), "ContextualBandit.dimension: expected an integer of at least 1"),
        (dict(kind="linaer"), "did you mean 'linear'"),
        (dict(noise=-1.0), "ContextualBandit.noise: expected a finite number of at least 0"),
        (dict(lipschitz=float("nan"), kind="lipschitz"), "ContextualBandit.lipschitz"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ContextualBandit(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_single_environment_passes_both_checkers(kind: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check

    env = gym.make("orbs/ContextualBandit-v0", arms=3, horizon=30, kind=kind).unwrapped
    check_env(env, skip_render_check=True)
    check(env)
    seen, _ = env.reset(seed=4)
    world = ContextualBandit(3, 30, [0], seed=4, kind=kind)
    np.testing.assert_array_equal(seen, world.context()[0].numpy().astype(np.float32))
