"""Which environment scores each of D4RL's datasets here, and the action bounds and step limit of D4RL's own.

Facts of the originals are those of the d4rl package, version 1.1. How the environments here were compared with D4RL's
stands in `envs.d4rl_envs`. This module makes no environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools

from orbs import reject

__all__ = ["NAMES", "Task", "task"]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is known about a D4RL dataset's environment without making one.

    Attributes:
        name: D4RL's name of the dataset.
        env_id: the Gymnasium id that scores it here, for `envs.make.make_env`, or None.
        note: half a sentence, to follow "scored in" or "cannot be scored:": the environment and how it differs from
            D4RL's own, or why there is none.
        obs_dim, action_dim: D4RL's widths, or None where they are unknown or not those of vectors.
        action_low, action_high: D4RL's bounds, the same for every column, or None where actions are discrete.
        max_episode_steps: D4RL's step limit.
    """

    name: str
    env_id: str | None
    note: str
    obs_dim: int | None
    action_dim: int | None
    action_low: float | None
    action_high: float | None
    max_episode_steps: int


def task(name: str) -> Task:
    """The task of one of `NAMES`.

    Raises:
        ValueError: no dataset of D4RL has this name; names the nearest.
    """
    found = _tasks().get(name)
    if found is None:
        near = difflib.get_close_matches(name, NAMES, n=1)
        reject("name", "the name of a D4RL dataset", f"'{name}'", f"did you mean '{near[0]}'?" if near else "check it")
    return found


_OURS = "in MuJoCo 3 where D4RL used mujoco-py (MuJoCo 2)"
_REPLACED = "; D4RL replaced these data by v2, scored in the same environment"
_LOCOMOTION = {
    "hopper": ("Hopper-v4", 11, 3),
    "halfcheetah": ("HalfCheetah-v4", 17, 6),
    "walker2d": ("Walker2d-v4", 17, 6),
}
_ADROIT = {"pen": (45, 24, 100), "door": (39, 28, 200), "hammer": (46, 26, 200), "relocate": (39, 30, 200)}
_MAZE2D_STEPS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}
_ANTMAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
_KITCHENS = {
    "complete": "microwave, kettle, light switch, slide cabinet",
    "partial": "microwave, kettle, light switch, slide cabinet",
    "mixed": "microwave, kettle, bottom burner, light switch",
}
# Datasets of each locomotion body. Version 0 has no full-replay, and only ant has random-expert.
_QUALITIES = ("random", "medium", "expert", "medium-expert", "medium-replay")


def _locomotion() -> list[Task]:
    tasks = []
    for version in (0, 1, 2):
        old = "" if version == 2 else _REPLACED
        for quality in (*_QUALITIES, *(("full-replay",) if version else ())):
            for body, (env_id, obs_dim, action_dim) in _LOCOMOTION.items():
                note = f"{env_id} of Gymnasium, the closest to D4RL's {body} (v2): the same task, {_OURS}{old}"
                name = f"{body}-{quality}-v{version}"
                tasks.append(Task(name, env_id, note, obs_dim, action_dim, -1.0, 1.0, 1000))
            tasks.append(_ant(quality, version, old))
    tasks.append(_ant("random-expert", 0, _REPLACED))
    return tasks


def _ant(quality: str, version: int, old: str) -> Task:
    note = (
        "orbs/ant-v2, Ant-v4 of Gymnasium with the 84 contact forces that D4RL's ant (v2) observes, always 0 as "
        f"mujoco-py 2 left them, {_OURS}{old}"
    )
    return Task(f"ant-{quality}-v{version}", "orbs/ant-v2", note, 111, 8, -1.0, 1.0, 1000)


def _adroit() -> list[Task]:
    tasks = []
    for version in (0, 1):
        for kind, (obs_dim, action_dim, steps) in _ADROIT.items():
            env_id = f"AdroitHand{kind.capitalize()}-v1"
            mend = "the end when the pen falls" if kind == "pen" else "the sign of the distance in the reward"
            note = f"{env_id} of gymnasium-robotics with D4RL's rules ({mend} is mended), {_OURS}"
            tasks += [
                Task(f"{kind}-{source}-v{version}", env_id, note, obs_dim, action_dim, -1.0, 1.0, steps)
                for source in ("human", "cloned", "expert")
            ]
    return tasks


def _maze2d() -> list[Task]:
    tasks = []
    sizes = ("umaze", "medium", "large")
    for layout in ("open", *sizes, *(f"eval-{size}" for size in sizes)):
        for dense in ("", "-dense"):
            name = f"maze2d-{layout}{dense}-v{0 if layout == 'open' else 1}"
            note = (
                f"orbs/{name}, gymnasium-robotics' PointMaze with D4RL's walls, coordinates, starts, goal and reward, "
                f"{_OURS}; recorded steps are repeated to the rounding of float32"
            )
            steps = _MAZE2D_STEPS[layout.removeprefix("eval-")]
            tasks.append(Task(name, f"orbs/{name}", note, 4, 2, -1.0, 1.0, steps))
    return tasks


def _antmaze() -> list[Task]:
    tasks = []
    for version in (0, 2):
        drawn = "" if version == 2 else "; each episode draws a goal, which D4RL's v0 did once an environment"
        for layout in _ANTMAZES:
            env_id = f"orbs/antmaze-{layout}-v2"
            note = (
                f"{env_id}, gymnasium-robotics' AntMaze with D4RL's walls, coordinates, starts, goal, reward, "
                f"time step, motors and contacts, {_OURS}{drawn}"
            )
            steps = 700 if layout.startswith("umaze") else 1000
            tasks.append(Task(f"antmaze-{layout}-v{version}", env_id, note, 29, 8, -1.0, 1.0, steps))
    return tasks


def _kitchen() -> list[Task]:
    return [
        Task(
            name := f"kitchen-{source}-v0",
            f"orbs/{name}",
            f"orbs/{name}, gymnasium-robotics' FrankaKitchen ({parts}) with D4RL's observation, noise and reward, "
            "in MuJoCo 3 where D4RL used dm_control (MuJoCo 2)",
            60,
            9,
            -1.0,
            1.0,
            280,
        )
        for source, parts in _KITCHENS.items()
    ]


def _unscored() -> list[Task]:
    def no(name: str, why: str, obs_dim: int | None, action_dim: int | None, bound: float | None, steps: int) -> Task:
        low = None if bound is None else -bound
        return Task(name, None, why, obs_dim, action_dim, low, bound, steps)

    bullet = "its environment is PyBullet's, a different simulator with other observations and rewards"
    tasks = [
        no(f"bullet-{body}-{quality}-v0", bullet, obs_dim, action_dim, 1.0, 1000)
        for body, (obs_dim, action_dim) in {
            "ant": (28, 8), "halfcheetah": (26, 6), "hopper": (15, 3), "walker2d": (22, 6),
        }.items()
        for quality in _QUALITIES
    ]  # fmt: skip
    tasks += [no(f"bullet-maze2d-{size}-v0", bullet, 4, 2, 1.0, steps) for size, steps in _MAZE2D_STEPS.items()]
    flow = "its environment is the Flow traffic simulator on SUMO, which no maintained package brings"
    for road, bound, steps in (("ring", 1.0, 500), ("merge", 1.5, 750)):
        tasks += [no(f"flow-{road}-{who}-v0", flow, None, None, bound, steps) for who in ("random", "controller")]
    carla = "its environment is the CARLA driving simulator, with images for observations"
    tasks += [no(name, carla, None, 2, 1.0, 250 if "lane" in name else 1000) for name in _CARLA]
    grid = "its actions are discrete, and its observations grids, which no algorithm here learns from"
    tasks += [no(f"minigrid-fourrooms{which}-v0", grid, None, None, None, 50) for which in ("", "-random")]
    return tasks


_CARLA = ("carla-lane-v0", "carla-town-v0", "carla-town-full-v0")


@functools.cache
def _tasks() -> dict[str, Task]:
    families = (_locomotion(), _adroit(), _maze2d(), _antmaze(), _kitchen(), _unscored())
    return {found.name: found for family in families for found in family}


NAMES = tuple(sorted(_tasks()))
