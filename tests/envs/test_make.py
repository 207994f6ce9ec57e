"""Environments by id, and D4RL's rules for the Adroit hand tasks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from envs.make import env_facts, make_env, make_vec, missing_extra


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        ("envs", "torch mujoco gymnasium_robotics stable_baselines3 h5py"),
        (
            "envs, envs.make, envs.d4rl_tasks, envs.datasets, envs.collect",
            "mujoco gymnasium_robotics stable_baselines3",
        ),
    ],
)
def test_import_is_lazy(imported: str, heavy: str) -> None:
    """`import envs` imports gymnasium, to register ids, and nothing that an environment needs."""
    code = f"import {imported}, sys; print(set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_facts() -> None:
    facts = env_facts("Pendulum-v1")
    assert (facts.obs_dim, facts.max_episode_steps) == (3, 200)
    assert facts.action_low.tolist() == [-2.0]


@pytest.mark.parametrize(
    ("env_id", "parts"),
    [
        ("Pendulum-v7", ("registered Gymnasium environment", "did you mean 'Pendulum-v1'")),
        ("Nonsense", ("registered Gymnasium environment", "'Nonsense'")),
        ("CartPole-v1", ("discrete actions are unsupported",)),
        ("Blackjack-v1", ("discrete actions are unsupported",)),
    ],
)
def test_environments_that_cannot_serve(env_id: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        env_facts(env_id)
    for part in (*parts, "env: expected", "Fix: "):
        assert part in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_mujoco_version_names_the_new_ones() -> None:
    with pytest.raises(ValueError, match=r"'Hopper-v3'.*name another version of the task: Hopper-v5 or Hopper-v4"):
        make_env("Hopper-v3")


@pytest.mark.parametrize("env_id", ["AdroitHandDoor-v1", "PointMaze_UMaze-v3", "orbs/maze2d-umaze-v1"])
def test_missing_robotics_names_the_extra(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    assert missing_extra(env_id) == "robotics"
    assert missing_extra("Pendulum-v1") is None
    with pytest.raises(ImportError, match=r'pip install "orbs\[robotics\]"'):
        make_env(env_id)


def test_wanted_old_versions_are_made_without_advice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_env("Hopper-v4").close()


class Goals(gym.Env[Any, Any]):
    """A goal environment whose keys do not stand in sorted order, and one with an image."""

    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, image: bool = False) -> None:
        shapes = {"observation": (3,), "desired_goal": (2,), "achieved_goal": (8, 8, 3) if image else (2,)}
        boxes = {key: gym.spaces.Box(-9, 9, shape) for key, shape in shapes.items()}
        self.observation_space = gym.spaces.Dict(boxes)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        values = {"observation": 1, "desired_goal": 2, "achieved_goal": 3}
        spaces: Any = self.observation_space
        return {key: np.full(spaces[key].shape, value, np.float32) for key, value in values.items()}, {}


@pytest.fixture
def goals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, image in (("Goals-v0", False), ("GoalImages-v0", True)):
        gym.register(name, entry_point=Goals, max_episode_steps=5, kwargs={"image": image}, disable_env_checker=True)
        monkeypatch.setitem(gym.registry, name, gym.registry.pop(name))  # taken back after the test


@pytest.mark.usefixtures("goals")
def test_goal_observations_come_flat_in_sorted_order() -> None:
    obs, _ = make_env("Goals-v0").reset(seed=0)
    assert obs.tolist() == [3, 3, 2, 2, 1, 1, 1]
    assert env_facts("Goals-v0").obs_dim == 7
    with pytest.raises(ValueError, match="observations in a flat box"):
        env_facts("GoalImages-v0")


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize(
    ("env_id", "parts"),
    [("PointMaze_UMaze-v3", (2, 2, 4)), ("AntMaze_UMaze-v5", (2, 2, 105)), ("FrankaKitchen-v1", (17, 17, 59))],
)
def test_robotics_goal_tasks_come_flat(env_id: str, parts: tuple[int, int, int]) -> None:
    env = make_env(env_id)
    obs, _ = env.reset(seed=0)
    whole: Any = env.unwrapped.observation_space
    assert [gym.spaces.flatdim(whole[key]) for key in ("achieved_goal", "desired_goal", "observation")] == list(parts)
    assert obs.shape == (sum(parts),)
    assert env_facts(env_id).obs_dim == sum(parts)
    env.close()


def test_vector_keeps_the_last_observation_of_an_episode() -> None:
    envs = make_vec("Pendulum-v1", 2, max_episode_steps=3)
    envs.reset(seed=0)
    for _ in range(3):
        obs, _, _, truncated, info = envs.step(np.zeros((2, 1), np.float32))
    assert truncated.all()
    assert not np.allclose(obs[0], info["final_obs"][0])
    with pytest.raises(ValueError, match="at least 1"):
        make_vec("Pendulum-v1", 0)
    with pytest.raises(ValueError, match="one of NextStep, SameStep, Disabled"):
        make_vec("Pendulum-v1", 1, autoreset="Never")


@pytest.fixture
def robotics() -> None:
    pytest.importorskip("gymnasium_robotics", reason='needs pip install "orbs[robotics]"')


def d4rl_reward(task: str, env: Any, obs: Any) -> float:
    """The dense reward, written out from D4RL's `hand_manipulation_suite/*_v0.py`."""
    base = env.unwrapped
    site = {name: base.data.site(name).xpos for name in ("S_grasp",)}
    palm, speed = site["S_grasp"], base.data.qvel
    norm = np.linalg.norm
    if task == "Door":
        handle, hinge = base.data.site("S_handle").xpos, float(obs[28])
        reward = -0.1 * norm(palm - handle) - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * np.sum(speed**2)
        return float(reward + 2 * (hinge > 0.2) + 8 * (hinge > 1.0) + 10 * (hinge > 1.35))
    thing = base.data.body("Object").xpos
    if task == "Hammer":
        tool, nail, goal = (base.data.site(name).xpos for name in ("tool", "S_target", "nail_goal"))
        reward = -0.1 * norm(palm - thing) - norm(tool - nail) - 10 * norm(nail - goal) - 1e-2 * norm(speed)
        gap = norm(nail - goal)
        return float(reward + 2 * (thing[2] > 0.04 and tool[2] > 0.04) + 25 * (gap < 0.02) + 75 * (gap < 0.01))
    target = base.data.site("target").xpos
    reward = -0.1 * norm(palm - thing)
    if thing[2] > 0.04:
        reward += 1.0 - 0.5 * norm(palm - target) - 0.5 * norm(thing - target)
    gap = norm(thing - target)
    return float(reward + 10 * (gap < 0.1) + 20 * (gap < 0.05))


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("task", ["Door", "Hammer", "Relocate"])
def test_adroit_rewards_are_d4rls(task: str) -> None:
    env, plain = make_env(f"AdroitHand{task}-v1"), make_env(f"AdroitHand{task}-v1", d4rl_rules=False)
    rng = np.random.default_rng(0)
    env.reset(seed=3)
    plain.reset(seed=3)
    raw_gap = 0.0
    for _ in range(30):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, *_ = env.step(action)
        wanted = d4rl_reward(task, env, obs)
        assert float(reward) == pytest.approx(wanted, abs=1e-9)
        raw_gap = max(raw_gap, abs(float(plain.step(action)[1]) - wanted))
    from envs.adroit import distance_weight

    weight = distance_weight(type(env.unwrapped))
    assert weight == pytest.approx(0.1) or weight == pytest.approx(-0.1)
    mended = weight > 0
    assert (raw_gap > 0.01) == mended
    assert env.has_wrapper_attr("mended") == mended
    assert env.spec is not None
    assert [wrapper.name for wrapper in env.spec.additional_wrappers] == ["AdroitRewardMend"] * mended


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_sound_reward_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from envs import adroit

    monkeypatch.setattr(adroit, "distance_weight", lambda kind: -0.1)
    assert not make_env("AdroitHandDoor-v1").has_wrapper_attr("mended")
    monkeypatch.setattr(adroit, "distance_weight", lambda kind: 0.3)
    with pytest.raises(RuntimeError, match="d4rl_rules=False"):
        make_env("AdroitHandDoor-v1")


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_pen_ends_when_it_falls_and_after_a_hundred_steps() -> None:
    env, plain = make_env("AdroitHandPen-v1"), make_env("AdroitHandPen-v1", d4rl_rules=False)
    assert env.spec is not None
    assert plain.spec is not None
    assert (env.spec.max_episode_steps, plain.spec.max_episode_steps) == (100, 200)
    rng = np.random.default_rng(0)
    fell = 0
    for seed in range(6):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            obs, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 24))
            assert terminated == (obs[26] < 0.075)
        fell += terminated
    assert fell > 0


@pytest.mark.extra
@pytest.mark.usefixtures("robotics")
def test_sparse_tasks_are_left_alone() -> None:
    assert not make_env("AdroitHandDoorSparse-v1").has_wrapper_attr("mended")
    assert not make_env("AdroitHandPenSparse-v1").has_wrapper_attr("mended")


@pytest.mark.shared_data
def test_recorded_door_rewards_subtract_the_distance(shared_data: Path) -> None:
    """From consecutive observations of the demonstrations; joint speeds by differences (joint 0 is not observed)."""
    with h5py.File(shared_data / "adroit-door-human" / "door-human-dapg.hdf5") as file:
        obs, reward, end = file["observations"][()].astype(np.float64), file["rewards"][()], file["timeouts"][()]
    rows = np.flatnonzero(~end[:-1])
    after = obs[rows + 1]
    distance, hinge = np.linalg.norm(after[:, 35:38], axis=1), after[:, 28]
    speed = (after[:, :27] - obs[rows, :27]) / 0.01
    rest = (
        -0.1 * (hinge - 1.57) ** 2
        - 1e-5 * (speed**2).sum(1)
        + 2 * (hinge > 0.2)
        + 8 * (hinge > 1)
        + 10 * (hinge > 1.35)
    )
    subtracted = np.abs(reward[rows] - (rest - 0.1 * distance))
    added = np.abs(reward[rows] - (rest + 0.1 * distance))
    assert np.median(subtracted) < 1e-4
    assert subtracted.max() < 0.01
    assert np.median(added) > 0.005


@pytest.mark.extra
@pytest.mark.shared_data
@pytest.mark.usefixtures("robotics")
def test_replayed_demonstrations_earn_what_was_recorded(shared_data: Path) -> None:
    """Until contact, the simulator follows the demonstrations, and the mended reward is the recorded one."""
    with h5py.File(shared_data / "adroit-door-human" / "door-human-dapg.hdf5") as file:
        starts = np.concatenate(([0], np.flatnonzero(file["timeouts"][()])[:-1] + 1))
        action, reward = file["actions"][()], file["rewards"][()]
        states = {key: file[f"infos/init_{key}"][()].astype(np.float64) for key in ("qpos", "qvel", "door_body_pos")}
    mended, plain = make_env("AdroitHandDoor-v1"), make_env("AdroitHandDoor-v1", d4rl_rules=False)
    for episode in range(0, 25, 6):
        gaps = {}
        for name, env in (("mended", mended), ("plain", plain)):
            env.reset(seed=0, options={"initial_state_dict": {key: value[episode] for key, value in states.items()}})
            steps = range(starts[episode], starts[episode] + 50)
            gaps[name] = max(abs(float(env.step(action[row])[1]) - float(reward[row])) for row in steps)
        assert gaps["mended"] < 0.01
        assert gaps["plain"] > 0.05
