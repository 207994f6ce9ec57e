"""Portfolio selection: price relatives, the loss, and what exp-concavity and the gradient bound promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.portfolio import Portfolio


def test_price_relatives_are_uniform_and_independent() -> None:
    (r,) = Portfolio(3, 500, runs=40)._draw(0, 500)
    values = r.flatten(0, 1).numpy()
    assert 0.5 < values.min() < 0.501
    assert 1.499 < values.max() < 1.5
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    np.testing.assert_allclose(quartiles, [[0.75] * 3, [1.0] * 3, [1.25] * 3], atol=0.02)
    np.testing.assert_allclose(np.cov(values.T), np.eye(3) / 12, atol=0.003)


def test_a_round_pays_the_logarithm_of_the_wealth_factor() -> None:
    world = Portfolio(3, 9, runs=2, seed=1)
    (r,) = world._draw(0, 9)
    x, total = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64), 0.0
    for t in range(9):
        gradient, reward, *_, info = world.step(x)
        wealth = (r[:, t] * x).sum(-1)
        torch.testing.assert_close(reward, wealth.log())
        torch.testing.assert_close(gradient, -r[:, t] / wealth[:, None])
        assert torch.equal(info["feedback"].terms["features"], r[:, t])
        total = total - wealth.log()
    torch.testing.assert_close(world.loss, total)
    torch.testing.assert_close(world.hindsight(9).value(x), total)
    assert world.regret() == {}


def test_facts_hold_at_the_corners() -> None:
    """At a vertex whose asset halves while the others rise by half the gradient has its largest norm, 3 sqrt(d - 1)."""
    facts = Portfolio(4, 5).facts
    assert (facts["exp_concavity"], facts["term"], facts["domain"]) == (1.0, "log", ("simplex", {"dimension": 4}))
    assert facts["gradient_bound"] == 6.0
    relatives = np.array([0.5, 1.5, 1.5, 1.5])
    assert np.linalg.norm(relatives / relatives[0]) <= 6.0
    world = Portfolio(4, 500, runs=50)
    vertex = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(50, -1)
    norms = torch.stack([world.step(vertex)[0].norm(dim=-1) for _ in range(500)])
    assert 4.0 < float(norms.max()) <= 6.0


def test_no_assets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Portfolio\.dimension: expected an integer of at least 1"):
        Portfolio(0)
