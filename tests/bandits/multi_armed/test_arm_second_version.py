"""Whole algorithms against a second, plain version of each with the same random numbers, arm by arm."""

from __future__ import annotations

import pytest
import torch

from tests.bandits.arm_homes import ARMS, built, play, rewards
from tests.bandits.multi_armed.reference_arms import PlainElimination, choose

ROUNDS, RUNS = 200, [3]
CASES = {
    "ucb1": ({}, {}),
    "ucb1-tuned": ({}, {}),
    "ucb-v": ({}, {}),
    "kl-ucb": ({"c": 3.0}, {"c": 3.0}),
    "moss": ({}, {"horizon": 400}),
    "thompson-beta": ({}, {}),
    "thompson-gaussian": ({}, {"noise": 0.5, "mean": 0.5, "variance": 1.0}),
    "bayes-ucb": ({}, {"c": 0.0, "horizon": 400}),
    "explore-first": ({"explore": 20}, {"explore": 20}),
    "epsilon-greedy": ({}, {}),
    "boltzmann": ({"temperature": 0.2}, {"temperature": 0.2}),
    "greedy": ({}, {}),
    "sw-ucb": ({"window": 37}, {"window": 37}),
    "d-ucb": ({"discount": 0.95}, {"discount": 0.95}),
}


def unit(t, arm, run):
    reward = rewards(ARMS, t, torch.tensor([arm]), [run])
    return float((reward[0] + 1.0) / 3.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("run", RUNS)
def test_second_version(name, run):
    given, reference = CASES[name]
    rounds = 50 if name == "thompson-beta" else ROUNDS
    got = play(built(name, given, [run]), ARMS, rounds)[:, 0].tolist()
    history = []
    for t in range(rounds):
        arm = choose(name, history, 5, run, **reference)
        assert arm == got[t], f"round {t + 1}"
        history.append((arm, unit(t, arm, run)))
    assert len(set(got)) == 5 or name == "greedy"


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_second_version_of_elimination(scale):
    """A smaller radius, the same as a horizon's logarithm scaled, eliminates within the rounds."""
    got = play(built("successive-elimination", {"scale": scale}, [3]), ARMS, ROUNDS)[:, 0].tolist()
    plain, history = PlainElimination(5, 400), []
    plain.log *= scale**2
    for t in range(ROUNDS):
        arm = plain.choose()
        assert arm == got[t], f"round {t + 1}"
        history.append((arm, unit(t, arm, 3)))
        plain.take(history, 5)
    assert (len(plain.active) < 5) == (scale < 1)
