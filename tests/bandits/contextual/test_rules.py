"""The pure rules of the contextual learners: goldens, schedules by hand, unbiased estimates, checks of arguments."""

import math

import numpy as np
import pytest
import torch

from bandits import (
    ContextualEpsilonGreedy,
    ContextualExploreFirst,
    DisjointLinUCB,
    EpochGreedy,
    MeshUCB,
    SquareCB,
    make,
)
from bandits.arm_learner import one_hot
from bandits.contextual.disjoint import lin_ucb_index
from bandits.contextual.epoch_greedy import exploitation
from bandits.contextual.explore import epsilon_schedule, exploration
from bandits.contextual.mesh import cells_per_axis
from bandits.contextual.policies import dr_rewards, ips_rewards, log_policies
from bandits.contextual.square_cb import gap_weights, learning_rate, regression_regret
from orbs import runs_last
from tests.bandits.arm_homes import HOMES, built, contexts


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_gap_weights_golden():
    p = gap_weights(tensor([0.2, 0.5, 0.9], [0.9, 0.2, 0.2]), 10.0)
    np.testing.assert_allclose(p[0].numpy(), [0.733333333333, 0.166666666667, 0.1], atol=1e-12)
    np.testing.assert_allclose(p[1].numpy(), [0.1, 1 - 0.1 - 1 / 3, 1 / 3], atol=1e-12)
    assert gap_weights(tensor([0.4]), 10.0).tolist() == [[1.0]]


def test_gap_weights_are_a_scalar_loops():
    rng = np.random.default_rng(0)
    for _ in range(200):
        losses, gamma = rng.uniform(-1, 1, rng.integers(1, 8)), rng.uniform(0, 100)
        b = min(range(len(losses)), key=lambda a: losses[a])
        p = [0.0 if a == b else 1 / (len(losses) + gamma * (losses[a] - losses[b])) for a in range(len(losses))]
        p[b] = 1 - sum(p)
        got = gap_weights(torch.as_tensor(losses[None]), gamma)[0].numpy()
        np.testing.assert_allclose(got, p, rtol=1e-9)
        assert (got > 0).all()
        assert got.sum() == pytest.approx(1, abs=1e-12)


def test_lin_ucb_index_is_a_scalar_loops():
    """200 histories: the index by inverting each arm's matrix outright."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        arms, d, alpha, ridge = rng.integers(1, 5), rng.integers(1, 5), rng.uniform(0, 2), rng.uniform(0.1, 2)
        learner = DisjointLinUCB(int(arms), int(d), alpha=alpha, ridge=ridge)
        gram, target = np.tile(ridge * np.eye(d), (arms, 1, 1)), np.zeros((arms, d))
        for _ in range(rng.integers(0, 12)):
            x, a, y = rng.normal(size=d), rng.integers(0, arms), rng.normal()
            learner.act(torch.as_tensor(x[None]))
            learner.observe(torch.tensor([a]), tensor(y))
            gram[a] += np.outer(x, x)
            target[a] += y * x
        x = rng.normal(size=d)
        inverse = [np.linalg.inv(part) for part in gram]
        wanted = [(inverse[a] @ target[a]) @ x + alpha * math.sqrt(x @ inverse[a] @ x) for a in range(arms)]
        q = torch.as_tensor(x[None])
        got = lin_ucb_index(learner.model.predict(q), learner.model.squared_widths(q), alpha)
        np.testing.assert_allclose(got[0].numpy(), wanted, rtol=1e-9, atol=1e-12)
        assert int(learner.act(q)[0]) == int(np.argmax(wanted)) or arms == 1


def test_a_disjoint_model_of_one_pair_by_hand():
    """V = 1 + 4, b = 2 * 0.5: mean of 3 is 0.6, width 3/sqrt(5); the other arm has mean 0 and width 3."""
    learner = DisjointLinUCB(2, 1, alpha=1.0)
    assert int(learner.act(tensor([2.0]))[0]) == 0  # a tie
    learner.observe(torch.tensor([0]), tensor(0.5))
    q = tensor([3.0])
    np.testing.assert_allclose(learner.model.predict(q).numpy(), [[0.6, 0.0]], atol=1e-12)
    np.testing.assert_allclose(learner.model.squared_widths(q).numpy(), [[1.8, 9.0]], atol=1e-12)
    assert int(learner.act(q)[0]) == 1


def test_epochs_by_hand():
    """K = 2, |Pi| = 1, delta = e^-0.0999: s_l = floor(sqrt(5.005 l)): 2 3 3 4 5 5."""
    assert [exploitation(e, 2, 0.0, math.exp(-0.0999)) for e in range(1, 7)] == [2, 3, 3, 4, 5, 5]
    assert [exploitation(e, 10, 5.0, 0.05) for e in (1, 319, 320)] == [1, 1, 2]
    assert exploitation(319, 10, math.log(150), 0.05) == exploitation(100, 10, math.log(150), 0.05) == 1
    learner = EpochGreedy(2, 1, log_policies=0.0, delta=math.exp(-0.0999))
    explores = []
    for _ in range(3 + 4 + 4 + 5 + 1):
        explores.append(learner.place == 0)
        other = EpochGreedy(2, 1, log_policies=0.0, delta=math.exp(-0.0999))
        other.load_state_dict(learner.state_dict())
        assert (other.epoch, other.place) == (learner.epoch, learner.place)
        arm = learner.act(tensor([1.0]))
        learner.observe(arm, tensor(0.0))
    assert [t for t, explored in enumerate(explores) if explored] == [0, 3, 7, 11, 16]
    assert (learner.epoch, learner.place) == (5, 1)


def test_only_exploration_rounds_teach_epoch_greedy():
    learner = EpochGreedy(2, 1, log_policies=0.0, delta=math.exp(-0.0999))
    taught = []
    for _ in range(8):
        before = learner.state_dict()
        learner.observe(learner.act(tensor([1.0])), tensor(0.7))
        taught.append(
            any(not torch.equal(before[name], t) for name, t in learner.state_dict().items() if name != "rounds")
        )
    assert taught == [True, False, False, True, False, False, False, True]


def test_numbers_of_exploration_by_hand():
    # 1000^(2/3) = 100; K (ln 1000 + 2 ln 3) = 3 * 9.10498 = 27.315, its cube root 3.0116.
    assert exploration(1000, 3, 2 * math.log(3)) == 301
    assert exploration(1, 3, 1.0) == 1
    assert exploration(5, 10, 3.0) == 5
    facts = HOMES["contextual-explore-first"]
    assert make("contextual-explore-first", {**facts, "horizon": 10**6}, policies=1.0).explore == round(
        10**4 * (5 * math.log(10**6)) ** (1 / 3)
    )
    assert log_policies(None, 7, 3) == pytest.approx(math.log(7**3))
    assert log_policies(50.0, 7, 3) == pytest.approx(math.log(50))
    assert epsilon_schedule(1, 10) == 1.0
    assert epsilon_schedule(1000, 2) == pytest.approx((2 * math.log(1001) / 1000) ** (1 / 3))


def test_meshes_by_hand():
    # eps = (K/(T L^2))^(1/3) in one dimension: (8/1000)^(1/3) = 1/5; L = 2 makes it (2/1000)^(1/3) = 1/7.94.
    assert cells_per_axis(1000, 8, 1.0, 1) == 5
    assert cells_per_axis(1000, 8, 2.0, 1) == 8
    assert cells_per_axis(10_000, 1, 1.0, 2) == 10
    assert cells_per_axis(3, 10, 1.0, 1) == 1
    assert cells_per_axis(20_000, 10, 1.0, 65) == 1
    # The same problem in other units: x -> 2 x - 1 halves L and doubles the side.
    assert cells_per_axis(4000, 4, 4.0, 1) == cells_per_axis(4000, 4, 2.0, 1, side=2.0) == 25
    mesh = MeshUCB(2, 2, 5, cells=4, box=(-1.0, 1.0))
    x = tensor([-1.0, -1.0], [-0.51, 0.9], [1.0, 1.0], [7.0, -9.0], [0.0, 0.49])
    assert mesh.cell(x).tolist() == [0, 12, 15, 3, 10]


def test_rates_by_hand():
    assert learning_rate(1000, 4, 10.0, 0.05) == pytest.approx(math.sqrt(4000 / (10 + math.log(40))))
    assert regression_regret("ridge", 100, 2, 3, 2.0, 1.5, 0.5) == pytest.approx(
        2 * (0.5 * 4 + 3 * math.log(1 + 100 * 2.25 / (0.5 * 6)))
    )
    assert regression_regret("ogd", 100, 2, 3, 2.0, 1.5, 0.5) == pytest.approx(
        math.sqrt(2) * 4 * 3 * 4 * math.sqrt(200)
    )


@pytest.mark.parametrize("kind", ["ips", "dr"])
def test_estimates_are_unbiased(kind):
    """Mean over the draw of the arm and the reward, within four standard errors, however wrong the model."""
    count, rng = 60_000, np.random.default_rng(3)
    p, mean = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.7, 0.5])
    arm = torch.as_tensor(rng.choice(3, count, p=p))
    reward = torch.as_tensor((rng.uniform(size=count) < mean[arm]).astype(float))
    played, chance = one_hot(arm, 3), torch.as_tensor(p)[arm]
    model = tensor(0.3, 0.1, 0.9).expand(count, 3)
    got = ips_rewards(reward, played, chance) if kind == "ips" else dr_rewards(reward, played, chance, model)
    error = got.std(0) / math.sqrt(count)
    assert ((got.mean(0) - torch.as_tensor(mean)).abs() < 4 * error).all()
    assert (error < 0.01).all()
    if kind == "dr":  # right in the mean for the arms that were not played, by the model alone
        assert torch.equal(got[arm == 0][:, 2], model[arm == 0][:, 2])


def test_chances_of_epsilon_greedy_are_those_of_its_play():
    """40000 runs that learned the same: how often each arm is played is the chance that it learns with."""
    runs = 40_000
    learner = ContextualEpsilonGreedy(3, 1, runs, epsilon=0.3)
    x = tensor([1.0]).expand(runs, 1)
    for arm, reward in ((0, 0.1), (1, 0.9), (2, 0.2)):
        learner.act(x)
        learner.observe(torch.full((runs,), arm), torch.full((runs,), reward, dtype=torch.float64))
    share = torch.bincount(learner.act(x), minlength=3) / runs
    np.testing.assert_allclose(share.numpy(), [0.1, 0.8, 0.1], atol=4 * 0.4 / math.sqrt(runs))
    first = learner.policies.model.gram[0].clone()
    learner.act(x)
    learner.observe(torch.arange(runs) % 3, torch.zeros(runs, dtype=torch.float64))
    after = torch.stack([learner.policies.model.gram[a, a] for a in range(3)])
    np.testing.assert_allclose((after - first).flatten().numpy(), [10, 1.25, 10], rtol=1e-12)


@pytest.mark.parametrize("name", ["contextual-explore-first", "epoch-greedy"])
def test_exploration_is_uniform(name):
    learner = built(name, {}, runs=20_000)
    arm = learner.act(contexts(HOMES[name], 0, learner.run_ids))
    share = torch.bincount(arm, minlength=5) / 20_000
    np.testing.assert_allclose(share.numpy(), 0.2, atol=4 * 0.4 / math.sqrt(20_000))


def test_square_cb_plays_by_its_probabilities():
    runs = 20_000
    learner = SquareCB(3, 1, runs, gamma=10.0, ridge=1e-9, low=0.0, high=1.0)
    x = tensor([1.0]).expand(runs, 1)
    for arm, loss in ((0, 0.2), (1, 0.5), (2, 0.9)):
        learner.act(x)
        learner.observe(torch.full((runs,), arm), torch.full((runs,), 1.0 - loss, dtype=torch.float64))
    share = torch.bincount(learner.act(x), minlength=3) / runs
    np.testing.assert_allclose(share.numpy(), [0.7333, 0.1667, 0.1], atol=4 * 0.45 / math.sqrt(runs))
    np.testing.assert_allclose(learner.probabilities(x)[0].numpy(), [11 / 15, 1 / 6, 0.1], atol=1e-8)


def test_rewards_without_a_range_are_losses_with_another_sign():
    learner = SquareCB(2, 1, gamma=1.0, ridge=1e-9)
    learner.act(tensor([1.0]))
    learner.observe(torch.tensor([1]), tensor(25.0))
    p = learner.probabilities(tensor([1.0]))[0]
    np.testing.assert_allclose(p.numpy(), [1 / 27, 26 / 27], atol=1e-6)


@pytest.mark.parametrize(
    ("make_one", "words"),
    [
        (lambda: DisjointLinUCB(3, 0), "dimension: expected a whole number of at least 1, got 0"),
        (lambda: DisjointLinUCB(3, True), "dimension: expected a whole number"),
        (lambda: DisjointLinUCB(3, 2, alpha=-1.0), "alpha: expected at least 0"),
        (lambda: DisjointLinUCB(3, 2, ridge=0.0), "ridge: expected above 0"),
        (lambda: ContextualEpsilonGreedy(3, 2, ridge=0.0), "ridge: expected above 0"),
        (lambda: ContextualEpsilonGreedy(3, 2, oracle="erm"), "oracle: expected weighted or ips or dr, got 'erm'"),
        (lambda: ContextualEpsilonGreedy(3, 2, epsilon=0.0), "epsilon: expected above 0"),
        (lambda: ContextualExploreFirst(3, 2, explore=0), "explore: expected at least 1 round"),
        (lambda: EpochGreedy(3, 2, log_policies=-1.0), "log_policies: expected at least 0"),
        (lambda: EpochGreedy(3, 2, log_policies=1.0, delta=1.0), "delta: expected above 0 and below 1"),
        (lambda: SquareCB(3, 2, gamma=0.0), "gamma: expected a finite number above 0"),
        (lambda: SquareCB(3, 2, gamma=lambda t: 0.0), "gamma: expected a finite number above 0"),
        (lambda: SquareCB(3, 2, gamma=1.0, oracle="sgd"), "oracle: expected ridge or ogd"),
        (lambda: SquareCB(3, 2, gamma=1.0, radius=math.inf), "radius: expected a finite number above 0"),
        (lambda: MeshUCB(3, 2, cells=0), "cells: expected at least 1"),
        (lambda: MeshUCB(3, 30, cells=2), "cells: .*got 2 an axis. Fix: choose fewer cells"),
        (lambda: MeshUCB(3, 2, cells=2, box=(1.0, 1.0)), "box: expected low below high"),
        (lambda: MeshUCB(3, 2, cells=2, horizon=0), "horizon: expected at least 1 round"),
        (
            lambda: make("square-cb", {"domain": ("arms", {"dimension": 3}), "arms": 3}),
            "square-cb: expected a problem with context_dimension",
        ),
    ],
)
def test_bad_arguments_are_named(make_one, words):
    with pytest.raises(ValueError, match=words):
        make_one()


def test_rewards_need_contexts_first():
    learner = DisjointLinUCB(2, 1)
    with pytest.raises(ValueError, match=r"context: expected act\(contexts\) before observe"):
        learner.observe(torch.tensor([0]), tensor(0.5))
    learner.observe(learner.act(tensor([1.0])), tensor(0.5))
    with pytest.raises(ValueError, match=r"context: expected act\(contexts\) before observe"):
        learner.observe(torch.tensor([0]), tensor(0.5))
    assert learner.rounds == 1


def test_other_devices_judge_contexts_when_they_are_checked():
    """The flag that is kept where no round may wait; shown on a CPU that calls itself something else."""

    class Elsewhere:
        type = "elsewhere"

    for bad in (math.nan, math.inf, -math.inf):
        learner = DisjointLinUCB(2, 1)
        learner.device = Elsewhere()
        for value in (1.0, bad, 2.0):
            learner.observe(learner.act(tensor([value])), tensor(0.5))
        with pytest.raises(ValueError, match=r"context: expected finite numbers, got a NaN or inf"):
            learner.check()
    learner = DisjointLinUCB(2, 1)
    learner.device = Elsewhere()
    learner.observe(learner.act(tensor([1.0])), tensor(0.5))
    learner.check()


@pytest.mark.parametrize(
    ("name", "given", "rounds"),
    [
        ("disjoint-lin-ucb", {}, 100),
        ("contextual-epsilon-greedy", {"oracle": "dr"}, 100),
        ("contextual-explore-first", {"oracle": "ips", "explore": 100}, 100),
        ("square-cb", {}, 100),
        ("epoch-greedy", {"policies": 1e300}, 199),  # every other round explores: the hundredth in round 199
    ],
)
def test_sums_are_solved_anew_every_hundred_rows(name, given, rounds):
    """Then to solve them again changes no bit; a row before it does."""
    facts, learner, changed = HOMES[name], built(name, given, 3), []
    for t in range(rounds):
        arm = learner.act(contexts(facts, t, learner.run_ids))
        learner.observe(arm, 0.3 * (arm + t % 3) - 0.5)
        if t in (rounds - 2, rounds - 1):
            copy = built(name, given, 3)
            copy.load_state_dict(learner.state_dict())
            (copy.model if hasattr(copy, "model") else copy.policies).rebuild()
            changed.append(any(not torch.equal(a, b) for a, b in zip(copy._tensors().values(), learner._tensors().values(), strict=True)))  # fmt: skip  # noqa: E501
    assert changed == [True, False]


def test_contexts_are_copied_however_they_lie_in_memory():
    for shown in (tensor([1.0, 2.0], [3.0, 4.0]), runs_last(tensor([1.0, 2.0], [3.0, 4.0]))):
        learner = DisjointLinUCB(1, 2, 2)
        arm = learner.act(shown)
        shown.zero_()
        learner.observe(arm, tensor(1.0, 1.0))
        assert learner.model.target[:, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
