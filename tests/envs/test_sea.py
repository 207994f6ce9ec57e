"""Quadratic SEA problems: centres, regrets recomputed from scratch, variance and variation, known regrets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from envs.sea import KINDS, SEA

OPTIONS: dict[str, dict[str, Any]] = {
    "dial": dict(dial=0.3), "iid": {}, "adversarial": dict(noise=0.2), "corrupted": {}, "drift": {},
    "random-order": dict(passes=2), "switching": dict(stages=4),
}  # fmt: skip


def centres(world: SEA) -> tuple[np.ndarray, np.ndarray]:
    """(R, T, d) c_t and mu_t, from the tape alone; for a random order the means of what is still to come."""
    c, _, mu, _ = (part.expand(world.num_envs, *part.shape[1:]).numpy() for part in world._draw(0, world.horizon))
    if world.kind == "random-order":
        mu, length = np.empty_like(c), world.horizon // world.passes
        for t in range(world.horizon):
            mu[:, t] = c[:, t : (t // length + 1) * length].mean(1)
    return c, mu


def least(points: np.ndarray, losses_at: np.ndarray) -> np.ndarray:
    """(R,) min over the unit ball of the mean-square losses around `points` (R, T, d)."""
    u = points.mean(1)
    u = u / np.maximum(1.0, np.linalg.norm(u, axis=-1, keepdims=True))
    return 0.5 * ((u[:, None] - losses_at) ** 2).sum((1, 2))


def test_every_kind_has_its_options_here() -> None:
    assert set(OPTIONS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rounds", [1, 23, 40])
def test_regrets_are_those_of_the_definition(kind: str, rounds: int) -> None:
    world = SEA(kind=kind, dimension=3, horizon=40, runs=6, seed=2, **OPTIONS[kind])
    c, mu = centres(world)
    x = np.random.default_rng(0).uniform(-0.57, 0.57, (6, 40, 3))
    for t in range(rounds):
        gradient, reward, *_ = world.step(torch.as_tensor(x[:, t]))
        np.testing.assert_allclose(gradient.numpy(), x[:, t] - c[:, t], atol=1e-15)
        np.testing.assert_allclose(reward.numpy(), -0.5 * ((x[:, t] - c[:, t]) ** 2).sum(-1), atol=1e-14)
    c, mu, x = c[:, :rounds], mu[:, :rounds], x[:, :rounds]
    expected = 0.5 * ((x - mu) ** 2).sum((1, 2))
    got = world.regret()
    np.testing.assert_allclose(got["regret/dynamic"].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(got["regret/static"].numpy(), expected - least(mu, mu), rtol=1e-11, atol=1e-12)
    sampled = 0.5 * ((x - c) ** 2).sum((1, 2))
    np.testing.assert_allclose(got["regret/sampled"].numpy(), sampled - least(c, c), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(world.loss.numpy(), sampled, rtol=1e-12)


def test_the_comparator_stays_in_the_ball() -> None:
    """One coordinate, c = 0.5 +- 3: after one round the best point is -1 or 1, the loss 0.5 (|c| - 1)^2."""
    world = SEA(kind="iid", dimension=1, horizon=1, runs=8, noise=3.0)
    gradient, reward, *_ = world.step(torch.zeros(8, 1, dtype=torch.float64))
    c = -gradient[:, 0]
    assert {round(float(value), 9) for value in c} == {-2.5, 3.5}
    torch.testing.assert_close(world.regret()["regret/sampled"], -reward - 0.5 * (c.abs() - 1) ** 2)


def test_mean_centres_of_each_kind() -> None:
    def means(**options: Any) -> np.ndarray:
        return centres(SEA(dimension=2, horizon=12, runs=2, **options))[1]

    signs = np.where(np.arange(12) % 2 == 0, 0.5, -0.5)
    np.testing.assert_array_equal(means(kind="iid")[0], np.stack((np.full(12, 0.5), np.zeros(12)), 1))
    np.testing.assert_array_equal(means(kind="adversarial")[1, :, 0], signs)
    np.testing.assert_allclose(means(dial=0.3)[0, :, 0], 0.35 + 0.3 * signs)
    angle = 2 * np.pi * np.arange(1, 13) / 12
    np.testing.assert_allclose(means(kind="drift")[0], 0.5 * np.stack((np.cos(angle), np.sin(angle)), 1), atol=1e-15)
    stages = means(kind="switching", stages=5)
    np.testing.assert_allclose(np.linalg.norm(stages, axis=-1), 0.5, rtol=1e-12)
    assert [len(np.unique(run.round(12), axis=0)) for run in stages] == [5, 5]
    lengths = np.diff(np.flatnonzero(np.r_[True, np.abs(np.diff(stages[0], axis=0)).sum(1) > 0, True]))
    assert sorted(lengths.tolist()) == [2, 2, 2, 3, 3]
    assert np.abs(stages[0] - stages[1]).max() > 0.01


def test_the_ends_of_the_dial_are_iid_and_adversarial() -> None:
    for dial, kind in ((0.0, "iid"), (1.0, "adversarial")):
        one, other = (SEA(horizon=20, runs=3, **option) for option in (dict(dial=dial), dict(kind=kind)))
        assert one.facts == other.facts
        for a, b in zip(one._draw(0, 20), other._draw(0, 20), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert torch.equal(one.variation(20), other.variation(20))


def test_flips_are_distinct_and_uniform() -> None:
    """floor(sqrt 90) = 9 of 90 rounds in each of 2000 runs: a round is flipped 200 +- 13.4 times (0.1 of them)."""
    world = SEA(kind="corrupted", dimension=1, horizon=90, runs=2000)
    flipped = world._means(0, 90)[..., 0] < 0
    assert set(flipped.sum(1).tolist()) == {9}
    counts = flipped.sum(0).double()
    assert float((counts - 200).abs().max()) < 4.5 * 13.4
    assert 90 * 0.6 < float(((counts - 200) ** 2).sum()) / 13.4**2 < 90 * 1.5
    torch.testing.assert_close(world._means(37, 20), world._means(0, 90)[:, 37:57])
    pairs = SEA(kind="corrupted", dimension=1, horizon=4, runs=6000)._flips.sort(0).values
    shares = torch.bincount(4 * pairs[0] + pairs[1], minlength=16)[[1, 2, 3, 6, 7, 11]]
    assert int(shares.sum()) == 6000
    assert float((shares - 1000).abs().max()) < 4.5 * math.sqrt(6000 / 6 * 5 / 6)


def test_random_order_plays_every_centre_once_a_pass() -> None:
    world = SEA(kind="random-order", dimension=2, horizon=60, runs=5, passes=3)
    c, _ = centres(world)
    table = world._centres.numpy()
    np.testing.assert_allclose(np.linalg.norm(table - [0.5, 0.0], axis=1), 0.5, rtol=1e-12)
    orders = []
    for run in range(5):
        for first in (0, 20, 40):
            part = c[run, first : first + 20]
            order = (part[:, None] == table).all(-1).argmax(1)
            assert sorted(order.tolist()) == list(range(20))
            orders.append(tuple(order))
    assert len(set(orders)) == 15
    one = SEA(kind="random-order", dimension=2, horizon=60, runs=[4], passes=3)
    np.testing.assert_array_equal(one._centres.numpy(), table)


@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_that_of_the_gradients(kind: str) -> None:
    """Means over 4000 runs of ||c_t - mu_t||^2, summed: exact but for random orders, there within 3%."""
    world = SEA(kind=kind, dimension=3, horizon=24, runs=4000, **OPTIONS[kind])
    c, mu = centres(world)
    per_round = ((c - mu) ** 2).sum(-1).mean(0)
    for t in (1, 11, 12, 13, 24):
        tolerance = 0.03 if kind == "random-order" else 1e-12
        np.testing.assert_allclose(world.variance(t).numpy(), per_round[:t].sum(), rtol=tolerance, atol=1e-14)
    assert np.abs((c - mu).mean(0)).max() < 0.04  # unbiased: a standard error is 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_variation_is_that_of_the_means(kind: str) -> None:
    world = SEA(kind=kind, dimension=3, horizon=24, runs=4000, seed=5, **OPTIONS[kind])
    _, mu = centres(world)
    steps = np.concatenate((np.zeros((4000, 1)), (np.diff(mu, axis=1) ** 2).sum(-1)), axis=1)
    for t in (0, 1, 2, 11, 12, 13, 14, 23, 24):
        wanted = steps[:, :t].sum(1)
        if kind == "random-order":
            np.testing.assert_allclose(world.variation(t).numpy(), wanted.mean(), rtol=0.04, atol=1e-12)
        else:
            np.testing.assert_allclose(world.variation(t).numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_variation_of_dial_drift_and_flips_as_stated() -> None:
    assert float(SEA(dial=0.3, horizon=100).variation(100)[0]) == pytest.approx(0.09 * 99)
    assert float(SEA(kind="drift", horizon=1000).variation(1000)[0]) == pytest.approx(math.pi**2 / 1000, rel=0.01)
    assert float(SEA(kind="corrupted", horizon=900, runs=50).variation(900).max()) <= 2 * 30


def test_facts_of_a_world() -> None:
    facts = SEA(dial=0.5, dimension=4, horizon=9).facts
    assert facts == {
        "dimension": 4, "domain": ("ball", {"dimension": 4, "radius": 1.0}), "horizon": 9, "diameter": 2.0,
        "gradient_bound": 1.75, "smoothness": 1.0, "strong_convexity": 1.0, "exp_concavity": 1 / 1.75**2,
    }  # fmt: skip


def play_optimistic(world: SEA, gradient_bound: float) -> dict[str, torch.Tensor]:
    """Optimistic mirror descent for convex smooth losses (arXiv 2302.04552), D = 2, L = 1, M_t = g_(t-1)."""
    xh = x = world.zeros(world.dimension)
    last, accumulated = torch.zeros_like(x), world.zeros()
    for _ in range(world.horizon):
        g = world.step(x)[0]
        eta = (2 / (40 + 4 * gradient_bound**2 + accumulated).sqrt()).unsqueeze(-1)
        xh = world.ball.project(xh - eta * g)
        accumulated = accumulated + ((g - last) ** 2).sum(-1)
        x = world.ball.project(xh - (2 / (40 + 4 * gradient_bound**2 + accumulated).sqrt()).unsqueeze(-1) * g)
        last = g
    return world.regret()


def test_regrets_of_optimistic_mirror_descent_are_the_known_ones() -> None:
    """An independent computation gives 41.034 on the adversarial problem and 11.27 on i.i.d., T = 1000, G = 2."""
    hard = play_optimistic(SEA(dial=1.0, horizon=1000, runs=1), 2.0)
    assert float(hard["regret/static"][0]) == pytest.approx(41.034, abs=5e-4)
    easy = play_optimistic(SEA(dial=0.0, horizon=1000, runs=400), 2.0)
    assert float(easy["regret/static"].mean()) == pytest.approx(11.27, rel=0.04)
    assert float(easy["regret/static"].mean()) == float(easy["regret/dynamic"].mean())
    calm = play_optimistic(SEA(kind="iid", noise=0.0, horizon=1000, runs=1), 2.0)
    assert float(calm["regret/static"][0]) == pytest.approx(0.226, abs=5e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(dial=1.5), "SEA.dial: expected a number from 0 to 1, got 1.5"),
        (dict(dial=math.nan), "SEA.dial"),
        (dict(dial=0.5, kind="iid"), "SEA.dial: expected 0 for every kind but 'dial'"),
        (dict(dimension=0), "SEA.dimension: expected an integer of at least 1"),
        (dict(kind="drift", dimension=1), "SEA.dimension: expected at least 2"),
        (dict(kind="swiching"), "did you mean 'switching'"),
        (dict(noise=-0.1), "SEA.noise: expected a finite number of at least 0"),
        (dict(kind="random-order", noise=0.6), "SEA.noise: expected a number from 0 to 0.5"),
        (dict(kind="random-order", passes=3), "SEA.passes: expected a divisor of the horizon 1000"),
        (dict(kind="switching", stages=2000), "SEA.stages: expected at most the horizon"),
        (dict(stages=3), "SEA.stages: expected nothing but for kind 'switching'"),
        (dict(passes=2, kind="iid"), "SEA.passes: expected nothing but for kind 'random-order'"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SEA(**options)
