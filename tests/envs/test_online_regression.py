"""Online regression: features, targets, expected losses, the best point in hindsight, sums that are regenerated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs import hindsight
from envs.online_regression import KINDS, OnlineRegression, expected_huber, least_squares_on_ball
from envs.portfolio import Portfolio
from envs.regret_world import RegretWorld


def data(world: OnlineRegression) -> tuple[Tensor, Tensor, Tensor]:
    features, target, best = world._draw(0, world.horizon)
    return features, target, best.expand_as(features)


def points(runs: int, rounds: int, d: int) -> Tensor:
    v = torch.as_tensor(np.random.default_rng(0).normal(size=(runs, rounds, d)))
    return 0.9 * v / v.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_best_points_lie_where_stated(kind: str) -> None:
    world = OnlineRegression(kind, 4, 600, runs=40, stages=3)
    features, _, best = data(world)
    norms, lengths = features.norm(dim=-1), best.norm(dim=-1)
    if kind == "huber":
        assert float(norms.max()) <= 1.0
        np.testing.assert_allclose(np.quantile(norms, [0.2, 0.5, 0.8]), np.array([0.2, 0.5, 0.8]) ** 0.25, atol=0.01)
        assert 0.4 < float(lengths.mean()) < 0.6
        assert 0.2 < float(lengths[:, ::200].std()) < 0.35
    else:
        torch.testing.assert_close(norms, torch.ones_like(norms))
        torch.testing.assert_close(lengths, torch.full_like(lengths, 0.5))
    second = (features.flatten(0, 1).T @ features.flatten(0, 1)) / 24_000
    np.testing.assert_allclose(second, np.eye(4) / (6 if kind == "huber" else 4), atol=0.01)
    for run in best[:3]:
        assert len(torch.unique(run, dim=0)) == 3
        assert torch.equal(run[0], run[199])
        assert not torch.equal(run[199], run[200])
    assert not torch.allclose(best[0], best[1])


@pytest.mark.parametrize("kind", KINDS)
def test_targets_have_the_stated_noise(kind: str) -> None:
    features, target, best = data(OnlineRegression(kind, 4, 1000, runs=50))
    margin = (features * best).sum(-1)
    away = (target - margin).flatten()
    assert abs(float(away.mean())) < 0.02
    if kind in ("squared", "huber"):
        scale = KINDS[kind].noise
        assert float(away.std()) == pytest.approx(scale, rel=0.02)
        assert float((away.abs() < 0.6744898 * scale).double().mean()) == pytest.approx(0.5, abs=0.01)
    elif kind == "absolute":
        assert float(away.abs().mean()) == pytest.approx(0.1, rel=0.02)
        assert float((away.abs() > 0.1 * math.log(10)).double().mean()) == pytest.approx(0.1, abs=0.006)
        assert float((away > 0).double().mean()) == pytest.approx(0.5, abs=0.01)
    else:
        assert set(target.unique().tolist()) == {-1.0, 1.0}
        chance = torch.sigmoid(margin) if kind == "logistic" else torch.where(margin > 0, 0.9, 0.1)
        for low, high in ((-0.5, -0.2), (-0.2, 0.0), (0.0, 0.2), (0.2, 0.5)):
            among = (margin > low) & (margin <= high)
            wanted = float(chance[among].mean())
            assert float((target[among] > 0).double().mean()) == pytest.approx(wanted, abs=0.02)


def quadrature(kind: str, p: Tensor, best: Tensor, noise: float, link: hindsight.Link) -> Tensor:
    """The expected loss at a prediction, by sums over a fine grid of quantiles of the target."""
    if kind == "logistic":
        chance, one = torch.sigmoid(best), torch.ones_like(best)
        return chance * link.value(p, one) + (1 - chance) * link.value(p, -one)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    if kind == "absolute":
        errors = -noise * (u - 0.5).sign() * torch.log1p(-2 * (u - 0.5).abs())
    else:
        errors = noise * math.sqrt(2) * torch.erfinv(2 * u - 1)
    return torch.stack([link.value(a, b + errors).mean() for a, b in zip(p, best, strict=True)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("absolute", {}), ("absolute", dict(noise=0.0)), ("huber", {}), ("logistic", {})]
    + [("huber", dict(noise=0.3, threshold=0.4)), ("huber", dict(noise=0.0, threshold=0.1))],
)
def test_expected_regret_given_the_features(kind: str, options: dict[str, Any]) -> None:
    world = OnlineRegression(kind, 3, 6, runs=2, stages=1, **options)
    features, _, best = data(world)
    x = points(2, 6, 3)
    wanted = torch.zeros(2, dtype=torch.float64)
    for t in range(6):
        world.step(x[:, t])
        p, margin = (features[:, t] * x[:, t]).sum(-1), (features[:, t] * best[:, t]).sum(-1)
        at, comparator = (quadrature(kind, where, margin, world.noise, world._link) for where in (p, margin))
        wanted += at - comparator
    assert set(world.regret()) == {"regret/static"}
    torch.testing.assert_close(world.regret()["regret/static"], wanted, rtol=1e-4, atol=1e-5)


def test_hubers_expectation_is_squared_where_the_threshold_is_far() -> None:
    mean = torch.tensor([-0.7, 0.0, 0.4], dtype=torch.float64)
    torch.testing.assert_close(expected_huber(mean, 0.1, 2.0), 0.5 * (mean**2 + 0.01), rtol=1e-13, atol=0)
    linear = 0.5 * 100 * mean.abs() - 0.125 * (mean != 0) + 0.005 * (mean == 0)
    torch.testing.assert_close(expected_huber(mean * 100, 0.1, 0.5), linear, atol=1e-6, rtol=0)


def test_squared_regret_against_the_best_point_is_that_of_the_mean_loss() -> None:
    """E over features of (a.(x - x*))^2 / 2 is ||x - x*||^2 / (2 d); 8000 runs, a standard error of 1%."""
    world = OnlineRegression("squared", 4, 3, runs=8000)
    features, target, best = data(world)
    x = torch.tensor([[0.5, -0.5, 0.2, 0.1]], dtype=torch.float64).expand(8000, -1)
    for _ in range(3):
        world.step(x)
    wanted = 3 * ((x - best[:, 0]) ** 2).sum(-1) / 8
    torch.testing.assert_close(world.regret()["regret/static"], wanted)
    excess = (((features * x[:, None]).sum(-1) - target) ** 2 - ((features * best).sum(-1) - target) ** 2).sum(1) / 2
    assert float(excess.mean()) == pytest.approx(float(wanted.mean()), rel=0.04)


@pytest.mark.parametrize("rounds", [1, 3, 60])
def test_sampled_squared_regret_is_against_the_best_point_in_hindsight(rounds: int) -> None:
    """The best point by optimality: residual gradient -mu u, mu >= 0 on the sphere and 0 inside."""
    world = OnlineRegression("squared", 4, 60, runs=5, noise=0.4)
    features, target, _ = data(world)
    x = points(5, 60, 4)
    for t in range(rounds):
        world.step(x[:, t])
    a, b = features[:, :rounds], target[:, :rounds]
    u = least_squares_on_ball(world.sums["gram"], world.sums["moment"])
    at = ((a * u[:, None]).sum(-1) - b)[..., None]
    gradient, norm = (a * at).sum(1), u.norm(dim=-1)
    mu = -(gradient * u).sum(-1) / norm**2
    assert float(norm.max()) <= 1 + 1e-12
    assert float((gradient + mu[:, None] * u).abs().max()) < 1e-8
    assert float(mu.min()) > -1e-8
    assert float((mu * (1 - norm)).abs().max()) < 1e-8
    loss = 0.5 * ((a * x[:, :rounds]).sum(-1) - b).square().sum(1)
    sampled = loss - 0.5 * at[..., 0].square().sum(1)
    torch.testing.assert_close(world.regret()["regret/sampled"], sampled, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(world.hindsight(rounds).value(u), 0.5 * at[..., 0].square().sum(1))


def test_least_squares_ends_on_the_sphere_where_the_data_pull_outside() -> None:
    gram = torch.diag_embed(torch.tensor([[2.0, 1.0], [2.0, 1.0], [3.0, 0.0]], dtype=torch.float64))
    moment = torch.tensor([[1.0, 0.5], [6.0, 4.0], [6.0, 0.0]], dtype=torch.float64)
    u = least_squares_on_ball(gram, moment)
    torch.testing.assert_close(u[0], torch.tensor([0.5, 0.5], dtype=torch.float64))
    angle = torch.linspace(0, 2 * math.pi, 2_000_001, dtype=torch.float64)
    loss = angle.cos() ** 2 + 0.5 * angle.sin() ** 2 - 6 * angle.cos() - 4 * angle.sin()
    best = angle[loss.argmin()]
    torch.testing.assert_close(u[1], torch.stack((best.cos(), best.sin())), atol=1e-5, rtol=0)
    torch.testing.assert_close(u[2], torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("kind", [*KINDS, "log"])
@pytest.mark.parametrize("kept", [0, 2**20])
def test_hindsight_is_the_sum_of_the_losses(kind: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a world's run at one fixed point loses, and central differences of it."""
    monkeypatch.setattr(hindsight, "KEPT_NUMBERS", kept)
    make: dict[str, Any] = dict(horizon=70, runs=3, seed=4)
    world: RegretWorld = Portfolio(3, **make) if kind == "log" else OnlineRegression(kind, 3, **make, threshold=0.3)
    monkeypatch.setattr("envs.regret_world.BLOCK_NUMBERS", 1)
    small = Portfolio(3, **make) if kind == "log" else OnlineRegression(kind, 3, **make, threshold=0.3)
    x = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    for _ in range(50):
        world.step(x)
    losses = small.hindsight(50)
    drawn = losses._draw
    calls: list[int] = []
    monkeypatch.setattr(losses, "_draw", lambda first, count: calls.append(count) or drawn(first, count))
    torch.testing.assert_close(losses.value(x), world.loss)
    value, gradient, hessian = losses.derivatives(x)
    assert calls == [16, 16, 16, 2] * (1 if kept else 2)
    torch.testing.assert_close(value, world.loss)
    h = 1e-6
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = h
        numeric = (losses.value(x + step) - losses.value(x - step)) / (2 * h)
        torch.testing.assert_close(gradient[:, i], numeric, rtol=1e-5, atol=1e-5)
        ahead, behind = losses.derivatives(x + step)[1], losses.derivatives(x - step)[1]
        torch.testing.assert_close(hessian[:, i], (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-4)
    assert float(small.hindsight(0).value(x).abs().max()) == 0.0


def test_kinks_have_the_stated_subgradients() -> None:
    p, b = torch.tensor([0.3, 1.0], dtype=torch.float64), torch.tensor([0.3, 1.0], dtype=torch.float64)
    assert hindsight.absolute().slope(p, b).tolist() == [0.0, 0.0]
    assert hindsight.hinge().slope(p, torch.ones(2, dtype=torch.float64)).tolist() == [-1.0, 0.0]
    huber = hindsight.huber(0.5)
    ends = torch.tensor([-2.0, 0.25, 2.0], dtype=torch.float64)
    assert huber.value(ends, ends * 0).tolist() == [0.875, 0.03125, 0.875]
    assert huber.slope(ends, ends * 0).tolist() == [-0.5, 0.25, 0.5]


@pytest.mark.parametrize("kind", ["squared", "logistic"])
def test_exp_concavity_and_bounds_hold(kind: str) -> None:
    """alpha phi'^2 <= phi'' at every reachable prediction and target; residuals within their bound."""
    world = OnlineRegression(kind, 3, 4000, runs=20)
    _, target, _ = data(world)
    facts, p = world.facts, torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    b = target.flatten()[None, :20_000]
    slope, curvature = world._link.slope(p, b), world._link.curvature(p, b)
    assert float((facts["exp_concavity"] * slope**2 - curvature).max()) <= 1e-12
    assert float(slope.abs().max()) <= facts["gradient_bound"] + 1e-12
    assert float(curvature.max()) <= facts["smoothness"]


def test_defaults_and_facts() -> None:
    world = OnlineRegression("huber", runs=2)
    assert (world.dimension, world.horizon, world.stages, world.noise, world.threshold) == (10, 20_000, 10, 0.05, 2.0)
    assert (world.facts["gradient_bound"], world.facts["smoothness"], world.facts["term"]) == (2.0, 1.0, "huber")
    assert set(world.regret()) == {"regret/dynamic"}
    facts = OnlineRegression().facts
    assert (facts["residual_bound"], facts["gradient_bound"], facts["exp_concavity"]) == (2.5, 2.5, 0.16)
    assert OnlineRegression(noise=0.5).facts["residual_bound"] == pytest.approx(4.885)
    assert OnlineRegression("absolute").facts["gradient_bound"] == 1.0
    assert OnlineRegression("hinge", runs=2).regret() == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(kind="absolut"), "did you mean 'absolute'"),
        (dict(dimension=0), "OnlineRegression.dimension: expected an integer of at least 1"),
        (dict(noise=-1.0), "OnlineRegression.noise"),
        (dict(kind="hinge", noise=0.6), "OnlineRegression.noise: expected a number from 0 to 0.5"),
        (dict(kind="huber", threshold=3.0), "OnlineRegression.threshold: expected a number from 1e-06 to 2"),
        (dict(stages=20, horizon=10), "OnlineRegression.stages: expected at most the horizon 10"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OnlineRegression(**options)
