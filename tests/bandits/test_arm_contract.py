"""What every named learner of arms keeps; a learner joins by a line in `arm_homes.HOMES`."""

import pytest
import torch

from bandits.config import CONFIGS
from orbs import Feedback
from tests.bandits import arm_homes, contract
from tests.bandits.arm_homes import ARMS, HOMES, VARIANTS, built, contexts, make, play, rewards
from tests.bandits.contract import equal, everything, straight

ROUNDS, RUNS = 45, 5
CASES = pytest.mark.parametrize(("name", "given"), VARIANTS, ids=lambda value: str(value))
FIRST = pytest.mark.parametrize("name", list(HOMES))
# Their arms are drawn in every round.
RANDOM = ("random", "thompson-beta", "thompson-gaussian", "exp3", "exp3-auer", "exp3-ix", "exp3-p", "exp3-s", "rexp3",
          "exp4", "tsallis-inf", "dynamical-exp3", "square-cb", "contextual-explore-first")  # fmt: skip
NAMED = pytest.mark.parametrize("name", [name for name in HOMES if "@" not in name])


def test_every_learner_of_arms_is_under_the_contract():
    others = ("bandits.online_learning", "bandits.mdp")
    online = {name for name, kind in CONFIGS.items() if kind.family.startswith(others)}
    plans = {"expert"}  # plays a point, not an arm: tests/bandits/linear/test_fixed_plan.py
    assert {name.partition("@")[0] for name in HOMES} == set(CONFIGS) - online - plans


@CASES
def test_arms_are_arms(name, given):
    arms, learner = straight(arm_homes, name, given, RUNS, ROUNDS)
    assert arms.shape == (ROUNDS, RUNS)
    assert arms.dtype == torch.int64
    assert ((arms >= 0) & (arms < HOMES[name]["arms"])).all()
    assert learner.finite().all()
    assert learner.rounds == ROUNDS


@CASES
def test_asked_twice_it_answers_the_same(name, given):
    learner = built(name, given, RUNS)
    play(learner, HOMES[name], 7)
    shown = contexts(HOMES[name], 7, learner.run_ids)
    before = everything(learner)
    assert torch.equal(learner.act(shown).clone(), learner.act(shown))
    equal(everything(learner), before)


@CASES
def test_runs_are_independent(name, given):
    """Run i among others plays the arms of run i alone."""
    together, _ = straight(arm_homes, name, given, RUNS, ROUNDS)
    for run in (0, RUNS - 1):
        assert torch.equal(play(built(name, given, [run]), HOMES[name], ROUNDS)[:, 0], together[:, run])


@CASES
def test_a_seed_is_a_stream(name, given):
    first = play(make(name, HOMES[name], runs=RUNS, seed=3, **given), HOMES[name], 15)
    assert torch.equal(first, play(make(name, HOMES[name], runs=RUNS, seed=3, **given), HOMES[name], 15))
    if name in RANDOM:
        assert not torch.equal(first, play(make(name, HOMES[name], runs=RUNS, seed=4, **given), HOMES[name], 15))


@FIRST
def test_rewards_of_any_type(name):
    """What torch.bernoulli or a comparison gives is a reward too, where its values are those."""
    facts = HOMES[name]
    if facts.get("reward_low", 0.0) > 0.0 or facts.get("reward_high", 1.0) < 1.0:
        pytest.skip("0 and 1 are outside the range")
    states = []
    for kind in (torch.float64, torch.float32, torch.int64, torch.bool):
        learner = built(name, {}, RUNS)
        play(learner, facts, 12, reward=lambda facts, t, arm, runs, kind=kind: (arm % 2 == t % 2).to(kind))
        states.append(everything(learner))
    for other in states[1:]:
        equal(states[0], other)


@CASES
@pytest.mark.parametrize("stop", [1, 29])
def test_resume_equals_a_straight_run(name, given, stop):
    contract.resumes(arm_homes, name, given, RUNS, ROUNDS, stop)


@CASES
def test_a_state_is_a_copy(name, given):
    contract.keeps_its_state(arm_homes, name, given, RUNS, 9)


@CASES
def test_the_world_may_reuse_its_tensors(name, given):
    facts, (whole, there) = HOMES[name], straight(arm_homes, name, given, RUNS, ROUNDS)
    learner = built(name, given, RUNS)
    reward = torch.empty(RUNS, dtype=torch.float64)
    for t in range(ROUNDS):
        shown = contexts(facts, t, learner.run_ids)
        arm = learner.act(shown).clone()
        assert torch.equal(arm, whole[t])
        reward.copy_(rewards(facts, t, arm, learner.run_ids))
        kept = reward.clone()
        learner.observe(arm, reward)
        assert torch.equal(reward, kept)
        for tensor in (reward, arm, *([] if shown is None else [shown])):
            tensor.fill_(0)
    equal(everything(learner), everything(there))


@CASES
def test_one_arm(name, given):
    given = {key: value for key, value in given.items() if key not in ("arm", "action")}
    facts = {**HOMES[name], "arms": 1, "domain": ("arms", {"dimension": 1})}
    if facts.get("features") is not None:
        facts["features"] = facts["features"][..., :1, :]
    if facts.get("advice") is not None:
        facts["advice"] = torch.ones_like(facts["advice"][..., :1])
    learner = make(name, facts, runs=RUNS, **given)
    assert (play(learner, facts, 20) == 0).all()
    assert learner.finite().all()


@CASES
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_rewards_give_no_nan(name, given, level):
    facts, learner = HOMES[name], built(name, given, RUNS)
    low, high = facts.get("reward_low", 0.0), facts.get("reward_high", 1.0)
    value = low + (high - low) * level
    play(learner, facts, 50, reward=lambda facts, t, arm, runs: torch.full((len(runs),), value, dtype=torch.float64))
    assert learner.finite().all()


@CASES
@pytest.mark.parametrize("horizon", [1, 3])
def test_horizons_shorter_than_the_arms(name, given, horizon):
    learner = built(name, given, RUNS, horizon=horizon)
    play(learner, HOMES[name], horizon)
    assert learner.finite().all()


@FIRST
def test_a_state_of_another_learner_is_refused(name):
    contract.refuses_other_states(arm_homes, name, RUNS)


@FIRST
def test_bad_feedback_is_refused_and_nothing_is_learned(name):
    facts, learner = HOMES[name], built(name, {}, RUNS)
    play(learner, facts, 2)
    arm = learner.act(contexts(facts, 2, learner.run_ids)).clone()
    before = everything(learner)
    good = torch.full((RUNS,), 0.5, dtype=torch.float64)
    holes = good.clone()
    holes[1] = torch.nan
    for wrong, said in (
        (good[:-1], rf"feedback.reward: expected shape \({RUNS},\), got shape \({RUNS - 1},\)"),
        (holes, r"feedback.reward: expected (finite numbers|rewards in .*), got numbers from nan to nan by round 3"),
        (good + torch.inf, r"feedback.reward: expected (finite numbers|rewards in .*), got numbers from inf"),
    ):
        with pytest.raises(ValueError, match=said):
            learner.observe(arm, wrong)
        equal(everything(learner), before)
    for wrong, said in (
        (arm.double(), r"action: expected int64 of shape \(5,\), got torch.float64"),
        (arm[:-1], r"action: expected int64 of shape \(5,\), got torch.int64 of shape \(4,\)"),
        (torch.full_like(arm, facts["arms"]), rf"action: expected arms 0 to {facts['arms'] - 1}, got arm"),
        (torch.full_like(arm, -1), r"action: expected arms 0 to .*, got arm -1"),
    ):
        with pytest.raises(ValueError, match=said):
            learner.observe(wrong, good)
        equal(everything(learner), before)
    with pytest.raises(ValueError, match=r"feedback.reward: expected the reward of the arm .*got none"):
        learner.observe(arm, Feedback())
    equal(everything(learner), before)


@pytest.mark.parametrize("name", [name for name, facts in HOMES.items() if "reward_low" in facts])
def test_rewards_outside_the_declared_range_are_refused(name):
    learner, facts = built(name, {}, RUNS), HOMES[name]
    for value in (facts["reward_low"] - 0.1, facts["reward_high"] + 0.1):
        wrong = torch.full((RUNS,), 0.5, dtype=torch.float64)
        wrong[2] = value
        with pytest.raises(ValueError, match=r"feedback.reward: expected rewards in \[.*\], got numbers from"):
            learner.observe(learner.act(contexts(facts, 0, learner.run_ids)), wrong)


@pytest.mark.parametrize("name", [name for name, facts in HOMES.items() if {"context_dimension", "feature_dimension"} & facts.keys()])  # fmt: skip  # noqa: E501
def test_contexts_of_another_shape_are_refused(name):
    facts, learner = HOMES[name], built(name, {}, RUNS)
    shown = contexts(facts, 0, learner.run_ids)
    holes = shown.clone()
    holes[1] = torch.nan
    for wrong in (None, shown[:-1], shown[..., :-1], holes):
        with pytest.raises(ValueError, match=r"context.*: expected .*, got .*Fix: "):
            learner.act(wrong)


@NAMED
def test_every_field_of_a_configuration_is_checked(name):
    contract.checks_every_field(name)


@NAMED
def test_problems_without_arms_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.*: expected a problem with arms .*got points of a simplex"):
        make(name, {**HOMES[name], "domain": ("simplex", {"dimension": 5})})


def test_unknown_names_and_fields():
    with pytest.raises(ValueError, match=r"learner: expected one of .*, got 'ucb2'. Fix: did you mean 'ucb1'"):
        make("ucb2", ARMS)
    with pytest.raises(ValueError, match=r"ucb1.scal: expected a field of UCB1Config.*did you mean 'scale'"):
        make("ucb1", ARMS, scal=0.1)
    with pytest.raises(ValueError, match=r"runs: expected at least one run, got 0"):
        make("ucb1", ARMS, runs=0)


@pytest.mark.gpu
@CASES
def test_the_device_computes_the_same(name, given):
    facts, (whole, _) = HOMES[name], straight(arm_homes, name, given, RUNS, ROUNDS)
    there = make(name, facts, runs=RUNS, device="cuda", **given)
    for t in range(ROUNDS):
        shown = contexts(facts, t, there.run_ids)
        arm = there.act(None if shown is None else shown.cuda())
        assert torch.equal(arm.cpu(), whole[t])
        there.observe(arm, rewards(facts, t, whole[t], there.run_ids).cuda())
    there.check()
