"""The adversarial MDPs: instances and losses of the spec's recipe, exact expected losses and regret, feedback."""

import itertools

import numpy as np
import pytest
import torch

from envs.adversarial_mdp import ADVERSARIES, AdversarialMDP, adversary, expected_losses, least_losses
from envs.mdp_env import MDPVector

# Regret of the uniform policy, by instance (exact): section 10 of the specification.
UNIFORM = {
    ("iid", 1000): (331, 418, 573, 413), ("iid", 4000): (1329, 1673, 2304, 1644),
    ("iid", 16000): (5319, 6663, 9167, 6545),
    ("doubling", 1000): (325, 170, 465, 277), ("doubling", 16000): (5198, 2725, 7442, 4436),
}  # fmt: skip


def uniform(world):
    return torch.full((world.num_envs, *world.region.shape), 1 / world.actions, dtype=torch.float64)


def regret_of_uniform(world):
    """Exactly, without playing: the policy stays the same, so its expected losses add up in the losses."""
    total = world.losses.sum(0)
    value = expected_losses(world.mdp.kernel, total, uniform(world)[:1], world.mdp.start)
    return float(value - least_losses(world.mdp.kernel, total, world.mdp.start)[0])


@pytest.mark.parametrize(("kind", "episodes"), UNIFORM, ids=str)
def test_the_uniform_policys_regret(kind, episodes):
    for instance, wanted in enumerate(UNIFORM[kind, episodes]):
        world = AdversarialMDP(episodes, 1, adversary=kind, instance=instance)
        assert abs(regret_of_uniform(world) - wanted) <= 0.51


def test_the_uniform_policys_regret_with_one_step():
    for episodes, wanted in ((1000, 222), (4000, 882), (16000, 3537)):
        found = [regret_of_uniform(AdversarialMDP(episodes, 1, steps=1, instance=i)) for i in range(4)]
        assert abs(np.mean(found) - wanted) <= 0.51


def test_played_regret_is_the_exact_one():
    world = AdversarialMDP(50, 3)
    for _ in range(50):
        world.step(uniform(world))
    torch.testing.assert_close(world.regret()["regret/static"], torch.full((3,), regret_of_uniform(world)).double())


@pytest.mark.parametrize("instance", range(3))
def test_the_comparator_is_the_best_of_all_deterministic_policies(instance):
    world = AdversarialMDP(20, 1, states=4, actions=2, steps=3, dimension=3, instance=instance)
    total = world.losses.sum(0)
    choices = np.eye(2)[np.array(list(itertools.product((0, 1), repeat=12)))].reshape(-1, 3, 4, 2)
    values = expected_losses(world.mdp.kernel, total, torch.as_tensor(choices), world.mdp.start)
    best = float(values.min())
    value, actions = least_losses(world.mdp.kernel, total, world.mdp.start)
    assert abs(float(value) - best) < 1e-12
    policy = torch.nn.functional.one_hot(actions, 2).double().unsqueeze(0)
    assert abs(float(expected_losses(world.mdp.kernel, total, policy, world.mdp.start)) - best) < 1e-12


def test_expected_losses_are_those_of_simulation():
    world = AdversarialMDP(1, 40_000, adversary="doubling", instance=1)
    policy = torch.rand(1, 3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    policy = policy / policy.sum(-1, keepdim=True)
    _, reward, *_ = world.step(policy.expand(40_000, -1, -1, -1))
    exact = float(expected_losses(world.mdp.kernel, world.losses[0], policy, world.mdp.start))
    error = float(reward.std()) / 200
    assert abs(-float(reward.mean()) - exact) < 4 * error
    assert error < 0.01


def test_feedback_tells_the_episode_and_its_losses():
    world = AdversarialMDP(3, 5, feedback="full")
    terms = world.step(uniform(world))[4]["feedback"].terms
    states, actions = terms["states"], terms["actions"]
    assert states.shape == (5, 4)
    assert actions.shape == terms["rewards"].shape == (5, 3)
    for h in range(3):
        torch.testing.assert_close(terms["rewards"][:, h], -world.losses[0, h, states[:, h], actions[:, h]])
    assert torch.equal(terms["loss_table"][0], world.losses[0])
    table = torch.einsum("sad,hd->hsa", world.mdp.features, terms["loss_weights"][0])
    torch.testing.assert_close(table, world.losses[0])
    told = AdversarialMDP(3, 5).step(uniform(world))[4]["feedback"].terms
    assert set(told) == {"states", "actions", "rewards"}


def test_regret_at_every_round_and_the_last_policys_losses():
    """Against the best policy of the rounds so far, whatever was asked before; a policy that changes."""
    world = AdversarialMDP(6, 1, adversary="doubling", instance=2)
    generator, value = torch.Generator().manual_seed(0), 0.0
    for k in range(6):
        policy = torch.rand(1, 3, 6, 4, dtype=torch.float64, generator=generator)
        policy = policy / policy.sum(-1, keepdim=True)
        world.step(policy)
        own = float(expected_losses(world.mdp.kernel, world.losses[k], policy, world.mdp.start))
        value += own
        best = float(least_losses(world.mdp.kernel, world.losses[: k + 1].sum(0), world.mdp.start)[0])
        assert float(world.regret()["regret/static"]) == pytest.approx(value - best, abs=1e-12)
        assert float(world.measures()["value/losses"]) == pytest.approx(own, abs=1e-12)


def test_step_by_step_losses_begin_again_after_the_horizon():
    vector = MDPVector(AdversarialMDP(3, 1))
    table = vector.world.losses
    for episode in range(7):
        seen, _ = vector.reset()
        _, reward, *_ = vector.step(torch.zeros(1, dtype=torch.int64))
        assert float(reward) == -float(table[episode % 3, 0, int(seen[0, 1]), 0])


def test_bernoulli_losses_have_the_same_mean_and_regret():
    world = AdversarialMDP(200, 400, noise="bernoulli")
    plain = AdversarialMDP(200, 400)
    for _ in range(200):
        terms = world.step(uniform(world))[4]["feedback"].terms
        plain.step(uniform(world))
    assert set(terms["rewards"].unique().tolist()) <= {-1.0, 0.0}
    assert torch.equal(world.regret()["regret/static"], plain.regret()["regret/static"])
    difference = world.loss - plain.loss
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / 20
    assert float(difference.std()) > 1


def test_adversaries():
    for kind in ADVERSARIES:
        losses = adversary(kind, 64, 3, 4, 7)
        assert losses.shape == (64, 3, 4)
        assert ((losses >= 0) & (losses <= 1)).all()
        assert not np.array_equal(losses, adversary(kind, 64, 3, 4, 8))
    doubling = adversary("doubling", 64, 2, 2, 0)
    changes = [k for k in range(1, 64) if not np.array_equal(doubling[k], doubling[k - 1])]
    assert changes == [1, 3, 7, 15, 31, 63]
    phases = adversary("phases", 64, 2, 2, 0)
    assert [k for k in range(1, 64) if not np.array_equal(phases[k], phases[k - 1])] == [16, 32, 48]
    steps = np.diff(adversary("drift", 64, 2, 2, 0), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape), atol=1e-15)
    np.testing.assert_array_equal(adversary("iid", 64, 3, 4, 7)[:9], adversary("iid", 9, 3, 4, 7))


def test_the_chain():
    """Staying on costs 0.6 in each step but the last, leaving 0.5 from then on."""
    world = AdversarialMDP(10, 1, model="chain", steps=4, actions=2)
    value, actions = least_losses(world.mdp.kernel, world.losses[0], world.mdp.start)
    assert float(value) == pytest.approx(1.8)
    assert actions[:, 0].tolist()[:3] == [0, 0, 0]
    always = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    always[..., 1] = 1
    # It leaves in the first step, and pays 0.5 in each.
    assert float(expected_losses(world.mdp.kernel, world.losses[0], always, world.mdp.start)) == pytest.approx(2.0)


def test_a_tabular_model_has_no_features():
    world = AdversarialMDP(5, 2, model="tabular", states=3, actions=2)
    assert world.facts["features"] is None
    assert world.facts["kernel"].shape == (3, 3, 2, 3)
    assert "best_policy" not in world.facts
    assert "rewards" not in world.facts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"adversary": "idd"}, r"adversary: expected one of iid, .*did you mean 'iid'"),
        ({"model": "tab"}, r"model: expected one of random, tabular, chain, got 'tab'"),
        ({"noise": "gauss"}, r"noise: expected one of off, bernoulli"),
        ({"feedback": "all"}, r"feedback: expected one of bandit, full"),
        ({"instance": -1}, r"instance: expected an integer of at least 0, got -1"),
        ({"steps": 0}, r"steps: expected an integer of at least 1, got 0"),
        ({"model": "chain", "states": 3}, r"states: expected none for the chain model, got 3"),
        ({"model": "tabular", "dimension": 5}, r"dimension: expected none for the tabular model, got 5"),
        ({"model": "chain", "actions": 1}, r"actions: expected an integer of at least 2, got 1"),
    ],
    ids=str,
)
def test_bad_settings(given, said):
    with pytest.raises(ValueError, match=said):
        AdversarialMDP(5, 2, **given)
