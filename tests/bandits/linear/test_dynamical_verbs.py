"""Resumes, held actions, names and bad input of DynLin-UCB and its baselines."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

import bandits
from bandits.linear.ar2 import AR2
from bandits.linear.dyn_lin_ucb import DynLinUCB
from bandits.linear.dynamical_exp3 import BatchExp3, DynamicalExp3
from bandits.linear.dynamical_lin_ucb import DynamicalDLinUCB, DynamicalLinUCB, ExperimentFacts
from bandits.linear.fixed_plan import FixedPlan
from envs.dynamical_linear_bandit import DynamicalLinearBandit
from envs.linear_system import LinearSystem
from orbs import Feedback
from tests.bandits.linear import reference_dynamical as plain
from tests.bandits.linear.dynamical import ALL, MAKE, dynamics_in, facts, jumped, known, stepped

# One arm, one round.


@ALL
@pytest.mark.parametrize(("arms", "horizon"), [(6, 1), (1, 1), (1, 40), (2, 40)])
def test_few_arms_and_rounds(name, arms, horizon):
    s = plain.plant("advertising", 0.01)
    learner = MAKE[name](s.actions[:arms], s, horizon, runs=3, seed=2)
    for t in range(horizon):
        arm = learner.act().clone()
        assert ((arm >= 0) & (arm < arms)).all()
        learner.observe(arm, torch.full((3,), 0.3 * (t % 2), dtype=torch.float64))
    assert learner.finite().all()


@ALL
def test_what_act_answered_is_the_caller_s(name):
    """A list of what `act` answered is the arms of the rounds, not many times the last one."""
    s = plain.plant("advertising", 0.3)
    learner, kept, copies = MAKE[name](s.actions, s, 60, runs=5), [], []
    for _ in range(60):
        arm = learner.act()
        kept.append(arm)
        copies.append(arm.clone())
        learner.observe(arm, 0.1 * arm.double())
    assert torch.equal(torch.stack(kept), torch.stack(copies))


# Resumes, holding and skipping.

HOLD = pytest.mark.parametrize("name", ["dyn", "dyn-late", "batch-exp3"])


@HOLD
@pytest.mark.parametrize("jumping", [False, True])
@pytest.mark.parametrize("stop", [1, 5, 34, 36])
def test_resume_within_a_held_action(name, stop, jumping):
    s = plain.plant("advertising", 0.3)
    make = functools.partial(MAKE[name], s.actions, s, 80, runs=3, seed=2)
    go = jumped if jumping else stepped
    straight, world = make(), DynamicalLinearBandit("advertising", 80, 3, 5)
    go(straight, world, stop)
    go(straight, world)
    first, there = make(), DynamicalLinearBandit("advertising", 80, 3, 5)
    go(first, there, stop)
    second, here = make(), DynamicalLinearBandit("advertising", 80, 3, 5)
    second.load_state_dict(first.state_dict())
    here.load_state_dict(there.state_dict())
    assert second.hold() == first.hold()
    assert torch.equal(second.act(), first.act())
    go(second, here)
    for one, other in ((straight, second), (world, here)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


@HOLD
def test_while_an_action_is_held_it_is_the_same(name):
    s = plain.plant("advertising", 0.3)
    learner, longest = MAKE[name](s.actions, s, 200, runs=4), 0
    for _ in range(60):
        rounds, arm = learner.hold(), learner.act().clone()
        longest = max(longest, rounds)
        for left in range(rounds, 0, -1):
            assert learner.hold() == left
            assert torch.equal(learner.act(), arm)
            learner.observe(arm, 0.1 * arm.double())
    assert longest > 3


@HOLD
def test_skipped_rounds_are_as_observed_ones(name):
    """The rewards of a batch come as their sum; of an epoch only the last one counts."""
    s = plain.plant("advertising", 0.3)
    one, other = (MAKE[name](s.actions, s, 200, runs=4) for _ in range(2))
    rng = torch.Generator().manual_seed(1)
    for _ in range(25):
        rounds, arm = one.hold(), one.act().clone()
        rewards = torch.randn(rounds, 4, generator=rng, dtype=torch.float64)
        for reward in rewards:
            one.observe(arm, reward)
        other.skip(rounds - 1)
        other.observe(arm, Feedback(rewards[-1], terms={"total": rewards.sum(0)}))
    assert one.rounds == other.rounds
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-11, atol=1e-11)


@ALL
def test_the_last_round_of_a_held_action_is_not_skipped(name):
    s = plain.plant("advertising", 0.3)
    learner = MAKE[name](s.actions, s, 200, runs=2)
    for _ in range(30):
        learner.observe(learner.act(), torch.zeros(2, dtype=torch.float64))
    held = learner.hold()
    for wrong in (held, held + 3, -1):
        with pytest.raises(ValueError, match=rf"rounds: expected fewer than the {held} .*got {wrong}\. Fix: observe"):
            learner.skip(wrong)
        assert learner.rounds == 30
    learner.skip(held - 1)
    assert (learner.rounds, learner.hold()) == (29 + held, 1)
    learner.skip(0)
    assert learner.holds or held == 1


def test_a_plan_is_held_for_ever():
    learner = FixedPlan([0.2, 0.4], 3)
    assert learner.act().shape == (3, 2)
    learner.skip(10**7)
    learner.observe(learner.act(), torch.zeros(3, dtype=torch.float64))
    assert learner.rounds == 10**7 + 1
    assert learner.hold() > 10**12
    other = FixedPlan([0.2, 0.4], 3)
    other.load_state_dict(learner.state_dict())
    assert other.rounds == learner.rounds


@pytest.mark.parametrize("name", ["dyn", "lin", "d-lin"])
def test_the_first_arm_is_any_of_them(name):
    s = plain.plant("advertising", 0.01)
    first = MAKE[name](s.actions, s, 100, runs=3000, seed=1).act()
    counts = torch.bincount(first, minlength=6).double()
    assert float(((counts - 500) ** 2 / 500).sum()) < 25.7  # chi-squared with 5 degrees, 1 - 1e-4
    assert not torch.equal(first, MAKE[name](s.actions, s, 100, runs=3000, seed=2).act())


# By name: what the configuration and the problem's facts say reaches the learner.

NAMED = [
    ("dyn-lin-ucb", {}, lambda u, d, f: DynLinUCB(u, d, 300, runs=3, seed=4)),
    (
        "dyn-lin-ucb",
        {"ridge": 0.4, "spectral_radius": 0.3, "replicate_offset": True},
        lambda u, d, f: DynLinUCB(u, d, 300, ridge=0.4, spectral_radius=0.3, replicate_offset=True, runs=3, seed=4),
    ),
    ("dynamical-lin-ucb", {}, lambda u, d, f: DynamicalLinUCB(u, f, runs=3, seed=4)),
    ("dynamical-lin-ucb", {"tuning": "one"}, lambda u, d, f: DynamicalLinUCB(u, f, tuning="one", runs=3, seed=4)),
    (
        "dynamical-lin-ucb",
        {"tuning": "dynamic"},
        lambda u, d, f: DynamicalLinUCB(u, f, tuning="dynamic", runs=3, seed=4),
    ),
    ("dynamical-d-lin-ucb", {}, lambda u, d, f: DynamicalDLinUCB(u, f, runs=3, seed=4)),
    (
        "dynamical-d-lin-ucb",
        {"tuning": "one", "discount": 0.95},
        lambda u, d, f: DynamicalDLinUCB(u, f, tuning="one", discount=0.95, runs=3, seed=4),
    ),
    ("dynamical-exp3", {}, lambda u, d, f: DynamicalExp3(6, d, 300, runs=3, seed=4)),
    ("batch-exp3", {}, lambda u, d, f: BatchExp3(6, d, 300, runs=3, seed=4)),
    (
        "batch-exp3",
        {"batch": 4, "replicate_misalignment": True},
        lambda u, d, f: BatchExp3(6, d, 300, batch=4, replicate_misalignment=True, runs=3, seed=4),
    ),
    ("ar2", {}, lambda u, d, f: AR2(6, d.spectral_radius, 0.2, runs=3, seed=4)),
    (
        "ar2",
        {"correlation": 0.5, "replicate_quirks": True},
        lambda u, d, f: AR2(6, 0.5, 0.2, replicate_quirks=True, runs=3, seed=4),
    ),
]


@pytest.mark.parametrize(("name", "given", "direct"), NAMED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_learner_by_name_is_the_learner(name, given, direct):
    worlds = [DynamicalLinearBandit("advertising", 300, 3, 6, noise=0.2) for _ in range(2)]
    d = dynamics_in(worlds[0])
    mine = known(plain.plant("advertising", 0.2))
    assert dataclasses.astuple(d) == pytest.approx(dataclasses.astuple(mine), rel=1e-12)
    one = bandits.make(name, worlds[0].facts, 3, 4, **given)
    other = direct(worlds[1].facts["features"], d, ExperimentFacts(d, 300, 1.5))
    assert torch.equal(stepped(one, worlds[0]), stepped(other, worlds[1]))
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_only_a_problem_with_a_planner_has_an_expert():
    with pytest.raises(ValueError, match=r"expert: expected a problem with a human planner, got one without"):
        bandits.make("expert", DynamicalLinearBandit("synthetic").facts, 1)


# What is refused.

U = plain.plant("synthetic", 0.1).actions
HERE = known(plain.plant("synthetic", 0.1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DynLinUCB(np.zeros((0, 3)), HERE, 10), r"features: expected actions \(K, d\), at least one"),
        (lambda: DynLinUCB(U[0], HERE, 10), r"features: expected actions \(K, d\)"),
        (lambda: DynLinUCB(U * np.nan, HERE, 10), r"features: expected finite numbers"),
        (lambda: DynamicalLinUCB(U[:0], ExperimentFacts(HERE, 10, 1.5)), r"features: expected actions"),
        (lambda: DynamicalDLinUCB(U[:0], ExperimentFacts(HERE, 10, 1.5), tuning="one"), r"features: expected actions"),
        (lambda: DynLinUCB(U, HERE, 0), r"horizon: expected at least 1 round, got 0"),
        (lambda: ExperimentFacts(HERE, 0, 1.5), r"horizon: expected at least 1 round, got 0"),
        (lambda: DynamicalExp3(6, HERE, 0), r"horizon.*: expected at least 1 round"),
        (lambda: BatchExp3(6, HERE, 0), r"horizon.*: expected at least 1 round"),
        (lambda: BatchExp3(6, HERE, 10, batch=0), r"batch: expected at least 1 round"),
        (lambda: DynLinUCB(U, HERE, 10, ridge=0.0), r"ridge: expected a finite number above 0.*got 0.0"),
        (lambda: DynLinUCB(U, HERE, 10, ridge=math.nan), r"ridge: expected a finite number above 0"),
        (lambda: DynLinUCB(U, HERE, 10, ridge=math.inf), r"ridge: expected a finite number above 0"),
        (lambda: DynLinUCB(U, HERE, 10, spectral_radius=1.0), r"spectral_radius: expected a number below 1, got 1.0"),
        (lambda: DynLinUCB(U, HERE, 10, spectral_radius=-0.1), r"spectral_radius: expected a finite number of at leas"),
        (lambda: DynLinUCB(U, HERE, 10, first_action=6), r"first_action: expected None, or an arm from 0 to 5, got 6"),
        (lambda: dataclasses.replace(HERE, spectral_radius=1.2), r"dynamics.spectral_radius: expected a number below"),
        (lambda: dataclasses.replace(HERE, transient=0.9), r"dynamics.transient: expected .* at least 1, got 0.9"),
        (lambda: dataclasses.replace(HERE, noise=math.nan), r"dynamics.noise: expected a finite number"),
        (lambda: DynamicalDLinUCB(U, ExperimentFacts(HERE, 10, 1.5), discount=1.0), r"discount: expected a number"),
        (lambda: AR2(6, 0.0, 0.1), r"correlation: expected a number between 0 and 1"),
        (lambda: AR2(6, 1.0, 0.1), r"correlation: expected a number between 0 and 1"),
        (lambda: AR2(6, 0.2, 0.0), r"noise: expected a finite number above 0"),
        (lambda: FixedPlan([0.1, math.nan]), r"plan: expected finite numbers"),
        (lambda: FixedPlan([[0.1]]), r"plan: expected finite numbers \(d,\)"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make, said):
    with pytest.raises(ValueError, match=said + r".*Fix: "):
        make()


def test_an_unstable_system_is_refused():
    good = {"B": np.eye(2), "C": np.eye(2), "D": np.eye(2), "actions": np.eye(2)}
    assert LinearSystem(A=np.diag([0.999, 0.1]), **good).spectral_radius == pytest.approx(0.999)
    for largest in (1.0, 1.3, -1.0):
        with pytest.raises(ValueError, match=r"system.A: expected a stable system.*Fix: scale A down"):
            LinearSystem(A=np.diag([largest, 0.1]), **good)
    with pytest.raises(ValueError, match=r"system.A: expected a stable system"):
        LinearSystem(A=np.array([[0.0, 1.1], [-1.1, 0.0]]), **good)  # complex eigenvalues


def test_an_action_set_that_does_not_fit_is_refused():
    good = {"A": 0.5 * np.eye(2), "B": np.eye(2), "C": np.eye(2), "D": np.eye(2)}
    for actions in (np.zeros((0, 2)), np.zeros((3, 3)), [1.0, 0.0], [[0.1, np.inf]]):
        with pytest.raises(ValueError, match=r"system.actions: expected .*Fix: "):
            LinearSystem(**good, actions=actions)


@ALL
def test_bad_feedback_is_refused_and_nothing_is_learned(name):
    s = plain.plant("advertising", 0.3)
    learner = MAKE[name](s.actions, s, 100, runs=3)
    for _ in range(7):
        learner.observe(learner.act(), torch.ones(3, dtype=torch.float64))
    before = learner.state_dict()
    good, arm = torch.zeros(3, dtype=torch.float64), learner.act().clone()
    for reward in (torch.tensor([0.0, torch.nan, 0.0]).double(), good + torch.inf, good - torch.inf):
        with pytest.raises(ValueError, match=r"feedback.reward: expected finite numbers"):
            learner.observe(arm, reward)
    with pytest.raises(ValueError, match=r"feedback.reward: expected shape \(3,\), got shape \(2,\)"):
        learner.observe(arm, good[:2])
    for strange in (6, -1):
        with pytest.raises(ValueError, match=rf"action: expected arms 0 to 5, got arm {strange}"):
            learner.observe(torch.full_like(arm, strange), good)
    after = learner.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@ALL
def test_it_learns_from_the_action_that_it_is_given(name):
    """The arm that was played is another than the one asked for."""
    s = plain.plant("advertising", 0.3)
    learner = MAKE[name](s.actions, s, 100, runs=2)
    while learner.hold() > 1:
        learner.observe(learner.act(), torch.ones(2, dtype=torch.float64))
    other = (learner.act() + 1) % 6
    before = learner.state_dict()
    learner.observe(other, torch.full((2,), 0.7, dtype=torch.float64))
    for table in ("plays", "gains", "last"):
        if table in before:
            changed = (learner.state_dict()[table] != before[table]).nonzero()
            assert changed.tolist() == [[0, int(other[0])], [1, int(other[1])]] or "late" in name


def test_a_discount_that_no_double_can_undo_is_refused_or_played():
    """mu_t = lam g^-t leaves the doubles after 709 / ln(1 / g) rounds."""
    s = plain.plant("advertising", 0.3)
    try:
        learner = DynamicalDLinUCB(s.actions, facts(s, 8000), tuning="one", discount=0.9, runs=1)
    except ValueError as error:
        assert "discount" in str(error)  # noqa: PT017 (either outcome is fine, an OverflowError later is not)
        return
    learner.rounds = 7000
    learner.observe(learner.act(), torch.zeros(1, dtype=torch.float64))
