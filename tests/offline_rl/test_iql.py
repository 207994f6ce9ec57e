"""IQL against hand values, a second implementation, its limits (mean regression, expectiles, BC) and a two-step toy."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from offline_rl import BC, IQL
from offline_rl.iql import (
    advantage_weight,
    block_returns,
    cosine_rate,
    episode_returns,
    expectile_loss,
    gaussian_log_prob,
    squared_error,
)
from offline_rl.networks import orthogonal_mlp
from orbs import Philox, Transitions
from tests.offline_rl.reference import make_data, moved, snapshot
from tests.offline_rl.reference_iql import ReferenceIQL, corl_blocks, true_episodes

F64 = torch.float64
SMALL = {"runs": 2, "dtype": F64, "hidden": (16, 12), "batch_size": 20, "learning_rate": 3e-3}
CORL = {
    "normalise_obs": True,
    "update_order": "actor_last",
    "critic_reduction": "mean",
    "initialisation": "uniform",
    "log_std_min": -20.0,
    "clip_data_actions": False,
}


# Losses by hand


def test_expectile_loss_by_hand():
    """u = 2, -1, 0, -3 at tau 0.7: (0.7 * 4 + 0.3 * 1 + 0 + 0.3 * 9) / 4; a second run apart from it."""
    u = torch.tensor([[2.0, -1.0, 0.0, -3.0], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(expectile_loss(u, 0.7), torch.tensor([5.8 / 4, 0.7]))
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u.square().mean(1))


def test_advantage_weight_by_hand():
    """exp(3 A) up to 100; A = 1e6 is the cap and no overflow; beta = 0 is 1 everywhere."""
    found = advantage_weight(torch.tensor([[0.0, 0.5, -1.0, 2.0, 1e6, -1e6]]), 3.0, 100.0)
    expected = torch.tensor([[1.0, math.exp(1.5), math.exp(-3.0), 100.0, 100.0, 0.0]])
    torch.testing.assert_close(found, expected)
    assert advantage_weight(torch.tensor([[1e6, -1e6]]), 0.0, 100.0).tolist() == [[1.0, 1.0]]


def test_gaussian_log_prob_and_squared_error_by_hand():
    """One run, one row, d = 2: means (0, 0.5), stds (1, 2), action (1, 0.5): -1/2 - log 2 - log 2 pi."""
    mean, action = torch.tensor([[[0.0, 0.5]]]), torch.tensor([[[1.0, 0.5]]])
    found = gaussian_log_prob(mean, torch.tensor([[[0.0, math.log(2.0)]]]), action)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(-0.5 - math.log(2.0) - math.log(2 * math.pi), rel=1e-6)
    assert squared_error(mean, action - 0.25).item() == pytest.approx(0.75**2 + 0.25**2)


def test_gradients_of_the_losses():
    draw = torch.Generator().manual_seed(0)
    u, a = (torch.randn(2, 7, dtype=F64, generator=draw, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: expectile_loss(x, 0.8), (u,))
    assert torch.autograd.gradcheck(lambda x: advantage_weight(0.1 * x, 3.0, 100.0), (a,))
    mean, action = (torch.randn(2, 5, 3, dtype=F64, generator=draw, requires_grad=True) for _ in range(2))
    log_std = torch.randn(2, 1, 3, dtype=F64, generator=draw, requires_grad=True)
    assert torch.autograd.gradcheck(gaussian_log_prob, (mean, log_std, action))
    assert torch.autograd.gradcheck(squared_error, (mean, action))


def test_cosine_rate_by_hand():
    """Full at first, half in the middle, 0 at the end and after it."""
    found = [cosine_rate(2.0, done, 100) for done in (0, 25, 50, 100, 1000)]
    assert found == pytest.approx([2.0, 1 + math.cos(math.pi / 4), 1.0, 0.0, 0.0])
    assert cosine_rate(2.0, 10**9, None) == 2.0


# The data as they are used


def chained(rows=2300, cut=7):
    """Rows whose s' is the next s except after every `cut`-th one; few terminals; real returns."""
    rng = np.random.default_rng(3)
    path = rng.normal(size=(rows + 1, 3))
    next_obs = path[1:].copy()
    next_obs[cut - 1 :: cut] += 0.5
    terminal = np.zeros(rows)
    terminal[[row for row in (4, 1500, 1501) if row < rows]] = 1
    action, reward = rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)
    return Transitions(path[:-1], action, reward, next_obs, terminal)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 8, 1000, 1502, 2300, 2501, 2502])
def test_returns_equal_those_of_a_loop_over_rows(rows, monkeypatch):
    monkeypatch.setattr("offline_rl.iql.ROW_BLOCK", 100)
    data = chained(2600).select(np.arange(rows))
    np.testing.assert_allclose(episode_returns(data), true_episodes(data), atol=1e-9)
    np.testing.assert_allclose(block_returns(data), corl_blocks(data), atol=1e-9)


def test_returns_by_hand():
    """Episodes (1 + 2), (4), (8 + 16), (32): the terminal cuts, and so does a jump, of 1e-5 too; 5e-7 does not."""
    obs, next_obs = np.array([[0.0], [1], [2], [5], [6], [7]]), np.array([[1 + 5e-7], [9], [3], [6], [7 + 1e-5], [8]])
    data = Transitions(obs, np.zeros((6, 1)), [1, 2, 4, 8, 16, 32], next_obs, [0, 1, 0, 0, 0, 0])
    assert 1 < data.next_obs[0, 0] < 1 + 1e-6  # not rounded away
    assert episode_returns(data).tolist() == [3, 4, 24, 32]
    assert block_returns(data).tolist() == [3]
    learner = IQL.for_dataset(data, reward_normaliser="episodes", reward_shift=-1.0, hidden=(4,))
    np.testing.assert_allclose(learner._data[:, 2], np.array([1, 2, 4, 8, 16, 32]) * 1000 / 29 - 1, rtol=1e-6)


def test_other_data_on_a_trained_learner_are_scaled_by_their_own_returns():
    """And the warning says so (test_contract.py): V and the critics meet rewards of another scale."""
    data = chained(40)
    learner = IQL.for_dataset(data, reward_normaliser="episodes", hidden=(4,), batch_size=4)
    old = learner.reward_factor
    learner.update(1)
    with pytest.warns(UserWarning, match="rewards are scaled follow from the new data"):
        learner.attach(dataclasses.replace(data, reward=10 * data.reward))
    assert learner.reward_factor == pytest.approx(old / 10, rel=1e-6)


def test_returns_without_a_range_are_refused():
    data = dataclasses.replace(chained(20), reward=np.zeros(20))
    for kind in ("episodes", "blocks"):
        with pytest.raises(ValueError, match=r"iql\.reward_normaliser: expected .* Fix: "):
            IQL.for_dataset(data, reward_normaliser=kind, hidden=(4,))
    with pytest.raises(ValueError, match="0 of them"):
        IQL.for_dataset(chained(4), reward_normaliser="blocks", hidden=(4,))


def test_data_actions_are_clipped_inside_their_box():
    """To 1 - 1e-5 of the half range around the centre of [-1, 3]; raw by request."""
    data = dataclasses.replace(make_data(action_dim=1), action_low=-1.0, action_high=3.0)
    data = dataclasses.replace(data, action=np.linspace(-1, 3, len(data))[:, None])
    clipped, raw = (IQL.for_dataset(data, clip_data_actions=on, dtype=F64, hidden=(4,)) for on in (True, False))
    np.testing.assert_allclose(clipped._data[[0, -1], 3], [-1 + 2e-5, 3 - 2e-5], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(raw._data[:, 3], data.action[:, 0])
    np.testing.assert_array_equal(clipped._data[1:-1, 3], data.action[1:-1, 0])


def test_orthogonal_weights():
    """W^T W (or W W^T) is 2 I for every member and layer; biases 0; no preferred sign; float32 is the rounding."""
    philox = Philox(0, range(40))
    weights = orthogonal_mlp(philox, "x", (3, 8, 8, 1), members=2, dtype=F64)
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        assert len(W) == 80
        gram = W @ W.mT if W.shape[1] < W.shape[2] else W.mT @ W
        torch.testing.assert_close(gram, 2 * torch.eye(gram.shape[1], dtype=F64).expand_as(gram))
        assert not b.any()
        assert (torch.diagonal(W, dim1=1, dim2=2) > 0).double().mean().item() == pytest.approx(0.5, abs=0.2)
        assert W.requires_grad
    single = orthogonal_mlp(philox, "x", (3, 8, 8, 1), members=2)
    assert all(torch.equal(a.float(), b) for a, b in zip(weights, single, strict=True))


@pytest.mark.parametrize("initialisation", ["orthogonal", "uniform"])
def test_the_twin_critics_start_apart_and_their_targets_as_copies(initialisation):
    state = IQL(3, 2, runs=2, hidden=(16, 12), initialisation=initialisation).state_dict()
    for layer in range(6):
        online = state[f"critic.online.{layer}"]
        assert online.shape[0] == 4
        assert torch.equal(online, state[f"critic.target.{layer}"])
        if layer % 2 == 0 or initialisation == "uniform":  # orthogonal biases are all 0
            assert not any(torch.equal(online[i], online[j]) for i, j in itertools.combinations(range(4), 2))


# Whole updates against the second implementation

CASES = {
    "default": ({}, {}),
    "CORL": ({}, CORL),
    "CORL, deterministic, rewards by blocks": ({}, {**CORL, "policy": "deterministic", "reward_normaliser": "blocks"}),
    "deterministic": ({"action_dim": 1}, {"policy": "deterministic"}),
    "asymmetric box, episodes": ({"low": [-0.3, 1.0], "high": [0.7, 4.0]}, {"reward_normaliser": "episodes"}),
    "dropout": ({}, {"dropout": 0.3}),
    "CORL, dropout, deterministic": ({}, {**CORL, "dropout": 0.1, "policy": "deterministic"}),
    "short cosine, three layers": ({}, {"cosine_steps": 2, "hidden": (8, 7, 6)}),
    "no cosine, AntMaze": ({}, {"cosine_steps": None, "expectile": 0.9, "beta": 10.0, "reward_shift": -1.0}),
    "tau, discount, cap": ({"action_dim": 3}, {"tau": 0.3, "discount": 0.5, "weight_cap": 1.1, "reward_scale": 3.0}),
    "clipped spread": ({}, {"log_std_min": -0.002, "log_std_max": 0.004}),
}


@pytest.mark.parametrize(("shape", "arguments"), CASES.values(), ids=CASES)
def test_updates_equal_the_second_implementation(shape, arguments):
    """Three updates of two runs, parameters to 1e-10 in float64; every metric of the last one, too."""
    data = make_data(**shape)
    learner = IQL.for_dataset(data, **{**SMALL, **arguments})
    references = [ReferenceIQL(learner, data, run) for run in (0, 1)]
    learner.update(2)
    learner.metrics()
    learner.update(1)
    found = learner.metrics()
    for run, reference in enumerate(references):
        assert reference.train(3).worst_gap() < 1e-10
        assert found.keys() == reference.metrics.keys()
        for name, value in reference.metrics.items():
            assert found[name][run] == pytest.approx(value, rel=1e-9), name


def test_the_switches_matter():
    """Each of the choices changes the parameters after three updates: none is a dead field."""
    data = make_data()
    data = dataclasses.replace(data, action=np.where(data.action > 0.5, 1.0, data.action))  # some to clip
    base = {**SMALL, "cosine_steps": 10}
    plain = IQL.for_dataset(data, **base)
    plain.update(3)
    for field, value in {
        **{name: value for name, value in CORL.items() if name != "log_std_min"},
        "cosine_steps": None,
        "dropout": 0.1,
        "beta": 1.0,
        "expectile": 0.9,
        "weight_cap": 1.01,
        "log_std_max": 0.001,
        "reward_normaliser": "episodes",
    }.items():
        other = IQL.for_dataset(data, **{**base, field: value})
        other.update(3)
        assert moved(snapshot(plain), snapshot(other), "actor"), field


# Limits


def test_expectile_one_half_is_half_the_mean_regression():
    """V's first Adam direction is that of mean (q - V)^2: the gradient, written out, is its half."""
    data = make_data()
    learner = IQL.for_dataset(data, **SMALL, expectile=0.5)
    grads = []
    learner.value_optimiser.step = grads.extend
    reference = ReferenceIQL(learner, data)
    rows = learner.philox.integers("batch", len(data), 1, 1, 20)[0, 0]
    x = torch.cat([reference.s[rows], reference.a[rows]], 1)
    chosen = torch.minimum(*[forward(x, q) for q in reference.slow]).detach()
    loss = torch.mean((chosen - forward(reference.s[rows], reference.value)) ** 2)
    wanted = torch.autograd.grad(loss, [p for layer in reference.value for p in layer])
    learner.update(1)
    for ours, theirs in zip(grads, wanted, strict=True):
        torch.testing.assert_close(ours[0], theirs.view_as(ours[0]) / 2)


def forward(x, layers):
    for W, b in layers[:-1]:
        x = torch.relu(x @ W + b)
    return (x @ layers[-1][0] + layers[-1][1])[:, 0]


def coin(rows=400):
    """One state; actions +-0.5 with terminal rewards +-1, half each."""
    obs = np.ones((rows, 1))
    sign = np.where(np.arange(rows) % 2, 1.0, -1.0)[:, None]
    return Transitions(obs, 0.5 * sign, sign[:, 0], obs, np.ones(rows))


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_v_of_a_fair_coin_is_its_expectile(expectile, monkeypatch):
    """Targets +-1, given outright: V = 2 tau - 1."""
    sign = torch.tensor([1.0, -1.0], dtype=F64)
    learner = IQL.for_dataset(coin(), expectile=expectile, dtype=F64, hidden=(8,), batch_size=8, learning_rate=1e-2)
    monkeypatch.setattr(learner.critic, "backup_value", lambda s, a: sign.repeat(4)[None])
    learner.update(400)
    assert learner._value_of(torch.ones(1, 1, 1, dtype=F64)).item() == pytest.approx(2 * expectile - 1, abs=1e-3)


def test_beta_0_is_behaviour_cloning():
    """Same start and batches: the deterministic actor takes BC's steps (with d = 1, where sum and mean are one)."""
    data = make_data(action_dim=1)
    arguments = {"beta": 0.0, "policy": "deterministic", "initialisation": "uniform", "cosine_steps": None}
    ours = IQL.for_dataset(data, **SMALL, **arguments, normalise_obs=True, clip_data_actions=False)
    theirs = BC.for_dataset(data, **SMALL)
    for learner in (ours, theirs):
        learner.update(30)
    for a, b in zip(ours.actor, theirs.actor, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_rewards_mean_nothing_to_beta_0_and_something_to_others():
    data = make_data()
    other = dataclasses.replace(data, reward=-data.reward)
    for beta in (0.0, 3.0):
        first, second = (IQL.for_dataset(d, **SMALL, beta=beta) for d in (data, other))
        for learner in (first, second):
            learner.update(5)
        assert moved(snapshot(first), snapshot(second), "actor.") == (beta > 0)


def test_an_actor_at_the_end_of_its_schedule_stands_still():
    learner = IQL.for_dataset(make_data(), **SMALL, cosine_steps=4)
    learner.update(4)
    before = snapshot(learner)
    learner.update(3)
    after = snapshot(learner)
    assert not moved(before, after, "actor.")
    assert not moved(before, after, "log_std.")
    assert moved(before, after, "critic.online.")


def test_dropout_is_of_the_training_alone():
    data = make_data()
    dropped, plain = (IQL.for_dataset(data, **SMALL, dropout=p) for p in (0.5, 0.0))
    np.testing.assert_array_equal(dropped.act(data.obs), plain.act(data.obs))
    obs = torch.tensor(data.obs[:5], dtype=F64).expand(2, 5, 3)
    draws = []
    for dropped.steps in (1, 2, 1):
        draws.append(dropped._dropped_out(obs).detach())
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    words = dropped.philox.words("dropout.0", 1, 400, 16)
    assert (words >= dropped.drop_below).double().mean().item() == pytest.approx(0.5, abs=0.02)


# A toy: two steps, mostly bad data


def two_steps(rows=1200, seed=0):
    """State A: action 0.5 (one row in five) leads to B, -0.5 to C, reward 0. B pays 1, C pays 0, both end there, but
    their next_obs is A: whoever bootstraps through a terminal overrates them."""
    rng = np.random.default_rng(seed)
    A, B, C = np.eye(3)
    at_a = rng.random(rows) < 0.5
    good = rng.random(rows) < 0.2
    state_b = rng.random(rows) < 0.5
    obs = np.where(at_a[:, None], A, np.where(state_b[:, None], B, C))
    next_obs = np.where((at_a & good)[:, None], B, np.where(at_a[:, None], C, A))
    action = np.where(good, 0.5, -0.5)[:, None] + rng.normal(0, 0.05, (rows, 1))
    return Transitions(obs, action, (~at_a & state_b).astype(float), next_obs, (~at_a).astype(float))


TOY = {"hidden": (24, 24), "batch_size": 64, "learning_rate": 4e-3, "tau": 0.05, "cosine_steps": 400, "beta": 10.0}


def played(**arguments):
    """Two runs' actions at A (2,) and values of A, B, C (2, 3)."""
    learner = IQL.for_dataset(two_steps(), runs=2, **{**TOY, **arguments})
    learner.update(400)
    action = learner.act(np.array([1.0, 0.0, 0.0]))[:, 0]
    value = learner._value_of(learner._normalise(torch.eye(3)).expand(2, 3, 3)).numpy()
    return action, value


@pytest.mark.parametrize("arguments", [{}, {**CORL, "policy": "deterministic"}], ids=["original", "CORL"])
def test_iql_finds_the_better_mode_and_the_values(arguments):
    """V(B) = 1, V(C) = 0, V(A) = e of {gamma w.p. 1/5, 0 w.p. 4/5}: tau p (g - e) = (1 - tau)(1 - p) e, e = 0.365."""
    action, value = played(**arguments)
    assert (action > 0.35).all(), action
    np.testing.assert_allclose(value, np.tile([0.365, 1.0, 0.0], (2, 1)), atol=0.12)


@pytest.mark.proof
def test_wrong_variants_do_not_find_it():
    """Behaviour cloning (by BC and by beta = 0) and an agent that looks one step ahead stay with the majority."""
    cloned = BC.for_dataset(two_steps(), runs=2, hidden=(24, 24), batch_size=64, learning_rate=4e-3)
    cloned.update(200)
    assert (cloned.act(np.array([1.0, 0.0, 0.0])) < 0).all()
    assert (played(beta=0.0)[0] < 0).all()
    assert (played(discount=0.0)[0] < 0).all()


# Bad input


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("expectile", [0.0, 1.0, -0.1, float("nan"), "x"]),
        ("beta", [-1.0, float("inf")]),
        ("weight_cap", [0.0, -1.0]),
        ("discount", [-0.1, 1.1, float("nan")]),
        ("tau", [-0.1, 1.1]),
        ("update_order", ["corl", None]),
        ("critic_reduction", ["average"]),
        ("initialisation", ["xavier"]),
        ("policy", ["tanh"]),
        ("log_std_min", [2.0, 3.0, float("nan"), -20.5, -1e30, "x"]),
        ("log_std_max", [20.5, 1e30, float("inf")]),
        ("dropout", [1.0, -0.1, True]),
        ("cosine_steps", [0, -5, 2.5, True]),
        ("clip_data_actions", [1]),
        ("reward_normaliser", ["range"]),
    ],
)
def test_hyperparameters_out_of_range(field, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"iql\.{field}: expected .* Fix: "):
            IQL(3, 2, **{field: value})
