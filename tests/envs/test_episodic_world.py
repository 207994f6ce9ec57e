"""Worlds of episodes: what is played follows the policy and the laws, what is judged is exact, single environments."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import envs  # noqa: F401 (registers the ids)
from envs.adversarial_mdp import AdversarialMDP
from envs.mdp_env import MDPVector
from envs.off_dynamics import OffDynamics, RandomRobustMDP
from envs.robust_values import at_start, evaluate, optimal

WORLDS = {
    "off-dynamics": OffDynamics,
    "random": RandomRobustMDP,
    "adversarial": AdversarialMDP,
    "bernoulli": lambda *given, **more: AdversarialMDP(*given, noise="bernoulli", **more),
    "tabular": lambda *given, **more: AdversarialMDP(*given, model="tabular", **more),
}
EACH = pytest.mark.parametrize("name", list(WORLDS))


def some_policy(world, seed=0):
    """A policy, another one for each run."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(world.num_envs, *world.region.shape, dtype=torch.float64, generator=generator)
    return x / x.sum(-1, keepdim=True)


@EACH
def test_episodes_follow_the_policy_and_the_laws(name):
    """Counts over 60,000 runs of one policy against the exact occupancies, state by state, action by action."""
    world = WORLDS[name](2, 60_000)
    policy = some_policy(WORLDS[name](2, 1))
    terms = world.step(policy.expand(60_000, -1, -1, -1))[4]["feedback"].terms
    here = world.mdp.start
    for h in range(world.steps):
        pairs = here.unsqueeze(-1) * policy[0, h]
        counts = torch.zeros_like(pairs)
        counts.index_put_((terms["states"][:, h], terms["actions"][:, h]), torch.ones((), dtype=torch.float64), True)
        error = (pairs * (1 - pairs) / 60_000).sqrt()
        assert ((counts / 60_000 - pairs).abs() <= 5 * error + 1e-12).all()
        kernel = world.mdp.kernel
        here = torch.einsum("sa,sat->t", pairs, kernel[h if len(kernel) > 1 else 0])


@EACH
def test_a_run_is_the_same_whichever_runs_ride_along_and_resumes(name):
    together = WORLDS[name](6, 4)
    policy = some_policy(together)
    seen = [together.step(policy)[4]["feedback"].terms for _ in range(6)]
    alone = WORLDS[name](6, [2])
    for k in range(6):
        terms = alone.step(policy[2:3])[4]["feedback"].terms
        for key in ("states", "actions", "rewards"):
            assert torch.equal(terms[key][0], seen[k][key][2])
    first, second = WORLDS[name](6, 4), WORLDS[name](6, 4)
    for _ in range(3):
        first.step(policy)
    second.load_state_dict({key: tensor.clone() for key, tensor in first.state_dict().items()})
    assert {k: v.tolist() for k, v in second.measures().items()} == {k: v.tolist() for k, v in first.measures().items()}
    for k in range(3, 6):
        assert torch.equal(second.step(policy)[4]["feedback"].terms["states"], seen[k]["states"])
    for key, value in together.regret().items():
        assert torch.equal(second.regret()[key], value)


@pytest.mark.parametrize("name", ["off-dynamics", "random"])
def test_regret_is_the_sum_of_exact_gaps(name):
    world = WORLDS[name](5, 3)
    policy = some_policy(world)
    world.regularise(0.1)
    for _ in range(5):
        world.step(policy)
    for temperature, kind in ((0.0, "regret/policy"), (0.1, "regret/regularised")):
        best = at_start(world.mdp, optimal(world.mdp, world.uncertainty, temperature)[0])
        value = at_start(world.mdp, evaluate(world.mdp, policy, world.uncertainty, temperature))
        torch.testing.assert_close(world.regret()[kind], 5 * (best - value), rtol=1e-12, atol=1e-12)
    assert (world.regret()["regret/policy"] > 0.01).all()


def test_a_reference_of_its_own():
    """Given as float32, for one step or all; a new regulariser forgets the old one's best value."""
    world = RandomRobustMDP(6, 2)
    policy, table = some_policy(world), torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) + 0.1
    reference = table / table.sum(-1, keepdim=True)
    exact = reference.double() / reference.double().sum(-1, keepdim=True)
    gaps = []
    for temperature, given in ((0.3, None), (0.1, reference), (0.1, exact.expand(4, -1, -1))):
        world.regularise(temperature, given)
        before = world.sums["regularised"].clone()
        world.step(policy)
        own = exact if given is not None else None
        best = at_start(world.mdp, optimal(world.mdp, world.uncertainty, temperature, own)[0])
        value = at_start(world.mdp, evaluate(world.mdp, policy, world.uncertainty, temperature, own))
        torch.testing.assert_close(world.sums["regularised"] - before, best - value, rtol=1e-11, atol=1e-13)
        gaps.append(best - value)
    assert (gaps[0] - gaps[1]).abs().min() > 1e-3
    torch.testing.assert_close(gaps[1], gaps[2])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((-1,), r"temperature: expected a finite number of at least 0, got -1"),
        (("hot",), r"temperature: expected a finite number of at least 0, got 'hot'"),
        ((0.1, torch.ones(3, 4) / 4), r"reference: expected shape \(8, 4\) or \(4, 8, 4\), got shape \(3, 4\)"),
        ((0.1, torch.eye(8, 4)), r"reference: expected positive chances, got a least one of 0"),
        ((0.1, torch.full((8, 4), 0.3)), r"reference: expected distributions over actions, got a sum that misses 1"),
        ((0.1, "uniform"), r"reference: expected a policy, shape \(8, 4\)"),
    ],
    ids=["negative", "word", "shape", "zeros", "sums", "no tensor"],
)
def test_regularisers_that_are_refused(given, said):
    world = RandomRobustMDP(2, 2)
    with pytest.raises(ValueError, match=said):
        world.regularise(*given)
    assert world.temperature == 0


def test_rounding_below_zero_is_no_nan():
    world = OffDynamics(3, 2)
    world.regularise(0.1)
    policy = some_policy(world)
    policy[0, 0, 0, 0], policy[0, 0, 0, 1] = -1e-8, policy[0, 0, 0, :2].sum() + 1e-8
    world.step(policy)
    assert all(torch.isfinite(value).all() for value in world.regret().values())


def test_the_best_policy_has_no_regret():
    for world in (OffDynamics(6, 3), RandomRobustMDP(6, 3, divergence="kl"), OffDynamics(6, 3, divergence="off")):
        for _ in range(5):
            world.step(world.facts["best_policy"].expand(3, -1, -1, -1))
        assert (world.regret()["regret/policy"].abs() < 1e-12).all()
        reference = torch.full((3, *world.region.shape), 1 / world.actions, dtype=torch.float64)
        world.step(reference)
        assert (world.regret()["regret/policy"] > 1e-3).all()


def test_twins_share_numbers_and_have_regularisers_of_their_own():
    world = OffDynamics(4, 3)
    twin = world.twin()
    twin.regularise(0.05)
    policy = some_policy(world)
    one, other = world.step(policy)[4]["feedback"], twin.step(policy)[4]["feedback"]
    assert torch.equal(one.terms["states"], other.terms["states"])
    assert set(world.regret()) == {"regret/policy"}
    assert set(twin.regret()) == {"regret/policy", "regret/regularised"}


def test_targets_of_the_off_dynamics_world():
    """J_q = 2 c (1 - q) + (1 - c) V2 for a policy with mean chance c, greedy afterwards: a line, exactly."""
    world = OffDynamics(2, 1, norm=0.3)
    greedy = world.facts["best_policy"].clone()
    policy = greedy.clone()
    policy[0, 0] = 1 / 16
    world.step(policy.unsqueeze(0))
    found = world.measures()
    for q in (0.0, 0.35, 1.0):
        wanted = 2 * 0.3 * (1 - q) + 0.7 * 1.43976
        assert float(found[f"value/target={q:g}"]) == pytest.approx(wanted, abs=1e-12)
    assert len(world.targets) == 21
    # From x1, with another delta, the chance of the goal is that delta for half of the signs.
    other = OffDynamics(2, 1, norm=0.1, delta=0.4)
    assert other.mdp.kernel[0, 0, :, 4].mean() == pytest.approx(0.4, abs=1e-12)
    assert other.targets["0.5"].kernel[0, 0, :, 4].mean() == pytest.approx(0.2, abs=1e-12)
    assert float(found["value/worst"]) < float(found["value/nominal"])


def test_uncertainty_sets_are_those_of_the_settings():
    for form, level in (("constrained", 0.3), ("regularised", 0.7)):
        told = RandomRobustMDP(2, 1, divergence="chi2", form=form, level=level).facts["uncertainty"]
        assert (told["divergence"], told["form"]) == ("chi2", form)
        assert torch.equal(told["level"], torch.full((4, 4), level, dtype=torch.float64))
    one = OffDynamics(2, 1, level=0.3).facts["uncertainty"]["level"]
    assert one[0, 3] == 0.3
    assert one.sum() == 0.3
    assert (OffDynamics(2, 1, form="regularised", level=0.3).facts["uncertainty"]["level"] == 0.3).all()
    assert "uncertainty" not in OffDynamics(2, 1, divergence="off").facts


def test_wrong_policies_are_refused():
    world = OffDynamics(4, 2)
    policy = some_policy(world)
    for wrong, said in (
        (policy[:1], r"action: expected shape \(2, 3, 5, 16\), got shape \(1, 3, 5, 16\)"),
        (policy * 1.01, r"action: expected finite actions in the policies"),
        (policy - 0.2, r"action: expected finite actions in the policies"),
        (policy * torch.nan, r"action: expected finite actions .*got a NaN or inf"),
    ):
        with pytest.raises(ValueError, match=said):
            world.step(wrong)
    assert world.round == 0


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (OffDynamics, {"norm": 0.4}, r"OffDynamics.norm: expected a number from 0 to 0.3, got 0.4"),
        (OffDynamics, {"divergence": "tvd"}, r"divergence: expected one of off, tv, kl, chi2, got 'tvd'"),
        (OffDynamics, {"form": "soft"}, r"form: expected one of constrained, regularised"),
        (OffDynamics, {"level": -0.1}, r"level: expected a finite number of at least 0, got -0.1"),
        (OffDynamics, {"level": "abc"}, r"level: expected a finite number of at least 0, got 'abc'"),
        (OffDynamics, {"level": True}, r"level: expected a finite number of at least 0, got True"),
        (RandomRobustMDP, {"level": (1, 2)}, r"level: expected a finite number of at least 0, got \(1, 2\)"),
        (
            OffDynamics,
            {"form": "regularised", "level": 0.0},
            r"level: expected finite weights above 0, got 0",
        ),
        (OffDynamics, {"softness": 2}, r"OffDynamics.softness: expected a number from 0 to 1, got 2"),
        (RandomRobustMDP, {"states": 1}, r"RandomRobustMDP.states: expected an integer of at least 2, got 1"),
        (RandomRobustMDP, {"instance": 0.5}, r"RandomRobustMDP.instance: expected an integer"),
    ],
    ids=str,
)
def test_bad_settings(kind, given, said):
    with pytest.raises(ValueError, match=said):
        kind(5, 2, **given)


# Step by step.


@EACH
def test_step_by_step_is_the_same_world(name):
    """The same numbers as an episode's; a policy's actions, drawn with the world's own luck."""
    world = WORLDS[name](3, 4)
    policy = some_policy(world)
    played = WORLDS[name](3, 4)
    vector = MDPVector(world)
    rows = torch.arange(4)
    for _ in range(3):
        terms = played.step(policy)[4]["feedback"].terms
        seen, _ = vector.reset()
        assert torch.equal(seen[:, 1], terms["states"][:, 0])
        for h in range(world.steps):
            assert (seen[:, 0] == h).all()
            action = world._drawn(policy[rows, h, seen[:, 1]].cumsum(-1), vector._luck[1 + 2 * h])
            seen, reward, ended, cut, _ = vector.step(action)
            assert torch.equal(action, terms["actions"][:, h])
            assert torch.equal(reward, terms["rewards"][:, h])
            assert torch.equal(seen[:, 1], terms["states"][:, h + 1])
            assert bool(ended.all()) == (h == world.steps - 1)
            assert not cut.any()


def test_step_by_step_leaves_the_world_alone():
    world = OffDynamics(5, 3)
    for _ in range(2):
        world.step(some_policy(world))
    kept = {key: tensor.clone() for key, tensor in world.state_dict().items()}
    one, other = MDPVector(world), MDPVector(world)
    first = [one.reset(seed=9)[0]] + [one.step(torch.zeros(3, dtype=torch.int64))[0] for _ in range(3)]
    other.reset(seed=world.seed)
    assert world.round == 2
    assert all(torch.equal(tensor, kept[key]) for key, tensor in world.state_dict().items())
    again = [one.reset(seed=9)[0]] + [one.step(torch.zeros(3, dtype=torch.int64))[0] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_seeds_are_streams_of_their_own():
    vector, action = MDPVector(RandomRobustMDP(3, 200)), torch.zeros(200, dtype=torch.int64)
    seen = []
    for seed in (1, 2, 1):
        vector.reset(seed=seed)
        seen.append(vector.step(action)[0])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_steps_that_are_refused():
    vector = MDPVector(OffDynamics(3, 2))
    action = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"step: expected at most 3 in an episode, got one more, or one before reset"):
        vector.step(action)
    vector.reset()
    for wrong, said in (
        (action[:1], r"action: expected integers of shape \(2,\), got torch.int64 of shape \(1,\)"),
        (action.double(), r"action: expected integers of shape \(2,\), got torch.float64"),
        (action + 16, r"action: expected 0 to 15, got 16"),
        (action - 1, r"action: expected 0 to 15, got -1"),
    ):
        with pytest.raises(ValueError, match=said):
            vector.step(wrong)
    for _ in range(3):
        vector.step(action)
    with pytest.raises(ValueError, match=r"step: expected at most 3"):
        vector.step(action)


@pytest.mark.parametrize("name", ["OffDynamicsMDP", "RandomRobustMDP", "AmericanPut", "AdversarialMDP"])
def test_single_environments_pass_the_checkers(name):
    env = gym.make(f"orbs/{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    check_env_of_sb3(env.unwrapped)
    first = [env.reset(seed=5)[0].tolist()]
    done = False
    while not done:
        seen, reward, done, cut, _ = env.step(0)
        first.append([*seen.tolist(), reward])
        assert not cut
    again = [env.reset(seed=5)[0].tolist()]
    done = False
    while not done:
        seen, reward, done, _, _ = env.step(0)
        again.append([*seen.tolist(), reward])
    assert first == again
    starts = {tuple(np.asarray(env.reset()[0]).tolist()) for _ in range(3)}
    assert all(step == 0 for step, _ in starts)


def test_single_environments_refuse_what_is_no_action():
    env = gym.make("orbs/OffDynamicsMDP-v0").unwrapped
    env.reset(seed=0)
    for wrong in ([1, 2], "a", None, 0.5):
        with pytest.raises(ValueError, match=r"action: expected the number of an action, 0 to 15, got .*Fix: "):
            env.step(wrong)
    with pytest.raises(ValueError, match=r"action: expected 0 to 15, got 16"):
        env.step(16)


def test_single_environments_without_a_seed_differ():
    starts = set()
    for _ in range(4):
        env = gym.make("orbs/RandomRobustMDP-v0")
        env.reset()
        starts.add(tuple(int(env.step(0)[0][1]) for _ in range(4)))
    assert len(starts) > 1


def test_single_environments_go_on_to_new_episodes():
    env = gym.make("orbs/RandomRobustMDP-v0", horizon=2)
    seen = []
    for _ in range(6):
        env.reset(seed=3 if not seen else None)
        states = []
        done = False
        while not done:
            obs, _, done, _, _ = env.step(1)
            states.append(int(obs[1]))
        seen.append(tuple(states))
    assert len(set(seen)) > 2
