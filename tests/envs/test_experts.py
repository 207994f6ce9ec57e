"""Experts: means of each kind, losses that have them, regrets from their definition, bandit feedback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from envs.experts import KINDS, Experts


def losses_of(world: Experts) -> np.ndarray:
    return world._draw(0, world.horizon)[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rounds", [1, 30])
def test_regrets_are_those_of_the_definition(kind: str, rounds: int) -> None:
    world = Experts(4, 30, runs=5, seed=1, kind=kind, gap=0.2)
    losses, mean = losses_of(world), world.mean_losses(0, 30)
    p = np.random.default_rng(0).dirichlet(np.ones(4), (5, 30))
    for t in range(rounds):
        gradient, reward, *_, info = world.step(torch.as_tensor(p[:, t]))
        np.testing.assert_array_equal(gradient.numpy(), losses[:, t])
        assert info["feedback"].gradient is gradient
        np.testing.assert_allclose(reward.numpy(), -(p[:, t] * losses[:, t]).sum(-1), atol=1e-15)
    losses, mean, p = losses[:, :rounds], mean[:rounds], p[:, :rounds]
    got = world.regret()
    static = (p * mean).sum((1, 2)) - mean.sum(0).min()
    np.testing.assert_allclose(got["regret/static"].numpy(), static, atol=1e-12)
    sampled = (p * losses).sum((1, 2)) - losses.sum(1).min(-1)
    np.testing.assert_allclose(got["regret/sampled"].numpy(), sampled, atol=1e-12)


def test_bandit_feedback_shows_the_reward_alone_of_the_same_losses() -> None:
    full, bandit = (Experts(4, 25, runs=5, seed=1, feedback=kind) for kind in ("full", "bandit"))
    losses, mean = losses_of(full), full.mean_losses(0, 25)
    arms = np.random.default_rng(0).integers(0, 4, (5, 25))
    for t in range(25):
        full.step(torch.nn.functional.one_hot(torch.as_tensor(arms[:, t]), 4).double())
        seen, reward, *_, info = bandit.step(torch.as_tensor(arms[:, t]))
        np.testing.assert_array_equal(-reward.numpy(), losses[np.arange(5), t, arms[:, t]])
        assert torch.equal(seen[:, 0], -reward)
        assert (info["feedback"].gradient, info["feedback"].terms) == (None, {})
    for name, value in full.regret().items():
        torch.testing.assert_close(bandit.regret()[name], value)
    np.testing.assert_allclose(full.regret()["regret/static"].numpy(), mean[0, arms].sum(1) - 25 * mean[0].min())
    assert bandit.facts["arms"] == 4
    assert bandit.facts["domain"] == ("arms", {"dimension": 4})
    assert "gradient_bound" not in bandit.facts


@pytest.mark.parametrize(
    "options",
    [
        dict(means=[0.1, 0.5, 0.9]),
        dict(gap=0.4),
        dict(kind="second-best-overtakes", gap=0.3),
        dict(means=[0.0, 1, 0.5]),
    ],
)
def test_losses_have_the_stated_means_and_are_independent(options: dict[str, Any]) -> None:
    world = Experts(3, 20, runs=6000, **options)
    losses, mean = losses_of(world), world.mean_losses(0, 20)
    assert set(np.unique(losses)) <= {0.0, 1.0}
    np.testing.assert_allclose(losses.mean(0), mean, atol=4.5 * 0.5 / np.sqrt(6000))
    assert (losses.std(0)[(mean == 0) | (mean == 1)] == 0).all()
    residual = (losses - mean).reshape(-1, 60)
    products = residual.T @ residual / len(residual)
    assert np.abs(products - np.diag(np.diag(products))).max() < 5 * 0.25 / np.sqrt(6000)


def test_means_of_the_kinds() -> None:
    mean = Experts(3, 10, gap=0.1).mean_losses(0, 10)
    np.testing.assert_allclose(mean, np.tile([0.55, 0.55, 0.45], (10, 1)))
    overtaken = Experts(3, 600, kind="second-best-overtakes", gap=0.2).mean_losses(0, 600)
    np.testing.assert_allclose(overtaken[[0, 299]], [[0.6, 0.5, 0.4]] * 2)
    np.testing.assert_allclose(overtaken[[300, 599]], [[0.6, 0.3, 0.6]] * 2)
    total = overtaken.cumsum(0)
    leader = total.argmin(1)
    assert (leader[:399] == 2).all()
    assert (leader[401:] == 1).all()


def test_constrained_adversary_has_the_stated_phases() -> None:
    """Ends at 1, 2.6, 5.16, 9.256, 15.8096, ..: rounds 1 | 2 | 3-5 | 6-9 | 10-15, the first high."""
    world = Experts(4, 15, kind="stochastically-constrained")
    mean = world.mean_losses(0, 15)
    high = np.array([1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], bool)
    np.testing.assert_allclose(mean[:, 0], np.where(high, 1.0, 0.1))
    np.testing.assert_allclose(mean[:, 3], np.where(high, 0.9, 0.0), atol=1e-15)
    np.testing.assert_array_equal(world.mean_losses(7, 5), mean[7:12])


def test_facts_of_a_world() -> None:
    facts = Experts(9, 7).facts
    assert facts == {
        "arms": 9, "dimension": 9, "domain": ("simplex", {"dimension": 9}), "horizon": 7, "loss_low": 0.0,
        "loss_high": 1.0, "gradient_bound": 3.0, "smoothness": 0.0, "diameter": 2**0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arms=0), "Experts.arms: expected an integer of at least 1"),
        (dict(arms=1, kind="second-best-overtakes"), "Experts.arms: expected an integer of at least 2"),
        (dict(kind="bernouli"), "did you mean 'bernoulli'"),
        (dict(feedback="bandits"), "did you mean 'bandit'"),
        (dict(gap=1.1), "Experts.gap: expected a number from 0 to 1"),
        (dict(gap=0.6, kind="second-best-overtakes"), "Experts.gap: expected a number from 0 to 0.5"),
        (dict(arms=2, means=[0.5]), "Experts.means: expected 2 numbers"),
        (dict(arms=2, means=[0.5, 1.1]), "Experts.means: expected 2 numbers"),
        (dict(arms=2, means=[0.5, 1], kind="stochastically-constrained"), "Experts.means: expected none"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Experts(**options)


def test_words_where_numbers_belong_are_named():
    with pytest.raises(ValueError, match=r"Experts.gap: expected a number from 0 to 1, got 'wide'"):
        Experts(gap="wide")
    with pytest.raises(ValueError, match=r"Experts.means: expected 2 numbers in \[0, 1\], got 'many'"):
        Experts(arms=2, means="many")
