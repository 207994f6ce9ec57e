"""Ridge regression over fixed arms: against numpy's solve, over long runs, with each form of the state."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from bandits.linear.cholesky import factor, log_determinant, solve_lower, solve_upper
from bandits.linear.ridge import FixedArmRidge, first_best

FORMS = pytest.mark.parametrize("score_space", [True, False])


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def history(arms, runs, rounds, seed=1):
    chosen = torch.randint(arms, (rounds, runs), generator=torch.Generator().manual_seed(seed))
    return chosen, normals(rounds, runs, seed=seed + 1)


def direct(features, lam, arms, rewards):
    """theta, V, means and squared widths of one run, by numpy."""
    u = features.numpy()
    x = u[arms.numpy()]
    v = lam * np.eye(u.shape[1]) + x.T @ x
    theta = np.linalg.solve(v, x.T @ rewards.numpy())
    return theta, v, u @ theta, np.einsum("kd,de,ke->k", u, np.linalg.inv(v), u)


@FORMS
@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize(("arms", "d"), [(1, 1), (4, 3), (12, 2)])
@pytest.mark.parametrize("rounds", [1, 15, 16, 17, 63, 64, 200])
def test_all_is_that_of_a_direct_solve(score_space, per_run, arms, d, rounds):
    runs, lam = 3, 0.7
    features = normals(runs, arms, d) if per_run else normals(arms, d)
    ridge = FixedArmRidge(features, lam, runs, rebuild=64, score_space=score_space)
    chosen, rewards = history(arms, runs, rounds)
    for arm, reward in zip(chosen, rewards, strict=True):
        ridge.add(arm, reward)
    assert ridge.rounds == rounds
    for run in range(runs):
        own = features[run] if per_run else features
        theta, v, means, squares = direct(own, lam, chosen[:, run], rewards[:, run])
        np.testing.assert_allclose(ridge.theta()[run], theta, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ridge.precision()[run], v, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(ridge.means[run], means, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ridge.widths2[run], squares, rtol=1e-10)
        volume = np.linalg.slogdet(v)[1] - d * np.log(lam)
        np.testing.assert_allclose(ridge.log_volume[run], volume, rtol=1e-11, atol=1e-12)
        np.testing.assert_array_equal(ridge.plays[run], np.bincount(chosen[:, run], minlength=arms))
        sums = np.bincount(chosen[:, run], rewards[:, run], minlength=arms)
        np.testing.assert_allclose(ridge.sums[run], sums, atol=1e-13)


def test_the_smaller_form_is_chosen():
    """K^2 against d^2 + K d."""
    chosen = {
        (k, d): FixedArmRidge(normals(k, d), 1.0, 1).score_space for k, d in ((10, 10), (20, 5), (5, 2), (16, 10))
    }
    assert chosen == {(10, 10): True, (20, 5): False, (5, 2): False, (16, 10): True}


@FORMS
def test_a_loaded_state_goes_on_to_the_same_bits(score_space):
    features, (chosen, rewards) = normals(4, 3), history(4, 2, 90)
    straight, first, second = (FixedArmRidge(features, 1.0, 2, rebuild=40, score_space=score_space) for _ in range(3))
    for t in range(90):
        straight.add(chosen[t], rewards[t])
        (first if t < 33 else second).add(chosen[t], rewards[t])
        if t == 32:
            for name, tensor in second.tensors().items():
                assert len(tensor) == 2
                tensor.copy_(first.tensors()[name])
            second.loaded(first.rounds)
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


@FORMS
def test_reset_forgets(score_space):
    features, (chosen, rewards) = normals(4, 3), history(4, 2, 30)
    used, fresh = (FixedArmRidge(features, 0.5, 2, score_space=score_space) for _ in range(2))
    for arm, reward in zip(chosen, rewards, strict=True):
        used.add(arm, reward)
    used.reset()
    assert used.rounds == 0
    for name, tensor in fresh.tensors().items():
        assert torch.equal(tensor, used.tensors()[name]), name


def dominated(d, arms, rounds, score_space, rebuild=100):
    """Largest relative error of a width, and absolute error of a mean, while arm 0 is played nearly always."""
    features = normals(arms, d, seed=5)
    features /= features.norm(dim=-1, keepdim=True)
    ridge = FixedArmRidge(features, 1.0, 1, rebuild=rebuild, score_space=score_space)
    first, checks = torch.zeros(1, dtype=torch.int64), {rounds // 10 - 2, rounds // 2 - 1, rounds - 2}
    others = [torch.full((1,), k) for k in range(arms)]
    rewards = [torch.full((1,), 1.0 + 0.3 * (i - 3), dtype=torch.float64) for i in range(7)]
    worst = error = 0.0
    for t in range(rounds):
        ridge.add(others[t % arms] if t < 3 * arms or t % 10_007 == 0 else first, rewards[t % 7])
        if t in checks:
            lower = torch.linalg.cholesky(ridge.precision().contiguous()[0])
            half = torch.linalg.solve_triangular(lower, features.mT, upper=False)
            worst = max(worst, float((ridge.widths2[0].sqrt() / half.square().sum(0).sqrt() - 1).abs().max()))
            error = max(error, float((ridge.means[0] - features @ ridge.theta()[0]).abs().max()))
    return worst, error


@FORMS
def test_widths_while_one_arm_dominates(score_space):
    worst, error = dominated(3, 6, 4000, score_space)
    assert worst < 1e-12
    assert error < 1e-11


@pytest.mark.proof
def test_widths_after_many_rounds_of_which_one_arm_dominates():
    worst, error = dominated(10, 10, 250_000, None)
    assert worst < 1e-10
    assert error < 1e-9


def exact_widths(features, plays, lam):
    """sqrt(u^T V^-1 u) by elimination in rational numbers."""
    rows = [[Fraction(value) for value in row] for row in features.tolist()]
    d, found = len(rows[0]), []
    for u in rows:
        matrix = [
            [sum(int(n) * x[i] * x[j] for x, n in zip(rows, plays, strict=True)) + (Fraction(lam) if i == j else 0)
             for j in range(d)] + [u[i]]
            for i in range(d)
        ]  # fmt: skip
        for i in range(d):
            for k in range(i + 1, d):
                share = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - share * b for a, b in zip(matrix[k], matrix[i], strict=True)]
        solved = [Fraction(0)] * d
        for i in reversed(range(d)):
            solved[i] = (matrix[i][d] - sum(matrix[i][j] * solved[j] for j in range(i + 1, d))) / matrix[i][i]
        found.append(math.sqrt(sum(a * b for a, b in zip(u, solved, strict=True))))
    return found


@FORMS
@pytest.mark.parametrize("d", [3, 10])
def test_widths_at_a_million_rounds_are_exact(score_space, d):
    """The counts of 10^6 rounds, all but a few of one arm, then rounds up to the next rebuild; against fractions."""
    features = normals(10, d, seed=5)
    features /= features.norm(dim=-1, keepdim=True)
    ridge = FixedArmRidge(features, 1.0, 1, score_space=score_space)
    ridge.tensors()["plays"].copy_(torch.tensor([[999_800.0] + [3.0] * 9]))
    ridge.loaded(999_899)
    for t in range(100):  # the first one rebuilds
        ridge.add(torch.tensor([0 if t % 7 else t % 10]), torch.ones(1, dtype=torch.float64))
    assert ridge.rounds == 999_999
    wanted = exact_widths(features, ridge.plays[0].tolist(), 1.0)
    np.testing.assert_allclose(ridge.widths2[0].sqrt().numpy(), wanted, rtol=1e-9)


def test_a_hardly_regularised_start_keeps_its_digits():
    features, lam = normals(3, 3), 1e-11
    ridge = FixedArmRidge(features, lam, 1)
    chosen, rewards = torch.arange(3).repeat(3).unsqueeze(1), normals(9, 1)
    for arm, reward in zip(chosen, rewards, strict=True):
        ridge.add(arm, reward)
    *_, means, squares = direct(features, lam, chosen[:, 0], rewards[:, 0])
    np.testing.assert_allclose(ridge.widths2[0], squares, rtol=1e-8)
    np.testing.assert_allclose(ridge.means[0], means, atol=1e-6)


def test_the_first_of_the_best():
    score = torch.tensor(
        [[1.0, 2.0, 2.0], [2.0, 2.0 + 1e-11, 1.0], [2.0, 2.0 + 1e-9, 1.0], [-1e6, -2e6, -1e6 + 1e-5], [0.0, 0.5, 3.0]],
        dtype=torch.float64,
    )
    assert first_best(score).tolist() == [1, 0, 1, 0, 2]
    assert first_best(torch.zeros(2, 1, dtype=torch.float64)).tolist() == [0, 0]


def test_factors_of_many_matrices():
    a = normals(4, 5, 5)
    matrices = a @ a.mT + torch.eye(5)
    lower = factor(matrices.permute(1, 2, 0).contiguous())
    known = torch.linalg.cholesky(matrices)
    torch.testing.assert_close(lower.permute(2, 0, 1).tril(), known, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(log_determinant(lower), torch.linalg.slogdet(matrices)[1], rtol=1e-12, atol=0)
    right = normals(4, 5, 2, seed=3)
    for solve, matrix in ((solve_lower, known), (solve_upper, known.mT)):
        solved = solve(lower, right.permute(1, 2, 0).contiguous()).permute(2, 0, 1)
        torch.testing.assert_close(matrix @ solved, right, rtol=1e-11, atol=1e-12)


def test_bad_arguments_are_named():
    for features, words in (
        (torch.zeros(3), r"features: expected shape \(K, d\) or \(2, K, d\), got shape \(3,\)"),
        (torch.zeros(3, 4, 2), r"features: expected shape .* got shape \(3, 4, 2\)"),
        (torch.full((3, 2), torch.nan), r"features: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            FixedArmRidge(features, 1.0, 2)
    with pytest.raises(ValueError, match=r"lam: expected a finite number above 0, got 0"):
        FixedArmRidge(torch.ones(3, 2), 0.0, 2)
    with pytest.raises(ValueError, match=r"rebuild: expected at least 1 round, got 0"):
        FixedArmRidge(torch.ones(3, 2), 1.0, 2, rebuild=0)
