"""When an interacting agent learns: the updates that are due, and the notes of a training that is too short for any."""

from __future__ import annotations

import numpy as np
import pytest

from offline_rl.online import TD3
from offline_rl.online.config import ONLINE_CONFIGS, TD3Config
from tests.offline_rl.online.contract import SMALL, play


def due_after(steps, **values):
    """`due` before the first interaction and after each of `steps`."""
    agent = TD3(3, 2, **{**SMALL, "hidden": (4,), **values})
    found = [agent.due]
    for _ in range(steps):
        play(agent, 1, learn=False)
        found.append(agent.due)
    return found


def test_updates_are_due_in_blocks_that_keep_their_number_per_step():
    found = due_after(21, update_every=5, updates_per_step=2, random_steps=8, batch_size=4)
    assert {step: due for step, due in enumerate(found) if due} == {10: 10, 15: 10, 20: 10}


@pytest.mark.parametrize(("random_steps", "batch_size"), [(6, 4), (4, 6)])
def test_updates_are_due_from_the_last_random_step_that_fills_a_batch(random_steps, batch_size):
    assert due_after(8, random_steps=random_steps, batch_size=batch_size) == [0] * 6 + [1] * 3


def test_nothing_is_due_without_random_steps_before_a_batch_is_there():
    assert due_after(3, random_steps=0, batch_size=2) == [0, 0, 1, 1]


def test_a_loop_over_what_is_due_makes_the_updates():
    agent = TD3(3, 2, **{**SMALL, "update_every": 5, "updates_per_step": 2})
    for _ in range(64):
        play(agent, 1, learn=False)
        if agent.due:
            agent.update(agent.due)
    assert (agent.interactions, agent.steps) == (64, 30)  # 10 each after interactions 50, 55 and 60


@pytest.mark.parametrize("kind", ONLINE_CONFIGS.values())
@pytest.mark.parametrize(
    ("values", "first"),
    [
        ({"random_steps": 5, "batch_size": 4}, 5),
        ({"random_steps": 5, "batch_size": 7}, 7),
        ({"random_steps": 5, "batch_size": 4, "update_every": 3}, 6),
    ],
)
def test_notes_of_a_training_that_ends_before_the_first_update(kind, values, first):
    config = kind(**values)
    name = kind.__name__.removesuffix("Config").lower()
    assert config.notes(first) == config.notes(first, "other") == []
    (line,) = config.notes(first - 1)
    assert line.startswith(f"{name}: nothing is learned in {first - 1} steps: updates begin at step {first} (")
    assert config.notes(first - 1, "other")[0].startswith("other: nothing is learned")
    agreed = due_after(first, **values)
    assert np.flatnonzero(agreed).tolist() == [first]


def test_notes_know_that_the_second_opinions_ask_for_one_step_more_and_for_no_batch():
    config = TD3Config(random_steps=5, batch_size=7)
    assert config.notes(6, "sb3-td3") == []
    said = "sb3-td3: nothing is learned in 5 steps: updates begin at step 6 (random_steps is 5)"
    assert config.notes(5, "sb3-td3") == [said]
