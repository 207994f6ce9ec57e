"""PRDC against hand values, a second implementation with brute-force neighbours, its limits and the lineworld toy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offline_rl import PRDC, TD3BC
from offline_rl.critics import Batch
from offline_rl.prdc import joint_distance
from orbs import Transitions
from tests.offline_rl.reference import Reference, make_data

F64 = torch.float64
SMALL = {"runs": 2, "dtype": F64, "hidden": (16, 12), "batch_size": 20, "learning_rate": 3e-3}


# The penalty by hand: specs/prdc.md section 9. Rows (0, 1), (0.1, -1), (1, 0.9); query s = 0 with pi = -0.5.


def hand_penalty(**arguments):
    """The penalty of row 0 at policy action -0.5, and the metrics of the query."""
    obs, action = np.array([[0.0], [0.1], [1.0]]), np.array([[1.0], [-1.0], [0.9]])
    data = Transitions(obs, action, np.zeros(3), obs, np.zeros(3))
    learner = PRDC.for_dataset(data, normalise_obs=False, hidden=(4,), dtype=F64, **arguments)
    zero = torch.zeros(1, 1, dtype=F64)
    batch = Batch(zero[..., None], zero[..., None] + 1.0, zero, zero[..., None], zero, zero.long())
    penalty = learner._penalty(batch, torch.full((1, 1, 1), -0.5, dtype=F64)).item()
    return penalty, {name: value.item() for name, value in learner.metrics().items()}


@pytest.mark.parametrize(
    ("beta", "target", "square"),
    [(2.0, -1.0, 0.04 + 0.25), (10.0, -1.0, 1.0 + 0.25), (15.0, 1.0, 2.25), (0.0, -1.0, 0.25)],
)
def test_hand_case(beta, target, square):
    penalty, metrics = hand_penalty(beta=beta)
    assert penalty == pytest.approx((-0.5 - target) ** 2, rel=1e-6)
    assert metrics["neighbour_distance"] == pytest.approx(square**0.5, rel=1e-6)
    assert metrics["own_row_rate"] == float(target == 1.0)
    assert metrics["target_shift"] == pytest.approx(1.0 - target, abs=1e-6)


def test_hand_case_of_the_paper_s_penalty():
    """The norm in the joint space, state part included: sqrt(0.29) at beta = 2."""
    assert hand_penalty(beta=2.0, penalty="joint_norm")[0] == pytest.approx(0.29**0.5, rel=1e-6)


def test_hand_case_of_k():
    """Order at beta = 2: rows 1, 0, 2. k = 2: the 2nd alone has action 1; the mean of the two is 0."""
    assert hand_penalty(beta=2.0, k=2)[0] == pytest.approx(1.5**2)
    assert hand_penalty(beta=2.0, k=3)[0] == pytest.approx(1.4**2, rel=1e-6)
    assert hand_penalty(beta=2.0, k=2, k_rule="mean_of_k")[0] == pytest.approx(0.5**2)
    assert hand_penalty(beta=2.0, k=3, k_rule="mean_of_k")[0] == pytest.approx(0.8**2, rel=1e-6)


def test_joint_distance_by_hand_and_gradcheck():
    """Keys differ by (3, 4): 5. At distance 0 the gradient is 0 and not NaN."""
    s, a, s2, a2 = (torch.full((1, 1, 1), x, dtype=F64) for x in (2.0, 5.0, 0.5, 1.0))
    assert joint_distance(s, a, s2, a2, 2.0).item() == pytest.approx(5.0)
    draw = torch.Generator().manual_seed(0)
    four = [torch.randn(2, 5, d, dtype=F64, generator=draw, requires_grad=True) for d in (3, 2, 3, 2)]
    assert torch.autograd.gradcheck(lambda *x: joint_distance(*x, 1.5), four)
    at = a.clone().requires_grad_()
    (grad,) = torch.autograd.grad(joint_distance(s, at, s, a, 2.0).sum(), at)
    assert grad.item() == 0.0


# Whole updates against the second implementation


def mse_to(k=1, rule="kth", beta=2.0):
    def penalty(me, rows, p):
        found = me.nearest(rows, p, beta, k)
        target = me.a[found[:, -1]] if rule == "kth" else me.a[found].mean(1)
        return torch.mean((p - target) ** 2)

    return penalty


def norm_to(beta):
    def penalty(me, rows, p):
        row = me.nearest(rows, p, beta)[:, 0]
        gap = torch.cat([beta * (me.s[rows] - me.s[row]), p - me.a[row]], 1)
        return torch.mean(torch.linalg.vector_norm(gap, dim=1))

    return penalty


CASES = {
    "default": ({}, {"beta": 2.0}, mse_to()),
    "A=2, d_a=1": ({"action_dim": 1, "low": -2.0, "high": 2.0}, {"beta": 1.0}, mse_to(beta=1.0)),
    "asymmetric box": ({"low": [-0.3, 1.0], "high": [0.7, 4.0]}, {"beta": 0.5}, mse_to(beta=0.5)),
    "nearest action anywhere": ({}, {"beta": 0.0}, mse_to(beta=0.0)),
    "third neighbour": ({}, {"beta": 2.0, "k": 3}, mse_to(3)),
    "mean of three": ({}, {"beta": 2.0, "k": 3, "k_rule": "mean_of_k"}, mse_to(3, "mean")),
    "k beyond the list": ({}, {"beta": 2.0, "k": 5, "neighbours": 4}, mse_to(5)),
    "joint norm": ({}, {"beta": 2.0, "penalty": "joint_norm"}, norm_to(2.0)),
    "data's Q as normaliser": ({}, {"beta": 2.0, "q_normaliser": "data"}, mse_to()),
}


@pytest.mark.parametrize(("shape", "arguments", "penalty"), CASES.values(), ids=CASES)
def test_four_updates_equal_the_second_implementation(shape, arguments, penalty):
    data = make_data(**shape)
    learner = PRDC.for_dataset(data, **SMALL, **arguments)
    references = [Reference(learner, data, run) for run in (0, 1)]
    learner.update(4)
    for reference in references:
        reference.td3(4, penalty, arguments.get("q_normaliser", "policy"))
        assert reference.worst_gap() < (1e-8 if "penalty" in arguments else 1e-10)  # eps under joint_norm's root


def test_legacy_scales_the_next_state_and_leaves_rewards_alone():
    """Before 5 July 2023 the authors' code put scale * x + shift on the (normalised) next state."""
    data = make_data()
    learner = PRDC.for_dataset(
        data, beta=2.0, reward_scale=10.0, reward_shift=-1.0, legacy_scale_next_state=True, **SMALL
    )
    reference = Reference(learner, data)
    reference.s2, reference.r = 10.0 * reference.s2 - 1.0, torch.tensor(data.reward, dtype=F64)
    learner.update(4)
    assert reference.td3(4, mse_to()).worst_gap() < 1e-10


# Limits


def pair(data, steps, **arguments):
    """The same training by PRDC and TD3+BC, and PRDC's metrics."""
    learners = [PRDC.for_dataset(data, **arguments)]
    learners.append(TD3BC.for_dataset(data, **{k: v for k, v in arguments.items() if k != "beta"}))
    for learner in learners:
        learner.update(steps)
    return *learners, learners[0].metrics()


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_a_large_beta_is_td3_bc(dtype):
    ours, theirs, metrics = pair(make_data(), 20, **{**SMALL, "dtype": dtype, "beta": 1e4})
    assert metrics["own_row_rate"].tolist() == [1.0, 1.0]
    assert metrics["target_shift"].tolist() == [0.0, 0.0]
    state = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-13)


def test_a_small_beta_is_not():
    ours, theirs, metrics = pair(make_data(), 20, **SMALL, beta=0.5)
    assert (metrics["own_row_rate"] < 0.9).all()
    assert not torch.allclose(ours.actor[0], theirs.actor[0], atol=1e-6)


def test_alpha_0_regresses_on_nearest_actions():
    """Without value term the actor falls onto the data's actions: the penalty decreases."""
    learner = PRDC.for_dataset(make_data(), alpha=0.0, beta=0.5, policy_period=1, hidden=(32, 32), learning_rate=3e-3)
    penalties = []
    for _ in range(4):
        learner.update(50)
        penalties.append(learner.metrics()["penalty"].item())
    assert penalties == sorted(penalties, reverse=True)
    assert penalties[-1] < penalties[0] / 2


def test_the_own_row_bounds_the_distance():
    """Best distance <= ||pi(s) - a||, on the mean over the batch."""
    data = make_data()
    learner = PRDC.for_dataset(data, beta=1.0, policy_period=1, **SMALL)
    for step in range(1, 6):
        rows = learner.philox.integers("batch", len(data), step, 1, 20)[:, 0].numpy()
        action = np.stack([learner.act(data.obs[rows[run]])[run] for run in (0, 1)])
        bound = np.linalg.norm(action - data.action[rows], axis=2).mean(1)
        learner.update(1)
        assert (learner.metrics()["neighbour_distance"] <= bound + 1e-9).all()


def test_the_length_of_the_lists_never_changes_the_result():
    learners = [PRDC.for_dataset(make_data(), beta=1.0, neighbours=n, **SMALL) for n in (1, 8, 64)]
    rates = []
    for learner in learners:
        learner.update(20)
        rates.append(learner.metrics()["certified_rate"].mean())
        assert all(torch.equal(a, b) for a, b in zip(learner.actor, learners[0].actor, strict=True))
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


# Bad input


@pytest.mark.parametrize(
    "bad",
    [
        {"beta": None},
        {"beta": -1.0},
        {"beta": float("nan")},
        {"beta": "2"},
        {"k": 0},
        {"k": 1.5},
        {"neighbours": 0},
        {"k_rule": "first"},
        {"penalty": "l1"},
        {"q_normaliser": "max"},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(ValueError, match=rf"prdc\.{next(iter(bad))}: expected"):
        PRDC(3, 2, **{"beta": 2.0, **bad})


def test_beta_has_no_default_and_k_no_more_rows_than_the_data():
    with pytest.raises(ValueError, match=r"prdc\.beta.*pass beta=2\.0"):
        PRDC(3, 2)
    with pytest.raises(ValueError, match="k: expected 1 to 200"):
        PRDC.for_dataset(make_data(), beta=2.0, k=201, hidden=(4,))


# Lineworld, specs/prdc.md section 9: nine in ten of the data's actions point away from the goal


def lineworld(rows, seed=0):
    """State in [0, 10], s' = s + a, reward 1 and the end on reaching 10; 90 % of the actions point left."""
    rng = np.random.default_rng(seed)
    state = rng.uniform(0, 10, rows)
    action = rng.random(rows) * np.where(rng.random(rows) < 0.1, 1.0, -1.0)
    goal = state + action >= 10
    return Transitions(state[:, None], action[:, None], goal, np.clip(state + action, 0, 10)[:, None], goal)


def reached(learner, horizon=60):
    """(runs,) share of 20 starts from 0 to 9.5 from which the goal is reached."""
    state = np.tile(np.linspace(0, 9.5, 20)[:, None], (learner.runs, 1, 1))
    done = np.zeros((learner.runs, 20), bool)
    for _ in range(horizon):
        state = np.clip(state + learner.act(state), 0, 10)
        done |= state[..., 0] >= 10
    return done.mean(1)


def solve(cls, data, steps, **arguments):
    learner = cls.for_dataset(data, **arguments)
    learner.update(steps)
    return reached(learner), learner.metrics()


@pytest.mark.proof
def test_prdc_finds_the_goal_where_td3_bc_is_dragged_away():
    fast = {"runs": 3, "hidden": (32, 32), "batch_size": 64, "learning_rate": 2e-3, "tau": 0.02, "discount": 0.9}
    data = lineworld(1000)
    assert solve(PRDC, data, 1500, beta=1.0, **fast)[0].mean() > 0.95
    assert solve(TD3BC, data, 1500, **fast)[0].mean() < 0.7


@pytest.mark.proof
def test_prdc_solves_lineworld_and_td3_bc_with_the_same_alpha_does_not():
    """5 runs, alpha 2.5, the algorithms' own discount and tau."""
    common = {"runs": 5, "hidden": (64, 64), "batch_size": 128, "learning_rate": 1e-3}
    data = lineworld(2000)
    for beta in (1.0, 2.0):
        share, metrics = solve(PRDC, data, 4500, beta=beta, **common)
        assert share.tolist() == [1.0] * 5
        assert (metrics["penalty"] < 0.05).all()
    assert (solve(TD3BC, data, 4500, **common)[0] < 0.7).all()
