"""Whole updates of every agent against an independent derivation in float64, to 1e-10."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.offline_rl.online import reference_online
from tests.offline_rl.online.contract import CASES, play

STAC, OTHER = {"actor_dropout": 0.1, "critic_dropout": 0.2}, {"hidden": (24, 16), "learning_rate": 1e-2, "tau": 0.1}
VARIANTS = [
    ("td3", {}),
    ("td3", {**OTHER, "policy_period": 1, "policy_noise": 0.6, "noise_clip": 0.3}),
    ("sac", {}),
    ("sac", {**OTHER, "initial_alpha": 0.3, "target_entropy": -0.5, "alpha_learning_rate": 0.05}),
    ("stac", STAC),
    ("stac", {**STAC, **OTHER, "batch_size": 6, "beta": 0.7, "target_dropout": False, "alpha_rule": "exp"}),
    ("stac", {**STAC, **OTHER, "critics": 2, "alpha_rule": "adam", "alpha_learning_rate": 0.05, "distinct": False}),
    ("stac", {"actor_dropout": 0.0, "critic_dropout": 0.0, "alpha_learning_rate": 1.0, "target_entropy": 3.0}),
    ("stac", {**STAC, "alpha_cap": 0.2005, "alpha_learning_rate": 1.0, "target_entropy": 3.0}),
    ("beer", {"beta": 0.5}),
    ("beer", {**OTHER, "beta": 2.0, "bound": "consistent"}),
    ("beer", {**OTHER, "beta": 2.0, "mask_terminal": True, "bias_correct": True, "discount": 0.9}),
    ("beer", {"beta": 0.0}),
]


@pytest.mark.parametrize(("name", "values"), VARIANTS, ids=lambda x: x if isinstance(x, str) else ",".join(x) or "-")
def test_three_updates_equal_the_independent_derivation(name, values):
    case = next(case for case in CASES if case.name == name)
    agent = case.build(runs=[4, 1], dtype=torch.float64, **{"learning_rate": 3e-3, **values})
    play(agent, 64, learn=False)
    start = agent.critic.parameters[0].detach().clone()
    references = [getattr(reference_online, name)(agent, run, 3) for run in (0, 1)]
    agent.update(3)
    assert not torch.equal(agent.critic.parameters[0], start)
    if values.get("beta") and name == "beer":
        assert ((active := agent.metrics()["beer_active"]) > 0).all()
        assert (active < 1).all()
    for reference in references:
        assert reference.worst_gap() < 1e-10
        # The comparison sees far smaller things than the learning rate.
        reference.actor.linears[0].weight.data[0, 0] += 1e-9
        assert reference.worst_gap() > 1e-10


def test_beer_with_weight_zero_is_the_plain_learner_to_the_bit():
    case = next(case for case in CASES if case.name == "beer")
    with_penalty, without, wrapped = (case.filled(beta=beta) for beta in (0.5, 0.0, 0.0))
    wrapped.critic = wrapped.critic.critic  # the inner critic alone
    for agent in (with_penalty, without, wrapped):
        agent.update(10)
    for ours, theirs in zip(without.critic.parameters, wrapped.critic.parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(without.critic.parameters[0], with_penalty.critic.parameters[0])


def test_beer_bounds_part_only_where_online_and_target_networks_differ():
    case = next(case for case in CASES if case.name == "beer")
    author, consistent = (case.filled(beta=5.0, bound=bound, dtype=torch.float64) for bound in ("author", "consistent"))
    for learner in (author, consistent):
        learner.update()
    same, _ = (learner.metrics() for learner in (author, consistent))
    assert 0 < same["beer_active"] < 1
    assert all(torch.equal(a, b) for a, b in zip(author.critic.parameters, consistent.critic.parameters, strict=True))
    for learner in (author, consistent):
        learner.critic.target[0].mul_(3.0)
        learner.update()
    assert author.metrics()["beer_bound"] != consistent.metrics()["beer_bound"]
    gap = max((a - b).abs().max() for a, b in zip(author.critic.parameters, consistent.critic.parameters, strict=True))
    assert gap > 1e-9


@pytest.mark.parametrize("period", [1, 3])
def test_td3_actor_and_targets_move_every_policy_period_updates_alone(period):
    agent = CASES[0].filled(policy_period=period)
    for step in range(1, 7):
        before = {name: tensor.detach().clone() for name, tensor in agent.state_dict().items()}
        agent.update()
        for name, tensor in agent.state_dict().items():
            if name.startswith(("actor.", "actor_target.", "critic.target.")):
                assert torch.equal(tensor, before[name]) != (step % period == 0), (name, step)
            if name.startswith("critic.online."):
                assert not torch.equal(tensor, before[name])


def test_td3_target_actions_stay_in_the_box_and_their_noise_within_its_bound():
    agent = CASES[0].build(policy_noise=2.0, noise_clip=0.4)
    obs, noise = torch.zeros(1, 500, 3), torch.randn(1, 500, 2, generator=torch.Generator().manual_seed(0))
    agent.actor_target[-2].zero_()
    agent.actor_target[-1].copy_(torch.tensor([0.0, 1.5]))
    found = agent._target_action(obs, noise)
    assert found[..., 0].min().item() == pytest.approx(-0.4)
    assert found[..., 0].max().item() == pytest.approx(0.4)
    assert found[..., 1].max() == 1.0
    assert found[..., 1].min().item() == pytest.approx(np.tanh(1.5) - 0.4)
