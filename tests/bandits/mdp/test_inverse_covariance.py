"""Occupancies, trajectories, contractions with features, and the three estimates of inverse covariances."""

import numpy as np
import pytest
import torch

from bandits.mdp import inverse_covariance, linear_features
from bandits.mdp.dilated_bonus import local_bonus
from bandits.mdp.ftrl_base import Rates
from bandits.mdp.inverse_covariance import (
    InverseCovariance,
    floored,
    geometric_resampling,
    regularised_inverse,
    resampling_length,
    resampling_step,
)
from bandits.mdp.linear_features import LinearFeatures
from bandits.mdp.occupancy import Simulator
from bandits.mdp.pol_opt import PolOpt
from orbs import Philox
from tests.bandits.mdp.adversarial_bench import instance
from tests.bandits.mdp.reference_adversarial import Problem
from tests.bandits.mdp.test_log_barrier_ftrl import terms

H, S, A, D, R = 3, 4, 3, 2, 2


def model(seed=0, runs=R):
    rng = np.random.default_rng([41, seed])
    phi = rng.dirichlet(np.full(D, 0.5), (S, A))
    kernel = rng.dirichlet(np.full(S, 0.5), (H, S, A))
    start = rng.dirichlet(np.ones(S))
    policy = rng.dirichlet(np.full(A, 0.7), (runs, H, S))
    return phi, kernel, start, policy


def tensors(*arrays):
    return tuple(torch.as_tensor(array) for array in arrays)


def test_occupancies_and_covariances_by_loops():
    phi, kernel, start, policy = model()
    problem = Problem(phi, kernel, start)
    simulator, given = Simulator(*tensors(kernel, start), H), torch.as_tensor(policy)
    weights = simulator.weights(given)
    covariance = LinearFeatures(torch.as_tensor(phi), H, R).covariance(weights)
    for run in range(R):
        q = problem.occupancy(policy[run])
        np.testing.assert_allclose(simulator.occupancies(given)[run], q, atol=1e-14)
        np.testing.assert_allclose(weights[run].view(H, S, A), q[..., None] * policy[run], atol=1e-14)
        np.testing.assert_allclose(covariance[run], problem.covariance(policy[run], q), atol=1e-14)
    same = Simulator(torch.as_tensor(kernel[:1]), torch.as_tensor(start), H)
    every = Simulator(torch.as_tensor(np.stack([kernel[0]] * H)), torch.as_tensor(start), H)
    torch.testing.assert_close(same.weights(given), every.weights(given), rtol=0, atol=0)
    torch.testing.assert_close(
        same.dynamic(weights, given, 1.5), every.dynamic(weights, given, 1.5), rtol=0, atol=0
    )  # fmt: skip


def test_trajectories_by_loops():
    phi, kernel, start, policy = model(1)
    u = np.random.default_rng(1).uniform(size=(R, 5, 2 * H))
    found = Simulator(*tensors(kernel, start), H).simulate(*tensors(policy, u.reshape(R, -1)))
    problem = Problem(phi, kernel, start)
    for run in range(R):
        for m in range(5):
            path = problem.trajectory(policy[run], u[run, m])
            assert found[run, m].tolist() == [s * A + a for s, a in path]


def test_frequencies_are_those_of_the_occupancies():
    _, kernel, start, policy = model(2)
    simulator, given = Simulator(*tensors(kernel, start), H), torch.as_tensor(policy)
    count = 40_000
    u = torch.rand(R, 2 * H * count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, weights = simulator.frequencies(given, u), simulator.weights(given)
    torch.testing.assert_close(found.sum(-1), torch.ones(R, H, dtype=torch.float64))
    error = (found - weights) / (weights * (1 - weights) / count).sqrt().clamp_min(1e-9)
    assert error.abs().max() < 4.5
    assert error.abs().mean() > 0.4


@pytest.mark.parametrize("large", [False, True], ids=["table", "no table"])
@pytest.mark.parametrize("shape", [(), (H,), (R, H)], ids=["shared", "by step", "by run"])
def test_contractions_with_features(shape, large, monkeypatch):
    if large:
        monkeypatch.setattr(linear_features, "LARGEST_TABLE", 0)
    rng = np.random.default_rng(4)
    phi = rng.normal(size=(*shape, S, A, D))
    features = LinearFeatures(torch.as_tensor(phi), H, R)
    full = np.broadcast_to(phi, (R, H, S, A, D)).reshape(R, H, S * A, D)
    vector, weights = rng.normal(size=(R, H, D)), rng.uniform(size=(R, H, S * A))
    matrix, pairs = rng.normal(size=(R, H, D, D)), rng.integers(S * A, size=(R, 5, H))
    close = dict(rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        features.linear(torch.as_tensor(vector)), np.einsum("rhpi,rhi->rhp", full, vector), **close
    )
    covariance = np.einsum("rhp,rhpi,rhpj->rhij", weights, full, full)
    np.testing.assert_allclose(features.covariance(torch.as_tensor(weights)), covariance, **close)
    quadratic = np.einsum("rhpi,rhij,rhpj->rhp", full, matrix, full)
    np.testing.assert_allclose(features.quadratic(torch.as_tensor(matrix)), quadratic, **close)
    matrix = matrix + matrix.swapaxes(-1, -2)
    gram = np.einsum("rhpi,rhij,rhqj->rhpq", full, matrix, full)
    np.testing.assert_allclose(features.gram(torch.as_tensor(matrix)), gram, **close)
    rows, steps = np.arange(R)[:, None, None], np.arange(H)[None, None]
    assert np.array_equal(features.visited(torch.as_tensor(pairs)), full[rows, steps, pairs])
    assert np.array_equal(features.visited(torch.as_tensor(pairs[:, 0])), full[rows, steps, pairs][:, 0])
    assert features.bound == pytest.approx(np.linalg.norm(full, axis=-1).max())


def test_features_of_another_shape_are_refused():
    for shape in ((S, D), (H + 1, S, A, D), (R + 1, H, S, A, D), (S, 0, D)):
        with pytest.raises(ValueError, match=r"features: expected shape \(S, A, d\), .*got shape"):
            LinearFeatures(torch.zeros(shape), H, R)
    with pytest.raises(ValueError, match=r"features: expected finite numbers"):
        LinearFeatures(torch.full((S, A, D), torch.nan), H, R)


def test_the_regularised_inverse():
    matrix = torch.tensor([[0.5, 0.1], [0.1, 0.2]], dtype=torch.float64)
    kept = matrix.clone()
    found = regularised_inverse(matrix.expand(2, 3, 2, 2), 0.05)
    expected = np.linalg.inv(matrix.numpy() + 0.05 * np.eye(2))
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 3, 2, 2)), rtol=1e-13)
    assert torch.equal(matrix, kept)
    zero = regularised_inverse(torch.zeros(2, 2, dtype=torch.float64), 0.05)
    np.testing.assert_allclose(zero, 20 * np.eye(2), rtol=1e-13)


def test_resampling_has_the_closed_form_as_its_mean():
    """For a law of two features, all sequences of N = 4 trajectories, weighed: no noise."""
    phis = torch.tensor([[0.8, 0.1], [0.2, -0.6]], dtype=torch.float64)
    chances, gamma, length, c = torch.tensor([0.3, 0.7], dtype=torch.float64), 0.2, 4, 0.5
    number = torch.arange(2**length)
    paths = (number.unsqueeze(0) >> torch.arange(length).unsqueeze(-1)) & 1
    each = geometric_resampling(phis[paths], gamma)
    mean = (chances[paths].prod(0).view(-1, 1, 1) * each).sum(0)
    eye = torch.eye(2, dtype=torch.float64)
    lifted = gamma * eye + torch.einsum("p,pi,pj->ij", chances, phis, phis)
    expected = torch.linalg.inv(lifted) @ (eye - torch.linalg.matrix_power(eye - c * lifted, length + 1))
    torch.testing.assert_close(mean, expected, rtol=1e-13, atol=1e-13)
    assert (each - each.mT).abs().max() > 1e-3  # a chain is not symmetric
    # The bias that the closed form leaves.
    bias = torch.linalg.matrix_norm(torch.linalg.inv(lifted) - mean, 2)
    assert bias <= (1 - c * gamma) ** (length + 1) / gamma


@pytest.mark.parametrize("gamma", [0.02, 0.5])
def test_no_chain_is_longer_than_the_inverse_of_gamma(gamma):
    g = torch.Generator().manual_seed(3)
    met = torch.randn(200, 300, 3, dtype=torch.float64, generator=g)
    met /= met.norm(dim=-1, keepdim=True)
    met[:, :100] = met[:1, :100]  # the same feature over and over
    met[:, 0] = 0.0
    norms = torch.linalg.matrix_norm(geometric_resampling(met, gamma), 2)
    assert norms.max() <= 1 / gamma + 1e-9
    assert norms[0] > 0.8 / gamma  # and it is nearly reached


def test_the_step_and_the_length_of_chains():
    assert resampling_step(0.05) == 0.5
    assert resampling_step(0.05, 3.0) == pytest.approx(1 / 9.05)
    assert resampling_length(0.05) == 120  # ceil(40 ln 20)
    assert resampling_length(3.0) == 1
    long = geometric_resampling(torch.full((400, 1, 1), 3.0, dtype=torch.float64), 0.05, resampling_step(0.05, 3.0))
    assert long[0, 0, 0] == pytest.approx(1 / 9.05)


def test_negative_eigenvalues_are_floored():
    found = floored(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.full((1, 2, 2), 1.5, dtype=torch.float64))


def test_norms_are_taken_without_negative_eigenvalues(monkeypatch):
    """Chains hardly have any: one is put in."""
    phi, kernel, start, policy = model(3)
    odd = torch.tensor([[1.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    monkeypatch.setattr(inverse_covariance, "geometric_resampling", lambda met, *_: odd.expand(*met.shape[1:], 2))
    simulator, features = Simulator(*tensors(kernel, start), H), LinearFeatures(torch.as_tensor(phi), H, R)
    way = InverseCovariance("mgr", simulator, features, 0.3, Philox(1, range(R)), chains=2, length=3)
    mean, metric = way(torch.as_tensor(policy), 0)
    torch.testing.assert_close(mean, torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double().expand(R, H, 2, 2))
    torch.testing.assert_close(metric, torch.full((R, H, 2, 2), 1.5, dtype=torch.float64))
    given = [torch.as_tensor(kernel), torch.as_tensor(start), torch.as_tensor(phi), H]
    both = []
    for beta in (0.0, 0.2):
        learner = PolOpt(*given, Rates(0.1, beta, 0.3), covariance="mgr", chains=2, length=3, runs=R)
        learner.act()
        learner.observe(torch.as_tensor(policy), terms(torch.full((R, H), 5), torch.full((R, H), 0.4).double()))
        both.append(learner.cumulative.flatten(2))
    local = local_bonus(features.quadratic(metric), torch.as_tensor(policy), 0.2)
    expected = simulator.dynamic(local, torch.as_tensor(policy), 1 + 1 / H)
    torch.testing.assert_close(both[0] - both[1], expected, rtol=1e-9, atol=1e-9)


def test_estimates_through_one_interface():
    """Over many runs the mean of "mgr" is its closed form, and "direct" is nearer with more trajectories."""
    phi, kernel, start, policy = model(3, 1)
    gamma, runs, length = 0.3, 3000, 6
    simulator, features = Simulator(*tensors(kernel, start), H), LinearFeatures(torch.as_tensor(phi), H, runs)
    given = torch.as_tensor(policy).expand(runs, -1, -1, -1).contiguous()
    exact = InverseCovariance("exact", simulator, features, gamma, Philox(1, range(runs)))(given, 0)[0]
    mgr = InverseCovariance("mgr", simulator, features, gamma, Philox(1, range(runs)), chains=2, length=length)
    mean, metric = mgr(given, 0)
    assert torch.equal(mean, mean.mT.contiguous())
    assert torch.linalg.eigvalsh(metric).min() > -1e-12
    eye, lifted = torch.eye(D, dtype=torch.float64), torch.linalg.inv(exact[0])
    expected = exact[0] @ (eye - torch.linalg.matrix_power(eye - 0.5 * lifted, length + 1))
    error = (mean.mean(0) - expected) / (mean.std(0) / runs**0.5)
    assert error.abs().max() < 4.5
    assert not torch.equal(mgr(given, 1)[0], mean)


def test_direct_averaging_halves_its_error_with_four_times_the_trajectories():
    """Relative error in spectral norm, d = 4, gamma = 0.05: about 0.16, 0.05, 0.014 at 100, 1000, 10000."""
    runs, gamma, errors, relative = 60, 0.05, {}, {}
    for number in (0, 1):
        phi, kernel = instance(number)
        start = torch.nn.functional.one_hot(torch.tensor(0), 6).double()
        simulator, features = Simulator(kernel, start, 3), LinearFeatures(phi, 3, runs)
        policy = torch.full((runs, 3, 6, 4), 0.25, dtype=torch.float64)
        exact = InverseCovariance("exact", simulator, features, gamma, Philox(2, range(runs)))(policy, 0)[0]
        for count in (100, 400, 1600):
            way = InverseCovariance("direct", simulator, features, gamma, Philox(2, range(runs)), count)
            off = torch.linalg.matrix_norm(way(policy, 0)[0] - exact, 2)
            errors[number, count] = float(off.mean())
            relative[number, count] = float((off / torch.linalg.matrix_norm(exact, 2)).mean())
        for less, more in ((100, 400), (400, 1600)):
            assert errors[number, more] / errors[number, less] == pytest.approx(0.5, abs=0.08)
        assert 0.1 < relative[number, 100] < 0.25
