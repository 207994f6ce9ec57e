"""Linear losses: their sequences, closed-form regrets, and the sequence that ruins follow-the-leader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from envs.linear_losses import KINDS, LinearLosses


def gradients(world: LinearLosses) -> np.ndarray:
    return world._draw(0, world.horizon)[0].numpy()


@pytest.mark.parametrize("domain", ["ball", "box", "simplex"])
@pytest.mark.parametrize("kind", KINDS)
def test_regrets_are_those_of_the_definition(kind: str, domain: str) -> None:
    world = LinearLosses(kind, horizon=20, runs=4, domain=domain)
    d, g = world.dimension, gradients(world)
    x = np.random.default_rng(0).dirichlet(np.ones(d), (4, 20))
    for t in range(20):
        np.testing.assert_array_equal(world.step(torch.as_tensor(x[:, t]))[0].numpy(), g[:, t])

    def lowest(v: np.ndarray) -> np.ndarray:
        if domain == "ball":
            return -np.linalg.norm(v, axis=-1)
        return -np.abs(v).sum(-1) if domain == "box" else v.min(-1)

    got, loss = world.regret(), (g * x).sum((1, 2))
    np.testing.assert_allclose(got["regret/sampled"].numpy(), loss - lowest(g.sum(1)), atol=1e-12)
    assert set(got) == ({"regret/sampled"} if world.chance else {"regret/static", "regret/sampled", "regret/dynamic"})
    if not world.chance:
        assert torch.equal(got["regret/static"], got["regret/sampled"])
        np.testing.assert_allclose(got["regret/dynamic"].numpy(), loss - lowest(g).sum(1), atol=1e-12)


def test_follow_the_leader_loses_the_horizon_less_a_half() -> None:
    world = LinearLosses("ftl-killer", horizon=100, runs=1)
    x = world.zeros(1)
    for _ in range(100):
        world.step(x)
        x = -world.sums["gradient"].sign()
    assert float(world.regret()["regret/sampled"][0]) == 99.5
    np.testing.assert_array_equal(gradients(world)[0, :5, 0], [0.5, -1, 1, -1, 1])


def test_sequences_of_the_kinds() -> None:
    t = np.arange(1, 41)
    turning = gradients(LinearLosses("rotating", 3, horizon=40, speed=0.2))
    np.testing.assert_allclose(turning[3, :, :2], np.stack((np.cos(0.2 * t), np.sin(0.2 * t)), 1), atol=1e-15)
    assert (turning[..., 2] == 0).all()
    drifting = gradients(LinearLosses("drifting-best", 4, horizon=40))[0]
    assert (drifting.min(), drifting.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(drifting[[9, 19, 29, 39]].argmin(1), [1, 2, 3, 0])


def test_chance_has_the_stated_moments() -> None:
    signs = gradients(LinearLosses("rademacher", 4, horizon=50, runs=400)).reshape(-1, 4)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    np.testing.assert_allclose(signs.T @ signs / len(signs), np.eye(4), atol=4.5 / np.sqrt(20_000))
    normal = gradients(LinearLosses("gaussian", 4, horizon=50, runs=400)).reshape(-1, 4)
    for values in (signs, normal):
        np.testing.assert_allclose(values.mean(0), 0.0, atol=4.5 / np.sqrt(20_000))
    np.testing.assert_allclose(normal.T @ normal / len(normal), np.eye(4), atol=0.05)
    assert np.mean(np.abs(normal) < 0.6744898) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(kind="rademachar"), "did you mean 'rademacher'"),
        (dict(domain="sphere"), "LinearLosses.domain: expected one of ball, box, simplex"),
        (dict(kind="ftl-killer", dimension=2), "LinearLosses.dimension: expected 1"),
        (dict(kind="rotating", dimension=1), "LinearLosses.dimension: expected an integer of at least 2"),
        (dict(speed=-1.0), "LinearLosses.speed"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LinearLosses(**options)
