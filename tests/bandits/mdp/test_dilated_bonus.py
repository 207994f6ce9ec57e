"""Dilated bonuses: the recursion, its three ways, the lemma's telescoping identity, its bounds."""

import numpy as np
import pytest
import torch

from bandits.mdp.dilated_bonus import DilatedBonus, bonus_to_go, dilate_by_draws, local_bonus, regressed_bonus
from bandits.mdp.inverse_covariance import regularised_inverse
from bandits.mdp.linear_features import LinearFeatures
from bandits.mdp.occupancy import Simulator
from orbs import Philox

H, S, A, D = 3, 4, 3, 3


def model(seed, steps=H):
    """Simulator, features, policy (1, H, S, A), all random."""
    rng = np.random.default_rng([31, seed])
    phi = rng.dirichlet(np.full(D, 0.5), (S, A))
    kernel = np.einsum("sai,hit->hsat", phi, rng.dirichlet(np.full(S, 0.6), (steps, D)))
    start = rng.dirichlet(np.ones(S))
    policy = torch.as_tensor(rng.dirichlet(np.full(A, 0.7), (1, steps, S)))
    return Simulator(torch.as_tensor(kernel), torch.as_tensor(start), steps), torch.as_tensor(phi), policy


def plain(local, policy, kernel, factor):
    """(H, S, A) by loops."""
    found, steps = np.asarray(local).copy(), len(local)
    for h in range(steps - 2, -1, -1):
        for s in range(S):
            for a in range(A):
                found[h, s, a] += factor * sum(
                    kernel[h, s, a, t] * policy[h + 1, t, j] * found[h + 1, t, j] for t in range(S) for j in range(A)
                )
    return found


def kernel_of(simulator):
    return np.stack([np.asarray(law) for law in simulator._laws]).reshape(-1, S, A, S)


@pytest.mark.parametrize("factor", [1.0, 1.0 + 1.0 / H], ids=["value", "dilated"])
def test_the_exact_recursion(factor):
    """With factor 1 it is the Q function of a policy that pays b."""
    simulator, _, policy = model(0)
    local = torch.rand(1, H, S * A, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = local.clone()
    found = simulator.dynamic(local, policy, factor)
    expected = plain(local.view(H, S, A), policy[0].numpy(), kernel_of(simulator), factor)
    np.testing.assert_allclose(found.view(H, S, A), expected, rtol=1e-13)
    assert torch.equal(local, kept)
    if factor == 1.0:
        paid = (simulator.weights(policy) * local).sum()
        at_start = (found.view(1, H, S, A)[:, 0] * policy[:, 0]).sum(-1) @ simulator.start
        torch.testing.assert_close(at_start[0], paid, rtol=1e-13, atol=0)
    chosen = DilatedBonus("exact", simulator, Philox(0, [0]))
    torch.testing.assert_close(chosen(local, policy, 0), simulator.dynamic(local, policy, 4 / 3), rtol=0, atol=0)


def test_draws_are_unbiased():
    simulator, _, policy = model(1)
    runs = 20_000
    local = torch.rand(1, H, S * A, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    many = DilatedBonus("sample", simulator, Philox(3, range(runs)))
    found = many(local.expand(runs, -1, -1), policy.expand(runs, -1, -1, -1), 0)
    exact = simulator.dynamic(local, policy, 1 + 1 / H)[0]
    error = (found.mean(0) - exact) / (found.std(0) / runs**0.5).clamp_min(1e-12)
    assert torch.equal(found[:, -1], local[:, -1].expand(runs, -1))
    assert error[:-1].abs().max() < 4.5
    assert 0.7 < error[:-1].pow(2).mean().sqrt() < 1.4
    assert found[:, 0].std(0).min() > 0.05
    # Other episodes, other draws.
    one = DilatedBonus("sample", simulator, Philox(3, [0, 1]))
    first, second = (one(local.expand(2, -1, -1), policy.expand(2, -1, -1, -1), k) for k in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, found[:2])


def test_one_draw_serves_all_that_reach_a_pair():
    local = torch.arange(1.0, 13.0, dtype=torch.float64).view(1, 3, 4)
    successors = torch.tensor([[[1, 1, 0, 3], [2, 2, 2, 0]]])
    found = dilate_by_draws(local, successors, 2.0)
    last = [9.0, 10.0, 11.0, 12.0]
    middle = [5 + 22, 6 + 22, 7 + 22, 8 + 18]
    first = [1 + 2 * middle[1], 2 + 2 * middle[1], 3 + 2 * middle[0], 4 + 2 * middle[3]]
    assert found[0].tolist() == [first, middle, last]


@pytest.mark.parametrize("seed", range(10))
def test_the_bounds(seed):
    simulator, phi, policy = model(seed)
    features, gamma, beta = LinearFeatures(phi, H, 1), 0.03, 0.2
    weights = simulator.weights(policy)
    inverse = regularised_inverse(features.covariance(weights), gamma)
    norms = features.quadratic(inverse)
    local = local_bonus(norms, policy, beta)
    table = norms.view(1, H, S, A)
    by_hand = beta * (table + (policy * table).sum(-1, keepdim=True))
    torch.testing.assert_close(local, by_hand.flatten(2), rtol=1e-13, atol=0)
    assert norms.max() <= 1 / gamma
    assert local.max() <= 2 * beta / gamma
    found = simulator.dynamic(local, policy, 1 + 1 / H)
    assert found.max() <= 6 * H * beta / gamma
    # With exact covariances E|phi|^2 = tr (gamma I + Sigma)^{-1} Sigma <= d, twice, in each step.
    assert (weights * local).sum() <= 2 * beta * D * H
    # (1 + 1/H)^H <= 3 is what bounds B by V(b).
    at_start = (found.view(1, H, S, A)[:, 0] * policy[:, 0]).sum(-1) @ simulator.start
    assert at_start[0] <= 3 * (weights * local).sum()


def test_the_telescoping_identity_of_the_lemma():
    """sum_h E_q*[(1 + 1/H) E_pi B - E_pi* B + E_pi* b] = (1 + 1/H) E_pi B_0 at the start, for any pi*."""
    for seed in range(50):
        steps = 1 + seed % 5
        simulator, _, policy = model(seed, steps)
        rng = np.random.default_rng([32, seed])
        other = torch.as_tensor(rng.dirichlet(np.ones(A), (1, steps, S)))
        local = torch.as_tensor(rng.exponential(size=(1, steps, S * A)))
        found = DilatedBonus("exact", simulator, Philox(0, [0]))(local, policy, 0)
        shape, factor = (1, steps, S, A), 1 + 1 / steps
        states, b, big = simulator.occupancies(other), local.view(shape), found.view(shape)
        inner = factor * (policy * big).sum(-1) - (other * big).sum(-1) + (other * b).sum(-1)
        left, right = (states * inner).sum(), factor * (states[:, 0] * (policy * big).sum(-1)[:, 0]).sum()
        torch.testing.assert_close(left, right, rtol=1e-12, atol=0)


def test_bonus_to_go_by_loops():
    local = np.random.default_rng(5).uniform(size=(2, 3, 4))
    found = bonus_to_go(torch.as_tensor(local), 1.25)
    for r in range(2):
        for w in range(3):
            for h in range(4):
                expected = sum(1.25 ** (i - h) * local[r, w, i] for i in range(h + 1, 4))
                assert abs(found[r, w, h] - expected) < 1e-13


@pytest.mark.parametrize("gamma", [1e-9, 0.05])
def test_regressed_bonuses_match_the_recursion(gamma):
    """phi^T E[Lambda] = (1 + 1/H) E[B_next] as gamma vanishes, and its shrunk projection else: in a linear MDP."""
    simulator, phi, policy = model(4)
    episodes, factor = 60_000, 1 + 1 / H
    features = LinearFeatures(phi, H, 1)
    local = torch.rand(1, H, S * A, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    exact = simulator.dynamic(local, policy, factor)
    u = torch.rand(1, 2 * H * episodes, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    pairs = simulator.simulate(policy, u)
    sigma = features.covariance(simulator.weights(policy))
    inverse = regularised_inverse(sigma, gamma)
    share = torch.full((1, episodes), 1.0 / episodes, dtype=torch.float64)
    found = regressed_bonus(local, pairs, share, inverse, features, factor)
    # The linear weights of what is to come, exactly.
    to_come = (exact - local)[0]
    weights = torch.linalg.lstsq(features.table.expand(H, -1, -1), to_come.unsqueeze(-1)).solution
    torch.testing.assert_close((features.table @ weights)[..., 0], to_come, rtol=0, atol=1e-10)
    expected = local + features.linear((inverse @ sigma @ weights)[..., 0])
    # One regression's noise, from the spread of phi D.
    along = local.gather(2, pairs.transpose(1, 2)).transpose(1, 2)
    noise = features.visited(pairs) * bonus_to_go(along, factor).unsqueeze(-1)
    spread = torch.stack([torch.cov(noise[0, :, h].mT) / episodes for h in range(H)])
    error = features.quadratic(inverse @ spread.unsqueeze(0) @ inverse).sqrt()
    assert ((found - expected).abs() <= 4.5 * error + 1e-12).all()
    assert error[:, :-1].max() < 0.2
    assert torch.equal(found[:, -1], local[:, -1])


def test_what_is_no_model_is_refused():
    simulator, _, _ = model(0)
    kernel, start = torch.as_tensor(kernel_of(simulator)), simulator.start
    for changed, at, said in (
        (kernel[0], start, r"kernel: expected shape \(3 or 1, S, A, S\), got shape \(4, 3, 4\)"),
        (kernel[:2], start, r"kernel: expected shape \(3 or 1, S, A, S\)"),
        (2 * kernel, start, r"kernel: expected chances, at least 0 with sum 1"),
        (kernel, start[:-1], r"start: expected shape \(4,\), got shape \(3,\)"),
        (kernel, -start, r"start: expected chances"),
    ):
        with pytest.raises(ValueError, match=said):
            Simulator(changed, at, H)
