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
    with pytest.raises(ValueError, match=r"temperature: expected a finite number of at least 0, got -1"):
        twin.regularise(-1)


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
    assert float(found["value/worst"]) < float(found["value/nominal"])


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
        (OffDynamics, {"level": -0.1}, r"level|radius"),
        (OffDynamics, {"form": "regularised", "level": 0.0}, r"level|weight"),
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
