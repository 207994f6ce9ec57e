"""What the tests of agents that interact share: small options, environments that show mistakes, a table's values."""

import gymnasium as gym
import numpy as np

from experiments import results
from experiments.options import Train

TINY = {"hidden": "8,8", "batch_size": "8", "random_steps": "10", "capacity": "500"}


def small(*names):
    return tuple(f"{name}.{field}={value}" for name in names for field, value in TINY.items())


def options(out, **changes):
    algos = changes.get("algos", ("td3",))
    fields = dict(
        env="Pendulum-v1", algos=algos, runs=2, steps=60, eval_every=30, eval_episodes=1, log_every=10, out=out,
        set=small(*algos),
    )  # fmt: skip
    return Train(**{**fields, **changes})


def values(folder, metric):
    """{(run, step): value} of one metric."""
    frame = results.read_table(folder / "metrics.parquet")
    rows = frame[frame["metric"] == metric]
    return {(int(run), int(step)): value for run, step, value in rows[["run", "step", "value"]].to_numpy()}


class Far(gym.Env):
    """Counts its steps from 100 on; the start is 0, far from every end. A terminal after 3 steps, or a time limit of
    5, as `terminates` says. A start's first number is the seed's."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, terminates=True, high=1.0, bad_at=None):
        self.terminates, self.bad_at = terminates, bad_at
        self.action_space = gym.spaces.Box(-1.0, high, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.start = 0, np.float32(self.np_random.uniform())
        return np.array([self.start, 0.0], np.float32), {}

    def step(self, action):
        self.count += 1
        obs = np.array([self.start, 100.0 + self.count], np.float32)
        if self.count == self.bad_at:
            obs[1] = np.nan
        return obs, 1.0, self.terminates and self.count == 3, False, {}


class Discrete(gym.Env):
    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Unbounded(gym.Env):
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Differing(Far):
    """Every copy but the first has a box of its own."""

    made = 0

    def __init__(self):
        super().__init__(high=1.0 + (Differing.made > 1))
        Differing.made += 1


def register():
    """The environments above, for this process."""
    for name, kind, more in (
        ("Far-v0", Far, {}),
        ("FarLimit-v0", Far, {"terminates": False}),
        ("FarNaN-v0", Far, {"bad_at": 2}),
        ("Discrete-v0", Discrete, {}),
        ("Unbounded-v0", Unbounded, {}),
        ("Differing-v0", Differing, {}),
    ):
        if f"orbs-test/{name}" not in gym.registry:
            gym.register(f"orbs-test/{name}", kind, max_episode_steps=5, kwargs=more)
