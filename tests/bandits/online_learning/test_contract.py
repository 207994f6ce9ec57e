"""What every named learner of online convex optimisation keeps; a learner joins by a line in `problems.HOMES`."""

import dataclasses
import functools

import pytest
import torch

from bandits import make
from bandits.config import CONFIGS
from bandits.online_config import ONLINE
from bandits.online_learning.named import BUILDERS
from orbs import Feedback
from tests.bandits.contract import equal, everything
from tests.bandits.online_learning.problems import BOX, HOMES, SIMPLEX, VARIANTS, built, feedback, play, sequence

ROUNDS, RUNS = 60, 5
CASES = pytest.mark.parametrize(("name", "given"), VARIANTS, ids=lambda value: str(value))
FIRST = pytest.mark.parametrize("name", list(HOMES))


@functools.cache
def _straight(name, given, kind):
    learner = built(name, dict(given), RUNS)
    return *play(learner, sequence(kind, HOMES[name], ROUNDS, RUNS), ROUNDS), learner


def straight(name, given, kind="random"):
    """Points and gradients of all rounds at home, and the learner then. Many tests look at them: only look."""
    return _straight(name, tuple(given.items()), kind)


def test_every_learner_is_under_the_contract():
    assert set(HOMES) == {kind.name for kind in ONLINE} == set(BUILDERS)


@CASES
def test_points_lie_in_the_domain(name, given):
    for kind in ("random", "adversarial", "burst"):
        points, _, learner = straight(name, given, kind)
        assert points.shape == (ROUNDS, RUNS, HOMES[name]["dimension"])
        assert points.dtype == torch.float64
        assert learner.domain.contains(points).all()
        assert learner.finite().all()
        assert learner.rounds == ROUNDS


@CASES
def test_runs_are_independent(name, given):
    """Run i among others is run i alone."""
    points, seen, _ = straight(name, given)
    for run in (0, RUNS - 1):
        alone, _ = play(built(name, given, [run]), lambda t, x, run=run: seen[t, run : run + 1], ROUNDS)
        torch.testing.assert_close(alone[:, 0], points[:, run], rtol=0, atol=1e-12)


@CASES
def test_memory_layout_is_of_no_effect(name, given):
    """Gradients with the run axis first or last in memory."""
    _, seen, _ = straight(name, given)
    first, _ = play(built(name, given, RUNS), lambda t, x: seen[t].contiguous(), ROUNDS)
    last, _ = play(built(name, given, RUNS), lambda t, x: seen[t].T.contiguous().T, ROUNDS)
    torch.testing.assert_close(first, last, rtol=0, atol=1e-13)


@CASES
@pytest.mark.parametrize("stop", [0, 1, 37])
def test_resume_equals_a_straight_run(name, given, stop):
    gradients = sequence("random", HOMES[name], ROUNDS, RUNS)
    whole, _, there = straight(name, given)
    first = built(name, given, RUNS)
    if stop:
        play(first, gradients, stop)
    second = built(name, given, RUNS)
    second.load_state_dict(everything(first))
    rest, _ = play(second, gradients, ROUNDS - stop, stop)
    assert torch.equal(rest, whole[stop:])
    equal(everything(there), everything(second))
    assert second.rounds == ROUNDS


@CASES
def test_a_state_is_a_copy(name, given):
    learner = built(name, given, RUNS)
    play(learner, sequence("random", HOMES[name], ROUNDS, RUNS), 3)
    state = learner.state_dict()
    kept = {key: tensor.clone() for key, tensor in state.items()}
    other = built(name, given, RUNS)
    other.load_state_dict(state)
    play(other, sequence("adversarial", HOMES[name], ROUNDS, RUNS), 3)
    equal(state, kept)


@CASES
def test_the_world_may_reuse_its_tensors(name, given):
    """Gradients are neither written to nor leaned on once `observe` has returned."""
    whole, seen, _ = straight(name, given)
    learner, buffer, points = built(name, given, RUNS), torch.empty_like(seen[0]), []
    for gradient in seen:
        points.append(learner.act().clone())
        buffer.copy_(gradient)
        learner.observe(points[-1], feedback(learner, buffer, points[-1], 0))
        assert torch.equal(buffer, gradient)
        buffer.fill_(torch.nan)
    torch.testing.assert_close(torch.stack(points), whole, rtol=0, atol=1e-13)


@FIRST
def test_a_state_of_another_learner_is_refused(name):
    learner = built(name, {}, RUNS)
    play(learner, sequence("random", HOMES[name], ROUNDS, RUNS), 2)
    state = learner.state_dict()
    before = everything(learner)
    for wrong in (
        {key: tensor for key, tensor in state.items() if key != "rounds"},
        {**state, "more": torch.zeros(1)},
        built(name, {}, RUNS + 1).state_dict(),
    ):
        with pytest.raises(ValueError, match=r"state.*expected .* got .*Fix: load a state of the same learner"):
            learner.load_state_dict(wrong)
        equal(everything(learner), before)


@FIRST
def test_bad_gradients_are_refused_and_nothing_is_learned(name):
    learner = built(name, {}, RUNS)
    play(learner, sequence("random", HOMES[name], ROUNDS, RUNS), 2)
    before = everything(learner)
    d = HOMES[name]["dimension"]
    good = torch.full((RUNS, d), 0.5, dtype=torch.float64)
    holes = good.clone()
    holes[1, 1] = torch.nan
    for wrong, said in (
        (good[:, :-1], rf"feedback.gradient: expected shape \({RUNS}, {d}\), got shape \({RUNS}, {d - 1}\)"),
        (good[:1], r"feedback.gradient: expected shape"),
        (holes, r"feedback.gradient: expected (finite numbers|losses in .*), got numbers from nan to nan by round 3"),
        (good + torch.inf, r"feedback.gradient: expected (finite numbers|losses in .*), got numbers from inf"),
    ):
        with pytest.raises(ValueError, match=said):
            learner.observe(learner.act(), wrong)
        equal(everything(learner), before)
    with pytest.raises(ValueError, match=r"feedback.gradient: expected the loss's gradient .*got none"):
        learner.observe(learner.act(), Feedback(reward=torch.zeros(RUNS)))


@pytest.mark.parametrize("name", [name for name, facts in HOMES.items() if facts is SIMPLEX])
def test_losses_outside_the_declared_range_are_refused(name):
    learner = built(name, {}, RUNS)
    for value in (-1.1, 2.1):
        wrong = torch.full((RUNS, 4), 0.5, dtype=torch.float64)
        wrong[2, 3] = value
        with pytest.raises(ValueError, match=r"feedback.gradient: expected losses in \[-1, 2\], got numbers from"):
            learner.observe(learner.act(), wrong)


@FIRST
def test_every_field_of_a_configuration_is_checked(name):
    kind = CONFIGS[name]
    for field in dataclasses.fields(kind):
        for wrong in (-1.0, float("nan"), "many"):
            with pytest.raises(ValueError, match=rf"{name}.{field.name}: expected .*, got .*Fix: e.g. {field.name}="):
                kind(**{field.name: wrong})


def test_unknown_names_and_fields():
    with pytest.raises(ValueError, match=r"learner: expected one of hedge.*, got 'hegde'. Fix: did you mean 'hedge'"):
        make("hegde", SIMPLEX)
    with pytest.raises(ValueError, match=r"hedge.rat: expected a field of HedgeConfig, got 'rat'.*did you mean 'rate'"):
        make("hedge", SIMPLEX, rat=0.1)
    with pytest.raises(ValueError, match=r"runs: expected at least one run, got 0"):
        make("hedge", SIMPLEX, runs=0)


def test_a_missing_fact_is_named():
    facts = {key: value for key, value in BOX.items() if key != "gradient_bound"}
    with pytest.raises(ValueError, match=r"optimistic-omd: expected a problem with gradient_bound, got one with"):
        make("optimistic-omd", facts)
    make("optimistic-omd", facts, bound=2.0)
    with pytest.raises(ValueError, match=r"facts.domain: expected a Domain, or one of ball, .*got None"):
        make("ogd", {"diameter": 1.0})
    with pytest.raises(ValueError, match=r"optimistic-omd-implicit: expected a problem of absolute or hinge losses"):
        make("optimistic-omd-implicit", {**BOX, "term": "squared"})


@pytest.mark.parametrize("name", ["hedge", "adahedge", "log-barrier", "tsallis", "optimistic-hedge"])
def test_a_regulariser_that_does_not_fit_the_domain(name):
    with pytest.raises(ValueError, match=r"expected .*simplex.*, got .*Ball"):
        make(name, {**SIMPLEX, "domain": ("ball", {"dimension": 4})})


@pytest.mark.gpu
@CASES
def test_the_device_computes_the_same(name, given):
    _, seen, _ = straight(name, given)
    here, _ = play(built(name, given, RUNS), lambda t, x: seen[t], ROUNDS)
    there = make(name, HOMES[name], runs=RUNS, device="cuda", **given)
    points, _ = play(there, lambda t, x: seen[t].cuda(), ROUNDS)
    torch.testing.assert_close(points.cpu(), here, rtol=0, atol=1e-9)
    there.check()
