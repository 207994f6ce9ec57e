"""D4RL's mazes and kitchen on top of gymnasium-robotics, with D4RL's observations, starts, goals, rewards and ends.

The layouts are those of D4RL (Fu et al. 2020, arXiv 2004.07219), package version 1.1; the simulation models are
gymnasium-robotics', mended where D4RL's differ, and checked against D4RL's model files and recorded data:

- Maze2d: the model is D4RL's but for the origin, which is moved. 49706 recorded steps are repeated to 5e-7, pushes
  against the walls agree with D4RL's model to 4e-11 over 4000 steps.
- AntMaze: D4RL's ant has half the control rate (time step 0.02 s), motors a fifth as strong (30) and softer contacts
  (solimp 0.8 0.8 0.01). With these it stays within 2e-11 of D4RL's model over 100 random steps; then chaos grows.
- Kitchen: bodies, joints, motors and colliding shapes are D4RL's; observation noise, reward and end are not.

Ids are `orbs/` and D4RL's name, registered by `import envs`. They need gymnasium-robotics, imported when one is made.
Importing this module imports gymnasium.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from orbs import reject

__all__ = ["AntMaze", "Kitchen", "Maze2d"]

_RADIUS = 0.5  # from where on a maze's goal counts as reached; gymnasium-robotics has 0.45

# Walls (#), free cells (.), goal (G) and, for the ant, start (R). Row w of a Maze2d map is x = w, column h is y = h;
# row i of an AntMaze map is y = 4 i - 4, column j is x = 4 j - 4, so that the start, in row 1 and column 1, is (0, 0).
MAZE2D = {
    "open": ("#######", "#.....#", "#..G..#", "#.....#", "#######"),
    "umaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "eval-umaze": ("#####", "#..G#", "#.###", "#...#", "#####"),
    "medium": ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "eval-medium": ("########", "#.....G#", "#.#.##.#", "#....#.#", "###..###", "#......#", "#..##..#", "########"),
    "large": (
        "############", "#....#.....#", "#.##.#.#.#.#", "#......#...#", "#.####.###.#", "#..#.#.....#",
        "##.#.#.#.###", "#..#...#.G.#", "############",
    ),
    "eval-large": (
        "############", "#..#...#.G.#", "##.###.#.#.#", "#..#.#.....#", "#.##.#..##.#", "#......#...#",
        "#.##.#.#.###", "#....#.....#", "############",
    ),
}  # fmt: skip
ANTMAZE = {
    "umaze": ("#####", "#R..#", "###.#", "#G..#", "#####"),
    "medium": ("########", "#R.##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############", "#R...#.....#", "#.##.#.#.#.#", "#......#...#", "#.####.###.#", "#..#.#.....#",
        "##.#.#.#.###", "#..#...#.G.#", "############",
    ),
}  # fmt: skip


class _Simulated(gym.Env[np.ndarray, np.ndarray]):
    """What the three tasks share: one MuJoCo environment of gymnasium-robotics inside, rendered and closed with it."""

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 20}  # noqa: RUF012
    render_mode: str | None

    def __init__(self, simulator: Any, obs_dim: int, action_dim: int) -> None:
        self._simulator = simulator
        self.render_mode = simulator.render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    @property
    def model(self) -> Any:
        """The MuJoCo model."""
        return self._simulator.model

    @property
    def data(self) -> Any:
        """The MuJoCo data."""
        return self._simulator.data

    def render(self) -> Any:
        return self._simulator.render()

    def close(self) -> None:
        self._simulator.close()

    def _restart(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self._simulator.set_state(qpos, qvel)
        self._show()

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()


class Maze2d(_Simulated):
    """A ball pushed through a maze, which never ends by itself.

    Observation (4,): position x, y and velocity. Action (2,): force, in [-1, 1]. Reward: 1 in each step that ends
    within 0.5 of the goal ("sparse"), or exp(-distance to the goal) ("dense"). Starts: the middle of any free cell or
    the goal's, +-0.1, with normal velocities of deviation 0.1. A cell's middle, as a start or goal, is (row, column):
    0.2 off the middle between its walls, as in D4RL.

    Args:
        layout: a key of `MAZE2D`.
        reward: "sparse" or "dense".
        render_mode: None, "human" or "rgb_array".

    Raises:
        ValueError: an unknown layout or reward.
        ImportError: gymnasium-robotics is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 100}  # noqa: RUF012

    def __init__(self, layout: str = "umaze", reward: str = "sparse", render_mode: str | None = None) -> None:
        if reward not in ("sparse", "dense"):
            reject("reward", "'sparse' or 'dense'", f"'{reward}'", "choose one of these")
        from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

        maze = _map(MAZE2D, layout)
        width, height = len(maze), len(maze[0])
        # There rows count down the y axis: the map is turned.
        walls = [[int(maze[w][height - 1 - i] == "#") for w in range(width)] for i in range(height)]
        built = PointMazeEnv(maze_map=walls, render_mode=render_mode)
        Path(built.tmp_xml_file_path).unlink(missing_ok=True)
        super().__init__(built.point_env, 4, 2)
        self.goal = np.argwhere([[cell == "G" for cell in row] for row in maze])[0].astype(np.float64)
        self._starts = np.argwhere([[cell != "#" for cell in row] for row in maze]).astype(np.float64)
        self._dense = reward == "dense"
        # D4RL's ball stands at 1.2 when its joints read 0, and the wall of cell (0, 0) at 1; there at half a maze.
        shift = 0.2 - (np.array([width, height]) - 1) / 2
        self.model.body("particle").pos[:2] = shift
        self.model.site("target").pos[:2] = self.goal + shift

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        start = self._starts[self.np_random.integers(len(self._starts))]
        self._restart(start + self.np_random.uniform(-0.1, 0.1, 2), 0.1 * self.np_random.standard_normal(2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._simulator.step(action)  # clips the action, and the velocity to +-5 before the step, as D4RL does
        obs = self._observe()
        distance = float(np.linalg.norm(obs[:2] - self.goal))
        reward = float(np.exp(-distance)) if self._dense else float(distance <= _RADIUS)
        return obs, reward, False, False, {"success": distance <= _RADIUS}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])


class AntMaze(_Simulated):
    """An ant that walks to a goal it does not see; the episode ends there.

    Observation (29,): joint positions (15, the first two x and y) and velocities (14). Action (8,): torques, in
    [-1, 1]. Reward: 1 within 0.5 of the goal, which is terminal, else 0. The start is (0, 0), every position +-0.1,
    with normal velocities of deviation 0.1. Each episode draws a goal: the goal cell's middle plus, in x and y,
    a uniform number up to 1 and another up to 0.5.

    Args:
        layout: a key of `ANTMAZE`.
        render_mode: None, "human" or "rgb_array".

    Raises:
        ValueError: an unknown layout.
        ImportError: gymnasium-robotics is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, layout: str = "umaze", render_mode: str | None = None) -> None:
        from gymnasium_robotics.envs.maze.ant_maze_v5 import AntMazeEnv

        maze = _map(ANTMAZE, layout)
        walls = [[int(cell == "#") for cell in row] for row in reversed(maze)]
        built = AntMazeEnv(maze_map=walls, render_mode=render_mode)
        Path(built.tmp_xml_file_path).unlink(missing_ok=True)
        super().__init__(built.ant_env, 29, 8)
        self.model.opt.timestep = 0.02
        self.model.actuator_gear[:, 0] = 30.0
        self.model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
        # There the origin is the middle of the maze, here the middle of cell (1, 1).
        self._origin = np.array([6.0 - 2.0 * len(maze[0]), 6.0 - 2.0 * len(maze)])
        row, column = np.argwhere([[cell == "G" for cell in row] for row in maze])[0]
        self._goal_cell = 4.0 * np.array([column, row]) - 4.0
        self.goal = self._goal_cell.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        noise = self.np_random.uniform(0.0, 1.0, 2) + self.np_random.uniform(0.0, 0.5, 2)
        self.goal = np.maximum(self._goal_cell + noise, 0.0)
        self.model.site("target").pos[:2] = self.goal + self._origin
        qpos = self.model.qpos0 + self.np_random.uniform(-0.1, 0.1, 15)
        qpos[:2] += self._origin
        self._restart(qpos, 0.1 * self.np_random.standard_normal(14))
        return self._observe(), {"goal": self.goal.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._simulator.do_simulation(np.clip(action, -1.0, 1.0), 5)
        self._show()
        obs = self._observe()
        reached = bool(np.linalg.norm(obs[:2] - self.goal) <= _RADIUS)
        return obs, float(reached), reached, False, {"success": reached}

    def _observe(self) -> np.ndarray:
        obs = np.concatenate([self.data.qpos, self.data.qvel])
        obs[:2] -= self._origin
        return obs


class Kitchen(_Simulated):
    """A robot arm in a kitchen; each of the task's parts pays once, and the episode ends when all are done.

    Observation (60,): arm joints (9) and objects (21), both with noise, and what the parts are to come to (30, zeros
    elsewhere). Action (9,): joint velocities, in [-1, 1]. Reward: how many parts came within 0.3 of their goal, as
    observed, for the first time in the episode.

    Args:
        parts: names of the parts, as in gymnasium-robotics' FrankaKitchen.
        render_mode: None, "human" or "rgb_array".

    Raises:
        ValueError: an unknown part.
        ImportError: gymnasium-robotics is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 12}  # noqa: RUF012
    _NOISE = 0.1  # of the amplitudes below; gymnasium-robotics has 0.01 for the arm, 0.0005 for objects
    _OBJECT_AMPLITUDE = np.repeat([0.005, 0.0005, 0.005, 0.1, 0.005, 0.1, 0.005], [2, 6, 3, 3, 3, 3, 1])

    def __init__(self, parts: tuple[str, ...] = ("microwave",), render_mode: str | None = None) -> None:
        from gymnasium_robotics.envs.franka_kitchen import kitchen_env

        known = kitchen_env.OBS_ELEMENT_GOALS
        unknown = [part for part in parts if part not in known]
        if unknown or not parts:
            reject("parts", f"one or more of {', '.join(known)}", f"{parts}", "name parts of the kitchen")
        built = kitchen_env.KitchenEnv(list(parts), robot_noise_ratio=self._NOISE, render_mode=render_mode)
        _share_model(built.robot_env)
        super().__init__(built.robot_env, 60, 9)
        self._parts = {part: kitchen_env.OBS_ELEMENT_INDICES[part] for part in parts}
        self._goal = np.zeros(30)
        for part, where in self._parts.items():
            self._goal[where] = known[part]
        self._left = list(parts)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        # A stream of its own: the arm's noise must not repeat the objects'.
        robot, _ = self._simulator.reset(seed=None if seed is None else int(self.np_random.integers(2**31)))
        self._left = list(self._parts)
        self._show()
        return self._observe(robot), {"left": self._left.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        robot, *_ = self._simulator.step(action)
        obs = self._observe(robot)
        done = [p for p in self._left if np.linalg.norm((obs[:30] - self._goal)[self._parts[p]]) < 0.3]
        self._left = [part for part in self._left if part not in done]
        return obs, float(len(done)), not self._left, False, {"left": self._left.copy()}

    def _observe(self, robot: np.ndarray) -> np.ndarray:
        noise = self._NOISE * self._OBJECT_AMPLITUDE * self.np_random.uniform(-1.0, 1.0, 21)
        return np.concatenate([robot[:9], self.data.qpos[9:] + noise, self._goal])


_kitchens: dict[str, Any] = {}  # by file: the model, which nothing changes


def _share_model(robot: Any) -> None:
    """Let all kitchens of this process have one model, 54 MB large; each has data of its own, under 1 MB."""
    import mujoco

    robot.model = _kitchens.setdefault(robot.fullpath, robot.model)
    robot.data = mujoco.MjData(robot.model)
    robot.init_qvel = np.zeros(robot.model.nv)  # it was a view of the former data
    robot.mujoco_renderer.model, robot.mujoco_renderer.data = robot.model, robot.data


def _map(maps: dict[str, tuple[str, ...]], layout: str) -> tuple[str, ...]:
    if layout not in maps:
        reject("layout", f"one of {', '.join(maps)}", f"'{layout}'", "choose one of these")
    return maps[layout]
