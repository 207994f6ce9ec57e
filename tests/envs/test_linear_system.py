"""The systems of the dynamical linear bandit: the spec's numbers, three ways to the steady rewards, bad input."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from envs.linear_system import SYSTEMS, LinearSystem, budget_actions, find_system

ORDER = [[0, 0.5, 1], [0, 1, 0.5], [0.5, 0, 1], [0.5, 1, 0], [1, 0, 0.5], [1, 0.5, 0]]
BOUNDS = {
    "synthetic": (0.2, 1.0, 1.00498756, 0.50990195, 0.45, 1.11803399),
    "advertising": (0.6668913423, 2.78121484, 0.62497999968, 0.430581003, 0.38560619, 1.11803399),
}
STEADY = {
    "synthetic": (0.361111, 0.555556, 0.392361, 0.78125, 0.618056, 0.8125),
    "advertising": (0.08797251, 0.01676284, 0.23188417, 0.08946483, 0.30458616, 0.23337649),
}
MYOPIC = {"synthetic": (0.35, 0.55, 0.1, 0.5, 0.05, 0.25), "advertising": (0.225, 0.42, 0.085, 0.475, 0.14, 0.335)}


@pytest.mark.parametrize("name", SYSTEMS)
def test_numbers_of_the_paper(name):
    system = find_system(name)
    np.testing.assert_allclose(list(system.bounds().values()), BOUNDS[name], rtol=1e-8)
    np.testing.assert_array_equal(system.actions, ORDER)
    np.testing.assert_allclose(system.actions @ system.steady, STEADY[name], atol=5e-7)
    np.testing.assert_allclose(system.actions @ system.theta, MYOPIC[name], atol=1e-12)
    assert system.noise == 0.01


def test_steady_weights():
    np.testing.assert_allclose(find_system("synthetic").steady, [0.5625, 0.5, 1 / 9], rtol=1e-14)
    steady = find_system("advertising").steady
    np.testing.assert_allclose(steady, [0.25152543, -0.03629789, 0.10612145], atol=5e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_three_ways_to_the_steady_weights(name):
    """The closed form, 200 Markov parameters and 10,000 rounds without noise."""
    system = find_system(name)
    np.testing.assert_allclose(system.markov_parameters(200).sum(0), system.steady, rtol=0, atol=1e-12)
    x = np.zeros((3, 3))  # a column an input held at 1
    for _ in range(10_000):
        x = system.A @ x + system.B
    np.testing.assert_allclose(system.omega @ x + system.theta, system.steady, rtol=0, atol=1e-12)


def test_markov_parameters():
    found = find_system("synthetic").markov_parameters(4)
    wanted = [[0, 0.5, 0.1], [0.45, 0, 0.01], [0.09, 0, 0.001], [0.018, 0, 0.0001]]
    np.testing.assert_allclose(found, wanted, atol=1e-15)


def test_the_expert():
    np.testing.assert_allclose(find_system("advertising").expert, [0.00314269, 0.49685731, 1.0], atol=5e-9)
    assert find_system("advertising").expert @ find_system("advertising").steady == pytest.approx(0.08887705, abs=5e-9)
    assert find_system("synthetic").expert is None


def test_vertices_of_a_budget():
    np.testing.assert_array_equal(budget_actions(3, 1.5), ORDER)
    np.testing.assert_array_equal(budget_actions(2, 1.0), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(budget_actions(2, 5.0, 0.5, 2.0), [[2, 2]])
    found = budget_actions(3, 1.5, 0.25, 1.0)
    np.testing.assert_array_equal(found, sorted(itertools.permutations((0.25, 0.25, 1.0)))[::2])
    with pytest.raises(ValueError, match=r"budget: expected one that buys the least .*got 1.5"):
        budget_actions(3, 1.5, 0.6)


def small(**changes):
    given = dict(A=[[0.5]], B=[[1.0]], C=[[1.0]], D=[[0.0]], actions=[[0.0], [1.0]])
    return LinearSystem(**{**given, **changes})


def test_transient_growth():
    assert small().transient == 1.0
    shear = small(A=[[0.5, 3.0], [0.0, 0.5]], B=[[0.0], [1.0]], C=[[1.0, 0.0]])
    powers = [np.linalg.norm(np.linalg.matrix_power(shear.A, k), 2) / 0.5**k for k in range(1, 1001)]
    assert shear.transient == pytest.approx(max(powers), rel=1e-9)
    nilpotent = small(A=[[0.0, 3.0], [0.0, 0.0]], B=[[0.0], [1.0]], C=[[1.0, 0.0]])
    assert (nilpotent.spectral_radius, nilpotent.transient) == (0.0, 3.0)
    assert small(A=[[0.0]]).transient == 1.0
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = small(A=turn.T @ [[0, 3, 1], [0, 0, 3], [0, 0, 0]] @ turn, B=[[0.0]] * 3, C=[[0.0] * 3])
    assert turned.spectral_radius == 0.0  # eigenvalues are computed as some 1e-5
    assert turned.transient == pytest.approx(np.linalg.norm(np.linalg.matrix_power(turned.A, 2), 2), rel=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_periodic_actions_are_no_better_than_a_constant_one(name):
    """Every sequence of period up to 4 of three actions, its exact long-run mean."""
    system = find_system(name)
    some = system.actions[[1, 3, 5]] if name == "synthetic" else system.actions[[2, 3, 4]]
    best = (some @ system.steady).max()
    eye = np.eye(3)
    for period in range(1, 5):
        for chosen in itertools.product(some, repeat=period):
            # The state at the start of a period is a fixed point of going once through it.
            power, pushed = eye, np.zeros(3)
            for u in chosen:
                power, pushed = system.A @ power, system.A @ pushed + system.B @ u
            x = np.linalg.solve(eye - power, pushed)
            total = 0.0
            for u in chosen:
                total += system.omega @ x + system.theta @ u
                x = system.A @ x + system.B @ u
            assert total / period <= best + 1e-12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"A": [[1.0]]}, r"system.A: expected a stable system, spectral radius below 1, got 1\. Fix"),
        ({"A": [[0.0, 2.0], [-2.0, 0.0]], "B": [[1.0], [0.0]], "C": [[1.0, 0.0]]}, r"system.A: expected a stable"),
        ({"A": [[0.5, 0.1]]}, r"system.A: expected shape \(1, 1\), got shape \(1, 2\)"),
        ({"B": [[1.0], [2.0]]}, r"system.B: expected shape \(1, 1\), got shape \(2, 1\)"),
        ({"C": [[1.0, 2.0]]}, r"system.C: expected shape \(1, 1\)"),
        ({"D": [[0.0], [1.0]]}, r"system.D: expected shape \(1, 1\)"),
        ({"A": [[float("nan")]]}, r"system.A: expected a matrix of finite numbers"),
        ({"A": 3.0}, r"system.A: expected a matrix"),
        ({"A": "much"}, r"system.A: expected a matrix of numbers"),
        ({"actions": np.zeros((0, 1))}, r"system.actions: expected a matrix"),
        ({"actions": [[1.0, 2.0]]}, r"system.actions: expected rows of 1 numbers"),
        ({"noise": -0.1}, r"system.noise: expected a finite number of at least 0, got -0.1"),
        ({"noise": float("inf")}, r"system.noise: expected a finite number"),
        ({"expert": [1.0, 2.0]}, r"system.expert: expected 1 finite numbers"),
    ],
)  # fmt: skip
def test_bad_systems(changes, said):
    with pytest.raises(ValueError, match=said):
        small(**changes)


def test_bad_files(tmp_path):
    path = tmp_path / "mine.json"
    with pytest.raises(ValueError, match=r"system: expected one of synthetic, advertising, or a JSON file, got .*mine"):
        find_system(str(path))
    path.write_text("{")
    with pytest.raises(ValueError, match=r"system: expected a JSON file, got .*mine.json"):
        find_system(str(path))
    path.write_text('{"A": [[0.5]]}')
    with pytest.raises(ValueError, match=r"system: expected the keys A, B, .*without B, C, D, max_daily_budget"):
        find_system(str(path))
    whole = dict(
        A=[[0.5]], B=[[1.0]], C=[[1.0]], D=[[0.0]], max_daily_budget=0.5, max_camp_budget=1.0, min_camp_budget=0.0,
        noise_sigma=0.2, expert=[3.0],
    )  # fmt: skip
    for key, value, said in (
        ("noise_sigma", "abc", r"system.noise_sigma: expected a number, got 'abc'"),
        ("max_camp_budget", None, r"system.max_camp_budget: expected a number, got None"),
        ("expert", ["a"], r"system.expert: expected a matrix of numbers"),
    ):
        path.write_text(json.dumps({**whole, key: value}))
        with pytest.raises(ValueError, match=said):
            find_system(str(path))
    path.write_text(json.dumps(whole))
    system = find_system(str(path))
    assert (system.name, system.noise, system.actions.tolist()) == ("mine", 0.2, [[0.5]])
    np.testing.assert_allclose(system.expert, [0.5])


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("synthetic", "testcase_synt_sigma0dot01"),
        ("synthetic", "testcase_synt_sigma0dot001"),
        ("synthetic", "testcase_synt_sigma0dot1"),
        ("advertising", "testcase_realdata"),
    ],
)
def test_the_original_configurations(shared_data, name, file):
    ours, theirs = find_system(name), find_system(str(shared_data / "dlb" / f"{file}.json"))
    for field in ("A", "B", "C", "D", "actions"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    assert theirs.noise == {"testcase_synt_sigma0dot001": 0.001, "testcase_synt_sigma0dot1": 0.1}.get(file, 0.01)
    if name == "advertising":
        np.testing.assert_array_equal(ours.expert, theirs.expert)
    else:
        assert ours.expert is None
        assert theirs.expert is None
