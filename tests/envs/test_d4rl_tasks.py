"""Every dataset name of D4RL has an answer: the environment that scores it, or why none does."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from envs.d4rl_tasks import NAMES, task
from envs.datasets import d4rl


def test_every_name_has_a_whole_answer() -> None:
    assert len(NAMES) == 155
    for name in NAMES:
        found = task(name)
        assert found.name == name
        assert found.note
        assert not found.note.endswith(".")
        assert found.note.startswith("its " if found.env_id is None else found.env_id)
        assert found.max_episode_steps >= 50
        assert (found.action_low is None) == (found.action_high is None)


def test_step_limits_agree_with_the_list_of_files() -> None:
    assert {name: task(name).max_episode_steps for name in NAMES} == {
        name: entry.step_limit for name, entry in d4rl.ENTRIES.items()
    }


@pytest.mark.shared_data
def test_names_are_d4rls(shared_data: Path) -> None:
    with open(shared_data / "d4rl_infos.csv", newline="") as file:
        assert sorted(row["dataset"] for row in csv.DictReader(file)) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "env_id", "obs_dim", "steps"),
    [
        ("hopper-medium-v2", "Hopper-v4", 11, 1000),
        ("halfcheetah-random-v0", "HalfCheetah-v4", 17, 1000),
        ("ant-full-replay-v2", "orbs/ant-v2", 111, 1000),
        ("antmaze-umaze-diverse-v0", "orbs/antmaze-umaze-diverse-v2", 29, 700),
        ("antmaze-large-play-v2", "orbs/antmaze-large-play-v2", 29, 1000),
        ("maze2d-open-v0", "orbs/maze2d-open-v0", 4, 150),
        ("maze2d-eval-large-dense-v1", "orbs/maze2d-eval-large-dense-v1", 4, 800),
        ("pen-human-v1", "AdroitHandPen-v1", 45, 100),
        ("door-cloned-v0", "AdroitHandDoor-v1", 39, 200),
        ("kitchen-mixed-v0", "orbs/kitchen-mixed-v0", 60, 280),
        ("flow-merge-random-v0", None, None, 750),
        ("carla-lane-v0", None, None, 250),
        ("bullet-hopper-medium-v0", None, 15, 1000),
        ("minigrid-fourrooms-v0", None, None, 50),
    ],
)
def test_answers(name: str, env_id: str | None, obs_dim: int | None, steps: int) -> None:
    found = task(name)
    assert (found.env_id, found.obs_dim, found.max_episode_steps) == (env_id, obs_dim, steps)


def test_bounds() -> None:
    assert (task("hopper-expert-v2").action_low, task("hopper-expert-v2").action_high) == (-1.0, 1.0)
    assert task("flow-merge-random-v0").action_high == 1.5
    assert task("minigrid-fourrooms-v0").action_low is None


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"name of a D4RL dataset.*did you mean 'hopper-medium-v2'"):
        task("hoper-medium-v2")


@pytest.mark.extra
def test_environments_are_what_the_tasks_say() -> None:
    pytest.importorskip("gymnasium_robotics", reason='needs pip install "orbs[robotics]"')
    from envs.make import env_facts

    for found in map(task, NAMES):
        if found.env_id is None:
            continue
        facts = env_facts(found.env_id)
        assert (facts.obs_dim, len(facts.action_low)) == (found.obs_dim, found.action_dim), found.name
        assert facts.max_episode_steps == found.max_episode_steps, found.name
        assert set(facts.action_low) == {found.action_low}
        assert set(facts.action_high) == {found.action_high}
