"""What every named learner of episodic MDPs keeps; a learner joins by a line in `homes.HOMES`."""

import pytest
import torch

from bandits.config import CONFIGS
from orbs import Feedback
from tests.bandits import contract
from tests.bandits.contract import equal, everything, straight
from tests.bandits.mdp import homes
from tests.bandits.mdp.homes import ACTIONS, HOMES, LOSSES, STATES, STEPS, VARIANTS, built, episode, make, play

EPISODES, RUNS = 12, 3
CASES = pytest.mark.parametrize(("name", "given"), VARIANTS, ids=str)
FIRST = pytest.mark.parametrize("name", list(HOMES))
NAMED = pytest.mark.parametrize("name", [name for name in HOMES if "@" not in name])


def test_every_learner_of_episodes_is_under_the_contract():
    there = {name for name, kind in CONFIGS.items() if kind.family.startswith("bandits.mdp")}
    assert {name.partition("@")[0] for name in HOMES} == there


@CASES
def test_policies_are_policies(name, given):
    policies, learner = straight(homes, name, given, RUNS, EPISODES)
    assert policies.shape == (EPISODES, RUNS, STEPS, STATES, ACTIONS)
    assert policies.dtype == torch.float64
    assert (policies >= 0).all()
    torch.testing.assert_close(policies.sum(-1), torch.ones(policies.shape[:-1], dtype=torch.float64))
    assert learner.finite().all()
    assert learner.rounds == EPISODES


@CASES
def test_asked_twice_it_answers_the_same(name, given):
    learner = built(name, given, RUNS)
    play(learner, HOMES[name], 5)
    before = everything(learner)
    first = learner.act().clone()
    equal(everything(learner), before)
    assert torch.equal(first, learner.act())
    again = built(name, given, RUNS)
    again.load_state_dict(before)
    assert torch.equal(first, again.act())


@CASES
def test_runs_are_independent(name, given):
    """Run i among others plays the policies of run i alone, up to the rounding of batched products."""
    together, _ = straight(homes, name, given, RUNS, EPISODES)
    for run in (0, RUNS - 1):
        alone = play(built(name, given, [run]), HOMES[name], EPISODES)[:, 0]
        torch.testing.assert_close(alone, together[:, run], rtol=1e-9, atol=1e-12)


@CASES
def test_a_seed_is_a_stream(name, given):
    first = play(make(name, HOMES[name], runs=RUNS, seed=3, **given), HOMES[name], 8)
    assert torch.equal(first, play(make(name, HOMES[name], runs=RUNS, seed=3, **given), HOMES[name], 8))


@CASES
@pytest.mark.parametrize("stop", [1, 7])
def test_resume_equals_a_straight_run(name, given, stop):
    contract.resumes(homes, name, given, RUNS, EPISODES, stop)


@CASES
def test_a_state_is_a_copy(name, given):
    contract.keeps_its_state(homes, name, given, RUNS, 4)


@CASES
def test_the_world_may_reuse_its_tensors(name, given):
    facts, (whole, there) = HOMES[name], straight(homes, name, given, RUNS, EPISODES)
    learner = built(name, given, RUNS)
    for k in range(EPISODES):
        policy = learner.act().clone()
        assert torch.equal(policy, whole[k])
        feedback = episode(facts, k, policy, learner.run_ids)
        kept = {key: tensor.clone() for key, tensor in feedback.terms.items()}
        learner.observe(policy, feedback)
        equal(dict(feedback.terms), kept)
        for tensor in (policy, *feedback.terms.values()):
            tensor.fill_(0)
    equal(everything(learner), everything(there))


@CASES
def test_it_learns_from_what_it_sees(name, given):
    """Other episodes, other policies; but for those that learn nothing."""
    if name in ("reference-policy", "best-policy"):
        pytest.skip("it learns nothing")
    long = 40 if name == "simulator-free-ftrl" else 24  # it learns after whole epochs
    facts, learner = HOMES[name], built(name, given, 1)
    first = play(learner, facts, long)
    other = built(name, given, 1)
    for k in range(long):
        policy = other.act().clone()
        other.observe(policy, episode(facts, k + 1000, policy, other.run_ids))
    assert not torch.equal(first[-1], other.act())


@FIRST
def test_a_state_of_another_learner_is_refused(name):
    contract.refuses_other_states(homes, name, RUNS)


@FIRST
def test_bad_feedback_is_refused_and_nothing_is_learned(name):
    facts, learner = HOMES[name], built(name, {}, RUNS)
    play(learner, facts, 2)
    policy = learner.act().clone()
    before, good = everything(learner), episode(facts, 2, policy, learner.run_ids)

    def changed(field, change):
        tensor = good.terms[field].clone()
        return Feedback(good.reward, None, {**good.terms, field: change(tensor)})

    def put(value):
        def change(tensor):
            tensor[1, 0] = value
            return tensor

        return change

    for wrong, said in (
        (Feedback(good.reward), r"terms\['states'\].*: expected an episode, got none"),
        (changed("rewards", lambda t: t[:-1]), r"terms\['rewards'\].*: expected shape \(3, 4\), got shape \(2, 4\)"),
        (changed("states", lambda t: t[:, :-1]), r"terms\['states'\].*: expected shape \(3, 5\), got shape \(3, 4\)"),
        (changed("states", lambda t: t.double()), r"expected states and actions of int64, got torch.float64"),
        (changed("rewards", put(float("nan"))), r"expected states 0 to 4, actions 0 to 2 and finite rewards"),
        (changed("actions", put(ACTIONS)), r"expected states 0 to 4, actions 0 to 2 and finite .*by episode 3"),
        (changed("states", put(-1)), r"expected states 0 to 4"),
    ):
        with pytest.raises(ValueError, match=said):
            learner.observe(policy, wrong)
        equal(everything(learner), before)


@FIRST
def test_a_policy_of_another_kind_is_refused(name):
    facts, learner = HOMES[name], built(name, {}, RUNS)
    policy = learner.act().clone()
    told = episode(facts, 0, policy, learner.run_ids)
    for wrong in (policy.float(), policy[:-1], policy[..., :-1]):
        with pytest.raises(ValueError, match=r"action: expected the policy that was played, float64 of shape"):
            learner.observe(wrong, told)
    assert learner.rounds == 0


@pytest.mark.parametrize("name", [name for name, facts in HOMES.items() if facts.get("feedback") == "full"])
def test_losses_that_are_not_finite_are_refused(name):
    if name not in ("full-information-ftrl", "cfpo@full"):
        pytest.skip("it does not look at them")
    facts, learner = HOMES[name], built(name, {}, RUNS)
    play(learner, facts, 2)
    policy, before = learner.act().clone(), everything(learner)
    told = episode(facts, 2, policy, learner.run_ids)
    table = told.terms["loss_table"].clone()
    table[0, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"terms\['loss_table'\].*: expected finite losses, got a NaN or inf"):
        learner.observe(policy, Feedback(told.reward, None, {**told.terms, "loss_table": table}))
    equal(everything(learner), before)
    with pytest.raises(ValueError, match=r"expected a problem that reveals its losses \(feedback=full\)"):
        make(name, LOSSES, runs=1, **({"information": "full"} if name == "cfpo@full" else {}))


@NAMED
def test_every_field_of_a_configuration_is_checked(name):
    contract.checks_every_field(name)


@NAMED
def test_problems_without_episodes_are_refused(name):
    facts = {"arms": 5, "domain": ("arms", {"dimension": 5}), "horizon": 40}
    with pytest.raises(ValueError, match=rf"{name}.*: expected a problem of episodes .*got one with arms"):
        make(name, facts)


@NAMED
def test_no_run_is_refused(name):
    with pytest.raises(ValueError, match=r"runs: expected at least one run, got 0"):
        built(name, {}, 0)


def test_horizons_of_one_episode():
    for name in HOMES:
        learner = built(name, {}, 2, horizon=1)
        play(learner, HOMES[name], 1)
        assert learner.finite().all(), name


def test_tabular_problems_have_unit_features():
    for name in ("pol-opt", "log-barrier-ftrl"):
        facts = {**LOSSES, "features": None}
        learner = make(name, facts, runs=2)
        assert play(learner, facts, 4).shape == (4, 2, STEPS, STATES, ACTIONS)


@pytest.mark.gpu
@CASES
def test_the_device_computes_the_same(name, given):
    facts, (whole, _) = HOMES[name], straight(homes, name, given, RUNS, EPISODES)
    there = make(name, facts, runs=RUNS, device="cuda", **given)
    for k in range(EPISODES):
        policy = there.act()
        torch.testing.assert_close(policy.cpu(), whole[k], rtol=1e-8, atol=1e-10)
        told = episode(facts, k, whole[k], there.run_ids)
        terms = {key: tensor.cuda() for key, tensor in told.terms.items()}
        there.observe(whole[k].cuda(), Feedback(terms["rewards"].sum(-1), None, terms))
    there.check()
