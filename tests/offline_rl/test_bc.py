"""Behaviour cloning against hand values, a second implementation and least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offline_rl import BC
from offline_rl.bc import behaviour_loss, best_blocks
from orbs import Transitions
from tests.offline_rl.reference import Reference, make_data

F64 = torch.float64


def corl_rows(reward, terminal, fraction, discount, horizon):
    """keep_best_trajectories of CORL's any_percent_bc.py, transcribed."""
    ids, returns, current, total, scale = [], [], [], 0.0, 1.0
    for i, (r, done) in enumerate(zip(reward, terminal, strict=True)):
        total += scale * float(r)
        current.append(i)
        scale *= discount
        if done == 1.0 or len(current) == horizon:
            ids.append(current)
            returns.append(total)
            current, total, scale = [], 0.0, 1.0
    order = np.argsort(returns, axis=0)[::-1].reshape(-1)
    return [row for block in order[: max(1, int(fraction * len(order)))] for row in ids[block]]


def test_loss_by_hand():
    """Errors (1, 2), (0, 4) in run 0: 21/4; zero in run 1. A mean over rows and coordinates, no square root."""
    action = torch.zeros(2, 2, 2)
    policy = torch.tensor([[[1.0, 2.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert behaviour_loss(policy, action).tolist() == [5.25, 0.0]


def test_loss_gradcheck():
    draw = torch.Generator().manual_seed(0)
    pair = [torch.randn(2, 3, 2, dtype=F64, generator=draw, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(behaviour_loss, pair)


@pytest.mark.parametrize(
    ("action_dim", "low", "high"), [(2, -1.0, 1.0), (1, -2.0, 2.0), (3, [-1.0, 0.5, -4.0], [0.0, 2.0, 4.0])], ids=str
)
def test_four_updates_equal_the_second_implementation(action_dim, low, high):
    data = make_data(action_dim=action_dim, low=low, high=high)
    learner = BC.for_dataset(data, runs=2, dtype=F64, hidden=(16, 12), batch_size=20, learning_rate=1e-2)
    references = [Reference(learner, data, run) for run in (0, 1)]
    learner.update(4)
    for reference in references:
        assert reference.bc(4).worst_gap() < 1e-10


def test_best_blocks_by_hand():
    """Blocks 0-1 (terminal, return 3), 2-4 (horizon, 6), 5 (terminal, 9), 6-7 incomplete: dropped."""
    reward = np.array([1, 2, 1, 2, 3, 9, 50, 50.0])
    terminal = np.array([0, 1, 0, 0, 0, 1, 0, 0.0])
    assert best_blocks(reward, terminal, 1.0, 1.0, 3).tolist() == [5, 2, 3, 4, 0, 1]
    assert best_blocks(reward, terminal, 0.67, 1.0, 3).tolist() == [5, 2, 3, 4]
    assert best_blocks(reward, terminal, 0.5, 1.0, 3).tolist() == [5]  # floor of 1.5
    assert best_blocks(reward, terminal, 0.01, 1.0, 3).tolist() == [5]  # at least one


def test_best_blocks_discount_from_the_start_of_each_block():
    """At discount 0.1 the block (0, 90) is worth 9 and the block (10, 0) is worth 10."""
    reward, terminal = np.array([0, 90, 10, 0.0]), np.array([0, 1, 0, 1.0])
    assert best_blocks(reward, terminal, 1.0, 1.0, 9).tolist() == [0, 1, 2, 3]
    assert best_blocks(reward, terminal, 1.0, 0.1, 9).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_best_blocks_are_corl_s(seed):
    rng = np.random.default_rng(seed)
    reward, terminal = rng.normal(size=500), rng.random(500) < 0.05
    for fraction, discount, horizon in ((1.0, 0.99, 30), (0.1, 1.0, 17), (0.35, 0.9, 1000)):
        expected = corl_rows(reward, terminal, fraction, discount, horizon)
        assert best_blocks(reward, terminal, fraction, discount, horizon).tolist() == expected


def test_best_blocks_without_a_complete_block():
    with pytest.raises(ValueError, match="filter_horizon"):
        best_blocks(np.ones(9), np.zeros(9), 1.0, 1.0, 10)
    assert best_blocks(np.ones(9), np.zeros(9), 1.0, 1.0, 9).tolist() == list(range(9))


def test_top_fraction_keeps_the_best_blocks_in_order_and_their_statistics():
    """The learner sees the kept rows, best block first; the normaliser is computed after the filter."""
    data = make_data(rows=300)
    rows = corl_rows(data.reward, data.terminal, 0.3, 1.0, 12)
    kept = Transitions(*(getattr(data, f)[rows] for f in ("obs", "action", "reward", "next_obs", "terminal")))
    arguments = {"runs": 2, "dtype": F64, "hidden": (8,), "batch_size": 16}
    filtered = BC.for_dataset(data, top_fraction=0.3, filter_horizon=12, **arguments)
    plain = BC.for_dataset(kept, **arguments)
    np.testing.assert_allclose(filtered.obs_mean.numpy(), data.obs[rows].mean(0, dtype=np.float64), rtol=1e-12)
    for learner in (filtered, plain):
        learner.update(20)
    assert all(torch.equal(a, b) for a, b in zip(filtered.actor, plain.actor, strict=True))


@pytest.mark.parametrize(
    "bad", [{"top_fraction": 0.0}, {"top_fraction": 1.1}, {"top_fraction": "x"}, {"filter_horizon": 0}]
)
def test_bad_filters(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        BC(3, 2, **bad)


def test_rewards_do_not_matter():
    data = make_data()
    arguments = {"dtype": F64, "hidden": (8,), "batch_size": 16}
    scaled = BC.for_dataset(data, reward_scale=5.0, reward_shift=-1.0, **arguments)
    plain = BC.for_dataset(data, **arguments)
    scaled.update(5)
    plain.update(5)
    assert all(torch.equal(a, b) for a, b in zip(scaled.actor, plain.actor, strict=True))


def test_linear_gaussian_data_recovers_least_squares():
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (2000, 2)) * [1.0, 10.0] + [3.0, -20.0]
    slope = np.array([[0.5, -0.3], [0.04, 0.05]])
    action = (obs - [3.0, -20.0]) @ slope + 0.1 + 0.05 * rng.normal(size=(2000, 2))
    data = Transitions(obs, action, np.zeros(2000), obs, np.zeros(2000), action_low=-2.0, action_high=2.0)
    learner = BC.for_dataset(data, hidden=(32, 32), batch_size=128, learning_rate=3e-3, runs=2)
    learner.update(600)
    design = np.c_[obs, np.ones(2000)]
    fitted = design @ np.linalg.lstsq(design, action, rcond=None)[0]
    errors = np.abs(learner.act(obs) - fitted)
    assert errors.mean() < 0.02
    assert np.quantile(errors, 0.99) < 0.1


def test_a_constant_action_is_learned_to_loss_zero():
    data = make_data()
    constant = np.broadcast_to(np.float32([0.3, -0.6]), data.action.shape)
    data = Transitions(data.obs, constant, data.reward, data.next_obs, data.terminal)
    learner = BC.for_dataset(data, hidden=(32, 32), batch_size=64, learning_rate=3e-3)
    learner.update(300)
    first = learner.metrics()["actor_loss"]
    learner.update(300)
    last = learner.metrics()["actor_loss"]
    assert (last < 1e-4).all()
    assert (last < first / 10).all()
