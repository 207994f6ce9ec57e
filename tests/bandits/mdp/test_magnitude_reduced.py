"""Magnitude-reduced estimates: how low they can be, their mean, their correction by samples, rates."""

import math

import numpy as np
import pytest
import torch

from bandits.mdp.ftrl_base import Rates, fresh_trajectories
from bandits.mdp.magnitude_reduced import MagnitudeReducedFTRL, magnitude_reduced_rates, reduced_estimate
from bandits.mdp.pol_opt import PolOpt
from tests.bandits.mdp.test_dilated_bonus import H
from tests.bandits.mdp.test_log_barrier_ftrl import estimates, expected_estimate, learner_of


def test_the_reduced_part_is_never_negative():
    g = torch.Generator().manual_seed(1)
    x = 10 * torch.randn(50, H, 12, dtype=torch.float64, generator=g)
    to_go = H * torch.rand(50, H, dtype=torch.float64, generator=g)
    to_go[0], to_go[1] = 0.0, H
    found = reduced_estimate(x, to_go, torch.zeros_like(x), float(H))
    assert found.min() >= -1e-13
    expected = torch.where(x < 0, -x * (H - to_go.unsqueeze(-1)), x * to_go.unsqueeze(-1))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    shifted = reduced_estimate(x, to_go, torch.full_like(x, -2.0), float(H))
    torch.testing.assert_close(shifted, found - 2.0 * H, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("gamma", "plain", "reduced"), [(0.02, -69.9565, -0.0700), (0.005, -248.506, -0.2485)])
def test_the_constructed_case(gamma, plain, reduced):
    """Features (1, 0), (1, 1)/sqrt 2, (1, -1)/sqrt 2 with chances 1 - 2 eps, eps, eps, L in {0, 3}, H = 3."""
    eps, bound = 0.001, 3.0
    root = math.sqrt(0.5)
    phi = torch.tensor([[[1.0, 0.0], [root, root], [root, -root]]], dtype=torch.float64)
    policy = torch.tensor([1 - 2 * eps, eps, eps], dtype=torch.float64).expand(1, 3, 1, 3)
    kernel, start = torch.ones(1, 1, 3, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    lowest = {}
    for kind in (PolOpt, MagnitudeReducedFTRL):
        learner = kind(kernel, start, phi, 3, Rates(0.1, 0.0, gamma))
        weights = learner.simulator.weights(policy)
        inverse, _ = learner.inverse(policy, 0, weights)
        found = [
            learner.estimate(inverse, phi[0, a].expand(1, 3, 2), torch.full((1, 3), to_go).double(), policy, weights)
            for a in range(3) for to_go in (0.0, bound)
        ]  # fmt: skip
        lowest[kind] = float(torch.stack(found).min())
    assert lowest[PolOpt] == pytest.approx(plain, rel=2e-6)
    assert lowest[MagnitudeReducedFTRL] == pytest.approx(reduced, abs=6e-5)


def test_the_lower_bound():
    """Qhat >= H m >= -H/(2 sqrt gamma) with the exact correction."""
    ratios = []
    for seed in range(40):
        for gamma in (1e-3, 0.03):
            one, policy = learner_of(MagnitudeReducedFTRL, 1, Rates(0.1, 0.0, gamma), seed=seed)
            weights = one.simulator.weights(policy)
            inverse, _ = one.inverse(policy, 0, weights)
            lowest = one.features.gram(inverse).clamp_max(0.0) @ weights.unsqueeze(-1)
            ratios.append(float(-lowest.min()) * math.sqrt(gamma))
    assert max(ratios) <= 0.5
    assert max(ratios) > 0.05


@pytest.mark.parametrize("samples", [None, 4], ids=["exact", "sampled"])
def test_the_estimate_is_unbiased(samples):
    runs, gamma = 40_000, 0.05
    more = {"samples": samples}
    learner, policy = learner_of(MagnitudeReducedFTRL, runs, Rates(0.1, 0.0, gamma), **more)
    losses = torch.einsum("pi,hi->hp", learner.features.table, torch.rand(H, 3, dtype=torch.float64))[None]
    found = estimates(learner, policy, losses)
    one, _ = learner_of(PolOpt, 1, Rates(0.1, 0.0, gamma))
    _, expected = expected_estimate(one, policy, losses)
    error = (found.mean(0) - expected[0]) / (found.std(0) / runs**0.5)
    assert error.abs().max() < 4.5
    # It is another estimate, of a second moment of at most 4 H^2 |phi|^2.
    inverse, _ = one.inverse(policy, 0)
    second, norms = (found**2).mean(0), one.features.quadratic(inverse)[0]
    assert (second <= 4 * H**2 * norms).all()


def test_sampled_corrections_tend_to_the_exact_one():
    pairs, found = {}, {}
    for samples in (None, 20_000):
        learner, policy = learner_of(MagnitudeReducedFTRL, 1, Rates(0.1, 0.0, 0.05), samples=samples)
        losses = torch.full((1, H, 12), 0.4, dtype=torch.float64)
        found[samples] = estimates(learner, policy, losses).clone()
        pairs[samples] = policy
    np.testing.assert_allclose(found[None], found[20_000], atol=0.25)
    assert not torch.equal(found[None], found[20_000])


def test_rates():
    root = math.sqrt(math.log(4) / 5000)
    eta = root / 9
    rates = magnitude_reduced_rates("theory", 4, 5, 3, 1000)
    expected = eta, 11 * eta * 9, max(12 * eta * 99 * eta * 9, 36 * eta**2 * 9)
    assert (rates.eta, rates.beta, rates.gamma) == pytest.approx(expected, rel=1e-12)
    assert magnitude_reduced_rates("practical", 4, 5, 3, 1000).eta == pytest.approx(4 * root)
    assert fresh_trajectories(5, 3, 1000, 0.1) == math.ceil(40 * math.log(15_000))
