"""Stable-Baselines3's TD3 and SAC as algorithms "sb3-td3" and "sb3-sac" of `orbs train`: a second opinion on ours.

The environments, their starts, the evaluation and the table are ours; the hyperparameters are those of our agent of
the same name, each set explicitly, because Stable-Baselines3's defaults are others. A run is a model of its own with
its own random streams; the models learn one after the other from one log point to the next, and the rate is that of
all of them, as ours is. A training that was stopped starts again: a model of Stable-Baselines3 is saved by pickling,
which nothing here reads or writes. Its first update comes one environment step after ours: it asks for more than
`random_steps` steps, ours for as many.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.noise import NormalActionNoise

from experiments.agents import SECOND_OPINIONS, config_of
from experiments.train import Unit
from experiments.train_online import OnlineSession, Start
from experiments.training_envs import TrainingEnvs, start_seed
from orbs import reject

__all__ = ["SecondOpinion", "SecondSession", "arguments"]

# Our field -> Stable-Baselines3's argument of both algorithms.
_SHARED = {
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "discount": "gamma",
    "tau": "tau",
    "capacity": "buffer_size",
    "random_steps": "learning_starts",
}
_TD3 = {"policy_noise": "target_policy_noise", "noise_clip": "target_noise_clip", "policy_period": "policy_delay"}
_OTHERS = {
    "td3": {*_SHARED, *_TD3, "hidden", "exploration_noise"},
    "sac": {*_SHARED, "hidden", "initial_alpha", "alpha_learning_rate", "target_entropy"},
}


def arguments(name: str, config: Any, action_dim: int) -> dict[str, Any]:
    """What Stable-Baselines3's class is called with, for the configuration of ours.

    Raises:
        ValueError: a field that it does not have is set to another value than its default.
    """
    ours = SECOND_OPINIONS[name]
    for field in type(config).__dataclass_fields__.values():
        value = getattr(config, field.name)
        if field.name not in _OTHERS[ours] and value != field.default:
            fix = f"leave {field.name} at {field.default!r}"
            reject(f"{name}.{field.name}", "a field that Stable-Baselines3 has", repr(value), fix)
    found = {theirs: getattr(config, own) for own, theirs in _SHARED.items()}
    found |= {"train_freq": 1, "gradient_steps": 1}
    found["policy_kwargs"] = {"net_arch": list(config.hidden), "activation_fn": torch.nn.ReLU}
    if ours == "td3":
        found |= {theirs: getattr(config, own) for own, theirs in _TD3.items()}
        # Theirs, like ours, is added to the action scaled to [-1, 1].
        deviation = config.exploration_noise * np.ones(action_dim)
        found["action_noise"] = _NoiseAfter(config.random_steps, deviation)
        return found
    if config.alpha_learning_rate == config.learning_rate:
        found["ent_coef"] = f"auto_{config.initial_alpha}"
    elif config.alpha_learning_rate == 0:
        found["ent_coef"] = config.initial_alpha
    else:
        expected = f"learning_rate ({config.learning_rate}), which Stable-Baselines3 takes for both, or 0"
        reject(f"{name}.alpha_learning_rate", expected, config.alpha_learning_rate, "set both alike")
    found["target_entropy"] = "auto" if config.target_entropy is None else config.target_entropy
    return found


class _NoiseAfter(NormalActionNoise):
    """Exploration noise from the first action of the policy on.

    Stable-Baselines3 adds the noise to the random actions of the start as well, which are then no longer uniform; ours
    and the authors' TD3 do not. It asks once an environment step, and resets between episodes, which leaves the count.
    """

    def __init__(self, random_steps: int, deviation: np.ndarray) -> None:
        super().__init__(np.zeros_like(deviation), deviation)
        self.random_steps, self.asked = random_steps, 0

    def __call__(self) -> np.ndarray:
        self.asked += 1
        return np.zeros_like(self._sigma) if self.asked <= self.random_steps else super().__call__()


class SecondOpinion:
    """A model of Stable-Baselines3 for each run, seen by the evaluation as one learner.

    Args:
        name: "sb3-td3" or "sb3-sac".
        envs: an environment a run.
        config: our configuration.
    """

    def __init__(self, name: str, envs: TrainingEnvs, config: Any, seed: int, device: str) -> None:
        import stable_baselines3
        from stable_baselines3.common.logger import Logger
        from stable_baselines3.common.vec_env import DummyVecEnv

        self.name, self.config, self.run_ids, self.steps = name, config, envs.runs, 0
        self.obs_dim, self.action_dim = (int(size) for size in (envs.obs.shape[1], envs.action_dim))
        kind = getattr(stable_baselines3, SECOND_OPINIONS[name].upper())
        self._streams, self._own = _Streams(device), list[tuple[Any, ...]]()
        self.models: list[Any] = []
        self._lost: set[int] = set()
        with self._streams.kept():
            for run, copy in zip(envs.runs, envs.copies, strict=True):
                copy.episode = -1  # theirs resets it once more before its first step
                given = arguments(name, config, self.action_dim)
                model = kind(
                    "MlpPolicy",
                    DummyVecEnv([lambda copy=copy: copy]),  # type: ignore[misc]
                    seed=start_seed(seed, run, 0),
                    device=device,
                    verbose=0,
                    **given,
                )
                model.set_logger(Logger(None, []))
                self.models.append(model)
                self._own.append(self._streams.now())

    @property
    def runs(self) -> int:
        return len(self.models)

    def learn(self, steps: int, each: Any) -> None:
        """`steps` environment steps of every model in turn, but for diverged ones; each(slot) is called after each."""
        with self._streams.kept():
            for slot, model in enumerate(self.models):
                if slot not in self._lost:
                    self._streams.put(self._own[slot])
                    try:
                        # No lines of its own, and the episode goes on where it was.
                        model.learn(steps, log_interval=None, reset_num_timesteps=False)
                    except ValueError:  # a distribution with parameters that are not finite
                        if self.finite()[slot]:
                            raise
                    self._own[slot] = self._streams.now()
                each(slot)
        self.steps += steps

    def act(self, obs: Any) -> np.ndarray:
        """(runs, n, obs_dim) -> (runs, n, action_dim), deterministic, in the environment's units."""
        action = np.zeros((*np.shape(obs)[:2], self.action_dim), np.float32)
        for slot, (model, own) in enumerate(zip(self.models, np.asarray(obs, np.float32), strict=True)):
            if slot not in self._lost:
                action[slot] = model.predict(own, deterministic=True)[0]
        return action

    def metrics(self) -> dict[str, np.ndarray]:
        """The last update's losses, where every model has made one, under our names."""
        found = {}
        for theirs, ours in (("critic_loss", "critic_loss"), ("actor_loss", "actor_loss"), ("ent_coef", "alpha")):
            values = [model.logger.name_to_value.get(f"train/{theirs}") for model in self.models]
            if all(value is not None for value in values):
                found[ours] = np.array(values, np.float64)
        if "critic_loss" in found and SECOND_OPINIONS[self.name] == "sac":
            found["critic_loss"] *= 2.0  # theirs is half the sum of the two errors, ours the sum
        return found

    def finite(self) -> np.ndarray:
        """(runs,) whether every parameter of the run's model is a finite number."""
        fine = np.array(
            [all(bool(torch.isfinite(p).all()) for p in model.policy.parameters()) for model in self.models]
        )
        self._lost |= set(map(int, np.flatnonzero(~fine)))
        return fine


class SecondSession(OnlineSession):
    """The models of one unit; there is no checkpoint, so metrics are all that is kept.

    They are evaluated in the training process: a copy for another one would be pickled.
    """

    portable = False

    @classmethod
    def start(cls, unit: Unit, envs: TrainingEnvs, saved: dict[str, Any]) -> Start | None:
        options = unit.options
        if saved:
            if saved.get("status") in ("complete", "diverged") and saved.get("steps") == options.steps:
                print(f"{unit.folder} is {saved['status']} at {options.steps} steps: nothing to do.")
                return None
            if saved.get("status") == "complete" and saved.get("steps", 0) > options.steps:
                reject("--steps", f"at least {saved['steps']}, which were made", options.steps, "ask for more")
            print(f"{unit.folder}: starts again from step 0: Stable-Baselines3's agents cannot be resumed.")
        settings = config_of(unit.algorithm)(**unit.hyperparameters)
        return Start(SecondOpinion(unit.algorithm, envs, settings, options.seed, options.device))

    @property
    def position(self) -> int:
        return int(self.learner.steps)

    def advance(self, stop: int, bar: Any) -> None:
        steps = stop - self.position
        self.learner.learn(steps, lambda slot: bar.update(steps / self.learner.runs))

    def checkpoint(self, **header: Any) -> None:
        pass


class _Streams:
    """The process's random streams, which Stable-Baselines3 draws from: with the GPU's, where it learns on one."""

    def __init__(self, device: str) -> None:
        on_gpu = torch.cuda.is_available() and torch.device(device).type == "cuda"
        self.device = torch.device(device) if on_gpu else None

    def now(self) -> tuple[Any, ...]:
        gpu = None if self.device is None else torch.cuda.get_rng_state(self.device)
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), gpu  # noqa: NPY002 (theirs)

    def put(self, state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002 (theirs)
        torch.set_rng_state(state[2])
        if self.device is not None:
            torch.cuda.set_rng_state(state[3], self.device)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the process's streams as they were."""
        before = self.now()
        try:
            yield
        finally:
            self.put(before)
