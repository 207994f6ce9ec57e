"""What the d4rl package itself says, for `test_referee.py`. Runs in the environment that `make referee` makes.

python referee_program.py tables OUT.json
python referee_program.py views IN.npz OUT.npz
python referee_program.py dictionary IN.hdf5 OUT.npz
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import types

os.environ["D4RL_SUPPRESS_IMPORT_ERROR"] = "1"  # its simulators are absent, its tables and views need none

import gym
import numpy as np
from gym.envs import registration

STEP_LIMITS = {}


def _register(id, max_episode_steps=None, **_):
    STEP_LIMITS[id] = max_episode_steps


registration.register = _register  # before the package takes it

import d4rl  # noqa: E402
import d4rl.infos  # noqa: E402
import d4rl.offline_env  # noqa: E402


class _Nothing:
    """Stands for whatever a simulator offers."""

    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        return _Nothing()

    def __call__(self, *_, **__):
        return _Nothing()


class _Simulator(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return {} if name.isupper() else type(name, (_Nothing,), {})  # constants are tables of parameters


class _Simulators(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any module that is not installed, so that d4rl's registrations run to their end."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Simulator(spec.name)

    def exec_module(self, module):
        pass


def tables(out):
    """The package's tables, places, scores and registered step limits."""
    sys.meta_path.append(_Simulators())
    for part in (
        "locomotion", "hand_manipulation_suite", "pointmaze", "gym_minigrid", "gym_mujoco", "flow", "kitchen", "carla",
        "gym_bullet", "pointmaze_bullet",
    ):  # fmt: skip
        importlib.import_module(f"d4rl.{part}")
    infos = d4rl.infos
    found = {
        "urls": infos.DATASET_URLS,
        "minimum": infos.REF_MIN_SCORE,
        "maximum": infos.REF_MAX_SCORE,
        "scores": {
            name: [d4rl.get_normalized_score(name, value) for value in (-1234.5, 0.0, 777.7)]
            for name in infos.REF_MIN_SCORE
        },
        "places": {name: d4rl.offline_env.filepath_from_url(url) for name, url in infos.DATASET_URLS.items()},
        "step_limits": STEP_LIMITS,
    }
    with open(out, "w") as file:
        json.dump(found, file)


def views(source, out):
    """`qlearning_dataset` of every case, with and without `terminate_on_end`."""
    found, cases = {}, np.load(source)
    for case in range(int(cases["count"])):
        prefix = f"{case}/"
        data = {key.removeprefix(prefix): cases[key] for key in cases.files if key.startswith(prefix)}
        env = types.SimpleNamespace(_max_episode_steps=int(data.pop("limit")))
        for terminate_on_end in (False, True):
            view = d4rl.qlearning_dataset(env, data, terminate_on_end=terminate_on_end)
            found |= {f"{case}/{int(terminate_on_end)}/{key}": array for key, array in view.items()}
    np.savez(out, **found)


def dictionary(source, out):
    """What `env.get_dataset()` gives of a file: 3 columns of observations, 2 of actions."""
    env = d4rl.offline_env.OfflineEnv()
    env.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
    env.action_space = gym.spaces.Box(-1, 1, (2,))
    np.savez(out, **env.get_dataset(h5path=source))


if __name__ == "__main__":
    {"tables": tables, "views": views, "dictionary": dictionary}[sys.argv[1]](*sys.argv[2:])
