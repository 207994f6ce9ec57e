"""SAC's own policy and the soft agents' temperature: what no update in `test_updates` reaches."""

from __future__ import annotations

import math

import pytest
import torch

from tests.offline_rl.online.contract import CASES, assert_same, snapshot

SAC_CASE = next(case for case in CASES if case.name == "sac")


@pytest.mark.parametrize(
    ("raw", "log_std", "slope"),
    [(-50.0, -20.0, 0.0), (-20.5, -20.0, 0.0), (-19.5, -19.5, 1.0), (1.5, 1.5, 1.0), (2.5, 2.0, 0.0), (50.0, 2.0, 0.0)],
)
def test_log_std_is_clamped_to_minus_20_and_2_and_has_no_gradient_beyond(raw, log_std, slope):
    agent = SAC_CASE.build(dtype=torch.float64)
    with torch.no_grad():
        agent.actor[-2].zero_()
        agent.actor[-1][..., :2] = 0.3  # the means, which no clamp touches
        agent.actor[-1][..., 2:] = raw
    mean, std = agent._distribution(torch.zeros(1, 4, 3, dtype=torch.float64))
    assert mean.unique().tolist() == [0.3]
    torch.testing.assert_close(std.detach(), torch.full_like(std, math.exp(log_std)), rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(torch.log(std).sum(), agent.actor[-1])
    torch.testing.assert_close(grad[0, 0], torch.tensor([0, 0, 4 * slope, 4 * slope], dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "values"), [("sac", {}), *(("stac", {"alpha_rule": r}) for r in ("stac", "exp", "adam"))]
)
def test_a_temperature_of_rate_0_stays_whatever_the_entropy(name, values):
    case = next(case for case in CASES if case.name == name)
    agent = case.build(runs=3, alpha_learning_rate=0.0, **values)
    before = snapshot(agent)
    agent._move_temperature(torch.tensor([-5.0, math.inf, math.nan]))
    assert_same(snapshot(agent), before)
