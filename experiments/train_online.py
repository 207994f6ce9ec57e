"""Training of agents that interact: every run plays an environment of its own, all runs in one program.

The folders, the table, the evaluation and the resume are those of training on a dataset; steps are environment steps
a run. A checkpoint holds the agent with its replay and, of each environment, the episode's number and the actions
since its start, which a resume plays again. Stable-Baselines3's agents join in `experiments.second_opinion`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from envs.datasets.references import Reference, reference_scores
from experiments import eval_workers, pool, results
from experiments.agents import SECOND_OPINIONS, config_of
from experiments.options import Train, overrides
from experiments.presets import preset
from experiments.run_folder import alone, describe_online
from experiments.session import Point, Session, inherit, kernels, left_there
from experiments.train import Unit, check, check_folder, unit_folder
from orbs import checked_fields, reject

if TYPE_CHECKING:
    from pandas import DataFrame

    from experiments.training_envs import TrainingEnvs

__all__ = ["OnlineSession", "Start", "plan", "scores_of", "train", "train_unit"]


def train(options: Train) -> list[Path]:
    """Train every agent of `options`; returns the run folders.

    Raises:
        ValueError: bad options or an unfit environment, before anything is written; a folder that is in use.
    """
    units = plan(options)
    for unit in units:
        print(f"{unit.label}: {unit.note}")
        for line in config_of(unit.algorithm)(**unit.hyperparameters).notes(options.steps, unit.algorithm):
            print(line)
    if options.jobs == 1 or len(units) == 1:
        for unit in units:
            train_unit(unit)
    else:
        pool.each(train_unit, units, options.jobs)
    return [unit.folder for unit in units]


def plan(options: Train, variants: Mapping[str, str] = {}) -> list[Unit]:
    """The units of `options`; writes nothing. `variants` as of `experiments.train.plan`.

    Raises:
        ValueError: bad options, hyperparameters or environment; a folder that is in use without --resume.
    """
    from envs.make import env_facts

    names = check(options, variants)
    assert options.env is not None
    for field in ("critic", "beer", "clip_actions", "terminate_on_end"):
        if getattr(options, field) not in (None, False):
            given = f"it with {', '.join(names)}, which interact"
            reject(f"--{field.replace('_', '-')}", "algorithms that learn from a dataset", given, "leave it out")
    values = overrides(options.set, names)
    facts = env_facts(options.env)
    units = []
    for name in names:
        base = variants.get(name, name)
        found = preset(SECOND_OPINIONS.get(base, base), options.env)
        hyperparameters = {**found.values, **values[name]}
        kind = config_of(base)
        config = kind(**checked_fields(kind, hyperparameters, name))
        if base in SECOND_OPINIONS:
            from experiments.second_opinion import arguments

            arguments(base, config, len(facts.action_low))
        note = f"preset '{found.pattern}' {found.values or '{}'} ({found.source}); set by you: {values[name]}"
        units.append(Unit(options, name, base, hyperparameters, unit_folder(options, options.env, name), note))
    for unit in units:
        check_folder(unit)
    return units


def scores_of(reference: Reference | None, returns: np.ndarray) -> np.ndarray | None:
    """Normalised scores, where the environment's reference returns are known."""
    if reference is None:
        return None
    return np.asarray(100 * (returns - reference.minimum) / (reference.maximum - reference.minimum))


@dataclasses.dataclass
class Start:
    """What a session starts from: the learner; of a resume what it keeps, as `experiments.session.Left` has it."""

    learner: Any
    rows: DataFrame | None = None
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    pending: Point | None = None


def train_unit(unit: Unit, place: int = 0) -> None:
    """Train one unit, or go on with it; one that an earlier command completed is left alone."""
    import torch

    from experiments.cpu import cpu_settings
    from experiments.evaluate import Evaluator
    from experiments.evaluations import Evaluations
    from experiments.loggers import make_loggers
    from experiments.training_envs import TrainingEnvs

    options, kind = unit.options, _session_of(unit.algorithm)
    assert options.env is not None
    saved = results.read_config(unit.folder) if options.resume else {}
    matmul = kernels(options, saved, unit.folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_settings(matmul, options.threads))
        envs = TrainingEnvs(options.env, unit.run_ids, options.seed)
        stack.callback(envs.close)
        settings = config_of(unit.algorithm)(**unit.hyperparameters)
        reference = reference_scores(options.env)
        config = describe_online(unit, settings, reference, matmul)
        if saved:
            inherit(saved, config, unit.folder)
        start = kind.start(unit, envs, saved)
        if start is None:
            return
        evaluator = Evaluator(options.env, unit.run_ids, options.eval_episodes, options.seed)
        stack.callback(evaluator.close)
        evaluator.check(start.learner)
        valued = callable(getattr(start.learner, "value", None))
        workers = eval_workers.wanted(options)
        evaluations = Evaluations(evaluator, matmul, valued, kind.portable, workers)
        stack.callback(evaluations.close)
        config |= {"simulator": evaluator.simulator, "eval_workers": evaluations.count}
        scored_by = {"env": options.env, "simulator": evaluator.simulator}
        table = results.Table(options.experiment, unit.label, options.env, start.rows, **scored_by)
        loggers = make_loggers(unit.folder, config, options.tensorboard, options.wandb)
        for logger in loggers:
            stack.callback(logger.close)
        stack.enter_context(alone(unit.folder))
        device = torch.device(options.device)
        if torch.cuda.is_available() and device.type == "cuda":
            config["device_name"] = torch.cuda.get_device_name(device)
        session = kind(unit, config, start.learner, table, start.diverged, evaluations, loggers, start.pending)
        session.envs, session.reference = envs, reference
        session.train(place)


def _session_of(algorithm: str) -> type[OnlineSession]:
    if algorithm not in SECOND_OPINIONS:
        return _AgentSession
    from experiments.second_opinion import SecondSession

    return SecondSession


class OnlineSession(Session):
    """A unit that interacts; its steps are environment steps a run."""

    noun = "step"
    rate = "time/steps_per_second"
    portable: ClassVar[bool] = True  # whether the learner can be copied, and act elsewhere
    envs: TrainingEnvs
    reference: Reference | None

    @classmethod
    @abstractmethod
    def start(cls, unit: Unit, envs: TrainingEnvs, saved: dict[str, Any]) -> Start | None:
        """The learner at the step that it goes on from; None where nothing is left to do.

        Args:
            envs: brought to where the learner left them.
            saved: the configuration of the folder that is resumed, {} where it is new.
        """

    def score(self, returns: np.ndarray) -> np.ndarray | None:
        return scores_of(self.reference, returns)

    def some(self) -> list[tuple[dict[str, np.ndarray], list[int]]]:
        means = self.envs.ended()
        there = [slot for slot, mean in enumerate(means) if mean is not None]
        if not there:
            return []
        found = np.array([means[slot] for slot in there], np.float64)
        names = ("train/episode_return", "train/episode_length")
        runs = [self.learner.run_ids[slot] for slot in there]
        return [({name: found[:, column] for column, name in enumerate(names)}, runs)]


class _AgentSession(OnlineSession):
    """One of our own agents, all runs at once."""

    @classmethod
    def start(cls, unit: Unit, envs: TrainingEnvs, saved: dict[str, Any]) -> Start | None:
        from offline_rl import algorithm

        options, kind = unit.options, algorithm(unit.algorithm)
        checkpoint = unit.folder / "checkpoint.safetensors"
        if not saved or not checkpoint.exists():
            given = {"runs": unit.run_ids, "seed": options.seed, "device": options.device}
            return Start(kind.for_env(envs.vector, **given, **unit.hyperparameters))
        left = left_there(unit.folder, "interactions", options)
        done = left.meta["interactions"]
        if done == options.steps and saved.get("status") == "complete":
            print(f"{unit.folder} is complete at {options.steps} steps: nothing to do.")
            return None
        if len(left.diverged) == len(unit.run_ids) and saved.get("status") == "diverged":
            print(f"{unit.folder}: every run has diverged by step {done}: nothing to go on with.")
            return None
        agent = kind.load(checkpoint, options.device)
        strange = envs.restore(left.meta["episodes"])
        if strange:
            warnings.warn(
                f"{unit.folder}: the simulator differs from the one that this was trained in (playing the last "
                f"episode's actions again led elsewhere in run {', '.join(map(str, strange))}): going on from "
                "there, not to the bits of an uninterrupted training",
                stacklevel=2,
            )
        print(f"{unit.folder}: resuming at step {done}.")
        return Start(agent, left.rows, left.diverged, left.pending)

    @property
    def position(self) -> int:
        return int(self.learner.interactions)

    def advance(self, stop: int, bar: Any) -> None:
        agent, envs = self.learner, self.envs
        while agent.interactions < stop:
            obs = envs.obs
            action = self._finite(np.asarray(agent.explore(obs)))
            successor, reward, terminal = envs.step(action)
            agent.observe(obs, action, reward, successor, terminal)
            if due := agent.due:
                agent.update(due)
            bar.update(1)

    def _finite(self, action: np.ndarray) -> np.ndarray:
        """The actions; a diverged run's, which are none, become the middle of the box, so that the others go on."""
        lost = ~np.isfinite(action).all(1)
        if not lost.any():
            return action
        for slot in np.flatnonzero(lost):
            self.note_diverged(self.learner.run_ids[slot])
        middle = self.learner.action_centre.cpu().numpy()
        return np.where(lost[:, None], middle, action).astype(action.dtype)

    def measured(self) -> dict[str, np.ndarray]:
        return {f"eval/{name}": value for name, value in self.learner.measures().items()}

    def checkpoint(self, **header: Any) -> None:
        self.learner.save(
            self.unit.folder / "checkpoint.safetensors",
            env=self.unit.options.env,
            episodes=self.envs.state(),
            **header,
        )
