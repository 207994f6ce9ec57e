"""What judges an interacting agent: the value's checks, the rank of its features, which runs are finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offline_rl.critics.interface import Evaluation
from offline_rl.online import SAC, STAC, TD3
from tests.offline_rl.online.contract import CASES, SMALL, assert_same, play, snapshot

STAC_CASE = next(case for case in CASES if case.name == "stac")


def test_value_wants_an_action_for_each_observation(agent_case):
    agent = agent_case.build(runs=2)
    said = rf"^{agent.name}.value.action: expected 5 actions a run, as many as observations, got 4\. Fix: "
    for few, many in ((4, 5), (1, 5)):
        with pytest.raises(ValueError, match=said.replace("got 4", f"got {few}")):
            agent.value(np.zeros((2, many, 3)), np.zeros((2, few, 2)))
    assert agent.value(np.zeros((2, 4, 3)), np.zeros((2, 4, 2))).shape == (2, 4)


@pytest.mark.parametrize("ask", ["value", "measures"])
def test_a_critic_that_fails_is_left_in_training_mode(ask, monkeypatch):
    agent = STAC_CASE.filled()
    calls = {"value": lambda: agent.value(np.zeros((1, 4, 3)), np.zeros((1, 4, 2))), "measures": agent.measures}

    def fail(*_):
        assert not agent.critic._training
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(agent.critic, "evaluate", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            calls[ask]()
    assert agent.critic._training
    calls[ask]()
    assert agent.critic._training


# The rank


def test_rank_is_that_of_the_critic_s_features_at_2048_rows_of_the_replay(agent_case):
    agent = agent_case.filled(steps=90, runs=[4, 1], dtype=torch.float64)
    agent.update(3)
    found = agent.measures()
    assert list(found) == ["representation_rank"]
    index = (agent.philox.words("measures", 90, 1, 2048)[:, 0] * 90) >> 32
    agent.critic.eval()
    for run in (0, 1):
        rows = agent.replay.rows[run, :90].numpy()[index[run].numpy()]
        # The critic has all runs in one stack: the other gets the same rows.
        obs, action = (torch.tensor(np.stack([x, x])) for x in (rows[:, :3], rows[:, 3:5]))
        features = agent.critic.evaluate(obs, action, features=True).features[run].detach().numpy()
        ranks = [(np.linalg.svd(x / np.sqrt(2048), compute_uv=False) > 0.01).sum() for x in features]
        assert found["representation_rank"][run] == np.mean(ranks) > 1


def test_rank_of_as_many_rows_as_there_are(agent_case):
    """Three transitions span no more than three dimensions, however often they are drawn; none, nothing."""
    agent = agent_case.build(runs=2)
    assert agent.measures() == {}
    play(agent, 3, learn=False)
    (rank,) = agent.measures().values()
    assert rank.shape == (2,)
    assert ((rank > 1) & (rank <= 3)).all()


def test_rank_changes_nothing_and_is_the_same_beside_any_runs(agent_case):
    together, alone = agent_case.filled(runs=4), agent_case.filled(runs=[2])
    before = snapshot(together)
    first = together.measures()["representation_rank"]
    np.testing.assert_array_equal(together.measures()["representation_rank"], first)
    assert_same(snapshot(together), before)
    np.testing.assert_array_equal(alone.measures()["representation_rank"], first[[2]])
    untouched = agent_case.filled(runs=4)
    for agent in (together, untouched):
        agent.update(3)
    assert_same(snapshot(together), snapshot(untouched))


def test_rank_of_a_diverged_run_is_no_number():
    agent = CASES[0].filled(runs=3)
    with torch.no_grad():
        agent.critic.parameters[0][2] = float("nan")  # a member of run 1
    rank = agent.measures()["representation_rank"]
    assert np.isnan(rank).tolist() == [False, True, False]


def test_a_critic_without_features_has_no_rank(monkeypatch):
    agent = CASES[0].filled()
    monkeypatch.setattr(agent.critic, "evaluate", lambda obs, *_: Evaluation(obs[None, ..., 0], None, None))
    assert agent.measures() == {}


# Finite


@pytest.mark.parametrize("kind", [SAC, STAC])
@pytest.mark.parametrize("place", ["log_alpha", "mean", "square"])
def test_a_lost_temperature_is_seen_where_runs_are_as_many_as_observations(kind, place):
    agent = kind(3, 2, runs=3, **SMALL)
    assert agent.finite().tolist() == [True, True, True]
    tensor = agent.log_alpha if place == "log_alpha" else getattr(agent.alpha_optimiser, place)[0]
    tensor[1] = float("nan")
    assert agent.finite().tolist() == [True, False, True]


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_finite_is_asked_of_every_run(runs):
    for kind in (TD3, SAC):
        agent = kind(3, 2, runs=runs, **SMALL)
        for tensor in agent._tensors().values():
            if tensor.ndim:
                assert tensor.shape[0] % runs == 0
        with torch.no_grad():
            agent.critic.target[-1][-1] = float("inf")  # the last member of the last run
        assert agent.finite().tolist() == [True] * (runs - 1) + [False]
