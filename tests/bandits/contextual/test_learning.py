"""Contextual learners learn: far above chance on data, little regret where their models are right, slopes."""

import numpy as np
import pytest
import torch

from bandits import make
from envs.classification_bandit import ClassificationBandit
from envs.contextual_bandit import ContextualBandit


def play(name, world, given=None, seed=0):
    """(rounds, R) rewards."""
    learner, rewards = make(name, world.facts, runs=world.num_envs, seed=seed, **(given or {})), []
    for _ in range(world.horizon):
        arm = learner.act(world.context())
        feedback = world.step(arm)[4]["feedback"]
        learner.observe(arm, feedback)
        rewards.append(feedback.reward)
    return torch.stack(rewards)


# Of the last quarter's rewards, where 1/3 is chance and 0.94 the best linear policy. A model of losses where rewards
# belong, contexts that are mixed up between rounds, or arms drawn at random stay below 0.4.
BLOBS = {
    "disjoint-lin-ucb": ({}, 0.85),
    "contextual-epsilon-greedy": ({}, 0.8),
    "contextual-explore-first": ({"explore": 100}, 0.85),
    "epoch-greedy": ({"policies": 1.0, "delta": 0.9}, 0.75),
    "square-cb": ({"scale": 30.0}, 0.85),
    "mesh-ucb": ({"cells": 6}, 0.55),
}


@pytest.mark.parametrize("name", BLOBS)
def test_learners_beat_chance_clearly(name):
    given, least = BLOBS[name]
    world = ClassificationBandit("blobs", 600, 20, seed=1)
    late = play(name, world, given)[450:].mean()
    assert late > least


@pytest.mark.parametrize("oracle", ["weighted", "ips", "dr"])
def test_each_oracle_finds_a_good_policy(oracle):
    world = ClassificationBandit("blobs", 400, 20, seed=1)
    late = play("contextual-explore-first", world, {"oracle": oracle, "explore": 300})[300:].mean()
    assert late > 0.85


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "given", "least"),
    [
        ("disjoint-lin-ucb", {"alpha": 0.3}, 0.7),
        ("square-cb", {"scale": 100.0}, 0.7),
    ],
)
def test_learners_beat_chance_on_digits(shared_data, name, given, least):
    """Ten classes; of the last quarter of 1000 rounds."""
    world = ClassificationBandit(str(shared_data / "uci-multiclass" / "optdigits.npz"), 1000, 2, seed=1)
    assert play(name, world, given)[750:].mean() > least


@pytest.mark.extra
def test_disjoint_lin_ucb_learns_iris():
    pytest.importorskip("sklearn", reason="needs pip install scikit-learn")
    assert play("disjoint-lin-ucb", ClassificationBandit("iris", 600, 10))[450:].mean() > 0.75


def test_regret_flattens_where_the_model_is_right():
    """Linear rewards: the second half's pseudo-regret is a small part of the first's, as of chance's."""
    world = ContextualBandit(5, 1400, 20, seed=2, dimension=4)
    learner = make("disjoint-lin-ucb", world.facts, runs=20, alpha=0.3)
    halves = []
    for _ in range(2):
        for _ in range(700):
            arm = learner.act(world.context())
            learner.observe(arm, world.step(arm)[4]["feedback"])
        halves.append(float(world.regret()["regret/pseudo"].mean()))
    assert halves[1] - halves[0] < 0.25 * halves[0]
    assert halves[1] < 40  # chance: 0.58 a round


def test_a_mesh_beats_the_bandit_without_contexts():
    mesh, plain = (
        float(play("mesh-ucb", ContextualBandit(4, 2000, 10, kind="lipschitz"), given)[1500:].mean())
        for given in ({}, {"cells": 1})
    )
    assert mesh > plain + 0.1
    assert mesh > 0.75  # 0.84 at best


@pytest.mark.proof
def test_regret_of_the_mesh_grows_as_its_theorem_says():
    """T^(2/3) in one dimension, each horizon with a mesh of its own: slope of the logarithms in 0.5 to 0.8."""
    horizons, regret = (1000, 4000, 16000), []
    for horizon in horizons:
        world = ContextualBandit(3, horizon, 50, seed=3, kind="lipschitz")
        play("mesh-ucb", world)
        regret.append(float(world.regret()["regret/pseudo"].mean()))
    slope = np.polyfit(np.log(horizons), np.log(regret), 1)[0]
    assert 0.5 < slope < 0.8
    # Four cells whatever the horizon: an error of the mesh that no number of rounds mends.
    assert regret[-1] < 0.12 * horizons[-1]


@pytest.mark.proof
def test_widths_and_weights_after_many_rounds_are_those_of_a_fresh_solution():
    world = ContextualBandit(3, 20_000, 2, seed=4, dimension=5)
    learner = make("disjoint-lin-ucb", world.facts, runs=2)
    for _ in range(19_950):  # half way between two rebuilds
        arm = learner.act(world.context())
        learner.observe(arm, world.step(arm)[4]["feedback"])
    x, model = world.context(), learner.model
    inverse = torch.linalg.inv(model.gram)
    fresh = torch.einsum("ri,rkij,rj->rk", x, inverse, x)
    torch.testing.assert_close(model.squared_widths(x), fresh, rtol=1e-8, atol=0)
    torch.testing.assert_close(
        model.weights, torch.linalg.solve(model.gram, model.target.unsqueeze(-1)).squeeze(-1), rtol=1e-8, atol=1e-10
    )
